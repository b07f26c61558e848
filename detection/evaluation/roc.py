"""How well scores tell two sets of prompts apart: AUC, TPR at a false-positive rate, accuracy, and
their bootstrap intervals.

Scores: one per prompt, larger means more memorized; positives are memorized prompts. Labels are
never flipped: a detector whose sign is wrong has an AUC below 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from memorization_suite.runs.lazy import np
from memorization_suite.runs.spread import NOTHING, exact_interval, is_spread

Scores: TypeAlias = "Sequence[float] | np.ndarray"
Figure = Callable[["Curves"], "np.ndarray"]  # (rows,)
RULES = ("at_most", "wen_strict", "nearest", "interp")
# What a reader must know of a rule.
CAVEATS = {
    "nearest": "of one point of the curve, whose own false-positive rate may be above the one "
    "asked for; resamples have other points, so the interval may reach from 0 to 1"
}
RESAMPLES = 2000
BATCH_VALUES = 100_000  # ROC points that are in memory at once


@dataclass(frozen=True)
class Curves:
    """ROC curves, one a row, from the highest threshold down. All fields: (rows, points)."""

    # Positives at or above each threshold; the first point has none.
    hits: np.ndarray
    # Negatives at or above each threshold; the first point has none.
    alarms: np.ndarray
    # The points that scikit-learn's `roc_curve` keeps with its default drop_intermediate.
    corners: np.ndarray

    @property
    def tpr(self) -> np.ndarray:
        """(rows, points) true-positive rates."""
        return self.hits / self.hits[:, -1:]

    @property
    def fpr(self) -> np.ndarray:
        """(rows, points) false-positive rates."""
        return self.alarms / self.alarms[:, -1:]

    def auc(self) -> np.ndarray:
        """(rows,) area by trapezoids, in whole numbers up to the division.

        That is Mann-Whitney's: the share of pairs in which the memorized prompt has the larger
        score, ties count one half.
        """
        widths = np.diff(self.alarms)
        left = self.hits[:, :-1]
        right = self.hits[:, 1:]
        twice = (widths * (left + right)).sum(1)
        positives = self.hits[:, -1]
        negatives = self.alarms[:, -1]
        return twice / (2 * positives * negatives)

    def accuracy(self) -> np.ndarray:
        """(rows,) the largest 1 - (FPR + FNR) / 2 of any threshold.

        The threshold is chosen on the same scores, so it is a best case. *Source:*
        `det_mem_viz.ipynb` of Wen et al., ICLR 2024.
        """
        fnr = 1 - self.tpr
        return (1 - (self.fpr + fnr) / 2).max(1)

    def tpr_at(self, fpr: float, rule: str) -> np.ndarray:
        """(rows,) true-positive rate at a false-positive rate in (0, 1), by one of RULES.

        at_most: the largest TPR with FPR <= fpr; wen_strict: TPR of the last point with FPR < fpr
        (Wen et al., ICLR 2024); nearest: TPR of the point with the least |FPR - fpr|, the first of
        equally near ones, so that the true FPR may be larger (Ren et al., ECCV 2024; Jeon et al.,
        ICML 2025); interp: linear between the points, at a step its upper end. wen_strict and
        nearest look at the points that scikit-learn's `roc_curve` keeps by default, as the official
        scripts do.
        """
        if rule == "nearest":
            return self.nearest_tpr(fpr)
        if rule == "interp":
            return self.interpolated_tpr(fpr)
        allowed = self.fpr <= fpr
        if rule == "wen_strict":
            allowed = self.corners & (self.fpr < fpr)
        return np.where(allowed, self.tpr, 0).max(1)

    def nearest_tpr(self, fpr: float) -> np.ndarray:
        """(rows,) TPR of the first corner with the least |FPR - fpr|."""
        return np.take_along_axis(self.tpr, self.nearest(fpr)[:, None], axis=1)[:, 0]

    def nearest_fpr(self, fpr: float) -> np.ndarray:
        """(rows,) FPR of that corner, which may be above fpr."""
        return np.take_along_axis(self.fpr, self.nearest(fpr)[:, None], axis=1)[:, 0]

    def nearest(self, fpr: float) -> np.ndarray:
        """(rows,) place of that corner."""
        distances = np.abs(self.fpr - fpr)
        return np.where(self.corners, distances, np.inf).argmin(1)

    def interpolated_tpr(self, fpr: float) -> np.ndarray:
        """(rows,) TPR on the line between the points around fpr; at a step its upper end."""
        # Never the end of the curve, as fpr < 1.
        last = (self.fpr <= fpr).sum(1) - 1
        rows = np.arange(len(last))
        below = self.fpr[rows, last]
        above = self.fpr[rows, last + 1]
        lower = self.tpr[rows, last]
        upper = self.tpr[rows, last + 1]
        rise = upper - lower
        return lower + rise * (fpr - below) / (above - below)


def curves_of(positives: np.ndarray, negatives: np.ndarray, size: int) -> Curves:
    """positives: (rows, n), negatives: (rows, m), each score as its place among `size` values, 0
    the largest.
    """
    # Hits and alarms that each step down adds, (2, rows, size).
    steps = np.stack([counts(positives, size), counts(negatives, size)])
    # Values that a resample did not draw go to the end, where they add nothing.
    missing = (steps == 0).all(0)
    order = np.argsort(missing, axis=1, kind="stable")
    steps = np.take_along_axis(steps, order[None], axis=2)
    # A corner is where the next step is another one, and the ends.
    turns = (np.diff(steps) != 0).any(0)
    corners = np.ones((len(missing), size + 1), dtype=bool)
    corners[:, 2:-1] = turns[:, 1:]
    corners[:, 1:] &= ~np.sort(missing, axis=1)
    before = np.zeros_like(steps[:, :, :1])
    hits, alarms = np.concatenate([before, steps], axis=2).cumsum(2)
    return Curves(hits, alarms, corners)


def counts(places: np.ndarray, size: int) -> np.ndarray:
    """(rows, n) numbers below `size` -> (rows, size), how often each occurs in its row."""
    rows = len(places)
    offsets = size * np.arange(rows)
    numbers = places + offsets[:, None]
    occurrences = np.bincount(numbers.ravel(), minlength=rows * size)
    return occurrences.reshape(rows, size)


def places_of(positives: Scores, negatives: Scores) -> tuple[np.ndarray, np.ndarray, int]:
    """Each score's place among the distinct values, 0 the largest, and their number.

    Raises ValueError for an empty set or a score that is not a finite number.
    """
    first = finite_scores(positives, "memorized")
    second = finite_scores(negatives, "ordinary")
    pooled = np.concatenate([first, second])
    values, places = np.unique(-pooled, return_inverse=True)
    n = len(first)
    return places[:n], places[n:], len(values)


def finite_scores(scores: Scores, name: str) -> np.ndarray:
    """(n,) the scores of a set. Raises ValueError when there are none, or not all are finite."""
    values = np.asarray(scores, dtype=float).reshape(-1)
    if not len(values):
        raise ValueError(f"there are no scores of {name} prompts: AUC and TPR need both sets")
    wrong = int((~np.isfinite(values)).sum())
    if wrong:
        raise ValueError(f"{wrong} scores of {name} prompts are not finite numbers")
    return values


def curve(positives: Scores, negatives: Scores) -> Curves:
    """The ROC curve of two sets, a single row with every point. Raises ValueError, see
    `places_of`.
    """
    first, second, size = places_of(positives, negatives)
    return curves_of(first[None], second[None], size)


def check(rule: str, rates: Sequence[float]) -> None:
    """Raises ValueError for an unknown rule or a false-positive rate outside (0, 1)."""
    if rule not in RULES:
        raise ValueError(f"there is no rule {rule!r}; there are {', '.join(RULES)}")
    for rate in rates:
        if not 0 < rate < 1:
            raise ValueError(
                f"a false-positive rate of {rate} makes no sense: it must be between 0 and 1, e.g. "
                "0.01"
            )


def intervals(
    positives: Scores,
    negatives: Scores,
    figures: Sequence[Figure],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[tuple[float, float]]:
    """95 % percentile bootstrap interval of each figure, all from the same resamples.

    The prompts of each set are resampled separately. The interval tells how much the figure would
    move with other prompts of the same kinds. There is none, (nan, nan), for a set of one prompt,
    equal scores, or a figure without spread. A figure that is 0 or 1 at both percentiles has the
    exact interval of a share of the smaller set's prompts: an AUC of 1 says that so many pairs,
    which share no prompt, are in the right order. The accuracy has none: its threshold is the best
    one, so that it is no share of prompts. Raises ValueError, see `places_of`.
    """
    from scipy.stats import bootstrap

    first, second, size = places_of(positives, negatives)
    smaller = min(len(first), len(second))
    if smaller < 2 or size < 2:
        return [NOTHING] * len(figures)

    def statistic(some: np.ndarray, others: np.ndarray, axis: int) -> np.ndarray:
        curves = curves_of(some, others, size)
        return np.stack([figure(curves) for figure in figures])

    resampled = bootstrap(
        (first, second),
        statistic,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, BATCH_VALUES // size),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = resampled.confidence_interval
    ends = []
    for figure, low, high in zip(figures, interval.low.tolist(), interval.high.tolist()):
        if is_spread(low, high):
            ends.append((low, high))
        elif figure is Curves.accuracy:
            ends.append(NOTHING)
        else:
            ends.append(exact_interval(low, smaller))
    return ends
