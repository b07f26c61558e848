"""Bootstrap over prompts, of which those with the same training image are drawn together.

All quantities of one drawing use the same draws, so that differences between runs are paired.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from math import isnan, nan
from typing import NamedTuple

from memorization_suite.metrics.paired import ONE_WAY
from memorization_suite.runs.lazy import np
from memorization_suite.runs.spread import NOTHING, exact_interval, is_spread

RESAMPLES = 10_000
# Percent: the ends of a 95 % interval.
ENDS = (2.5, 97.5)


class Estimate(NamedTuple):
    """A number and its 95 % interval; ends that are no numbers say that there is none."""

    value: float
    low: float = nan
    high: float = nan

    def __str__(self) -> str:
        """`0.123 [0.100, 0.150]`."""
        if isnan(self.value):
            return "-"
        ends = "" if isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{ends}"


@functools.lru_cache(maxsize=2)
def draws(clusters: tuple[int, ...], resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each prompt is in each resample, (resamples, n) float64.

    clusters: (n,) label of each prompt's cluster; whole clusters are drawn, as many as there are.
    The same array is returned again for the same clusters: it is not to be changed.
    """
    _, labels = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(labels.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn[:, labels].astype(float)


def means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted means over prompts. weights: (r, n); values: (n,) or (n, k) -> (r,) or (r, k)."""
    total = weights.sum(1)
    sums = weights @ values
    return sums / (total if sums.ndim == 1 else total[:, None])


def interval_of(resampled: np.ndarray) -> tuple[float, float]:
    """(low, high), the 95 % percentile interval; no numbers without spread or with gaps."""
    whole = bool(np.isfinite(resampled).all())
    if not whole or not is_spread(float(resampled.min()), float(resampled.max())):
        return NOTHING
    low, high = np.percentile(resampled, ENDS)
    return float(low), float(high)


def estimate(
    statistic: Callable[[np.ndarray], np.ndarray],
    clusters: Sequence[int],
    *,
    resamples: int = RESAMPLES,
) -> Estimate:
    """A statistic of weighted prompts, and its interval over clusters of them.

    statistic: weights (r, n) -> (r,). One cluster has no interval.
    """
    whole = float(statistic(np.ones((1, len(clusters))))[0])
    if len(set(clusters)) < 2:
        return Estimate(whole)
    return Estimate(whole, *interval_of(statistic(draws(tuple(clusters), resamples))))


def mean_of(values: Sequence[float], clusters: Sequence[int]) -> Estimate:
    """Mean of prompts' values with its interval over clusters; of nothing no number."""
    if not len(values):
        return Estimate(nan)
    array = np.asarray(values, dtype=float)
    return estimate(lambda weights: means(weights, array), clusters)


def change_of_share(changes: Sequence[float], clusters: Sequence[int]) -> Estimate:
    """Mean change of a share, of prompts; where every image of enough prompts changes one way, its
    interval is exact.
    """
    found = mean_of(changes, clusters)
    count = len(set(clusters))
    if abs(found.value) != 1 or count < ONE_WAY:
        return found
    least, most = exact_interval(1.0, count)
    return Estimate(1.0, least, most) if found.value == 1 else Estimate(-1.0, -most, -least)
