"""Means over prompts with their bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 10_000


def interval(
    prompt_means: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean, resampling prompts: images of one prompt are no
    independent observations.

    A single prompt, or none, has no interval: (nan, nan).
    """
    if len(prompt_means) < 2:
        return float("nan"), float("nan")
    found = bootstrap(
        (np.asarray(prompt_means, dtype=float),),
        np.mean,
        n_resamples=resamples,
        method="percentile",
        batch=500,
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
