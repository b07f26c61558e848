"""Means over prompts with their bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from memorization_suite.lazy import Lazy, np

stats = Lazy("scipy.stats")

RESAMPLES = 10_000


def interval(
    prompt_means: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """(low, high), the 95 % percentile interval of the mean, resampling prompts.

    Images of one prompt are no independent observations. A single prompt, or none, has no interval:
    (nan, nan).
    """
    if len(prompt_means) < 2:
        return math.nan, math.nan
    result = stats.bootstrap(
        (np.asarray(prompt_means, dtype=float),),
        np.mean,
        n_resamples=resamples,
        method="percentile",
        batch=500,
        rng=np.random.default_rng(seed),
    )
    limits = result.confidence_interval
    return float(limits.low), float(limits.high)
