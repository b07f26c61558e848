"""Means over prompts with their bootstrap interval, and the share of copies among them.

Values are pairs of a prompt and a number; images of one prompt are no independent observations.

Where all prompts have the same value, `runs/spread.py` says what their interval is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, nan

from memorization_suite.runs.lazy import np
from memorization_suite.runs.spread import NOTHING, exact_interval, is_spread

RESAMPLES = 10_000
DRAWS = 500_000  # prompts that are drawn at once
Values = Iterable[tuple[int | None, float]]


@dataclass(frozen=True)
class Mean:
    """A mean over prompts of their means."""

    mean: float
    # Its 95 % interval over prompts; not a number where there is none.
    low: float
    high: float


def mean_over_prompts(
    values: Values, *, share: bool = False, observations: int | None = None
) -> Mean:
    """The mean of the prompts' means, of one value or more.

    share: whether every value is a yes or a no (1 or 0). observations: see `interval`.
    """
    means = list(prompt_means(values).values())
    return Mean(average(means), *interval(means, share=share, observations=observations))


def is_copy(score: float, threshold: float) -> bool:
    """The one definition of a copy: a score of at least the threshold. Not a number is none."""
    return score >= threshold


def share_of_copies(
    values: Values, threshold: float, *, observations: int | None = None
) -> Mean | None:
    """Share of a prompt's images that score at least the threshold, as a mean over prompts.

    None without any score. A score that is no number is none. observations: see `interval`.
    """
    copies = []
    for prompt, value in values:
        if isfinite(value):
            copies.append((prompt, float(is_copy(value, threshold))))
    return mean_over_prompts(copies, share=True, observations=observations) if copies else None


def prompt_means(values: Values) -> dict[int | None, float]:
    """Mean of each prompt's values."""
    return {prompt: average(numbers) for prompt, numbers in by_prompt(values).items()}


def by_prompt(values: Values) -> dict[int | None, list[float]]:
    """Each prompt's values."""
    groups: dict[int | None, list[float]] = {}
    for prompt, value in values:
        groups.setdefault(prompt, []).append(value)
    return groups


def average(values: Sequence[float]) -> float:
    """Their mean; not a number without any."""
    return float(sum(values) / len(values)) if values else nan


def interval(
    prompt_means: Sequence[float],
    *,
    share: bool = False,
    observations: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """(low, high), the 95 % percentile interval of the mean, resampling prompts.

    A single prompt, or none, has no interval, nor have means that are no numbers or that are all
    the same: (nan, nan). share: whether the means are shares; then all 0 and all 1 have an exact
    one. observations: how many the prompts are, where those of one training image are one; default
    the number of prompts.
    """
    values = np.asarray(prompt_means, dtype=float)
    n = len(values) if observations is None else observations
    if n < 2 or not np.isfinite(values).all():
        return NOTHING
    if not is_spread(values.min(), values.max()):
        return exact_interval(values[0], n) if share else NOTHING
    rng = np.random.default_rng(seed)
    at_once = max(1, DRAWS // len(values))
    means = []
    for first in range(0, resamples, at_once):
        rows = min(at_once, resamples - first)
        drawn = rng.integers(0, len(values), (rows, len(values)))
        means.append(values[drawn].mean(1))
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(low), float(high)
