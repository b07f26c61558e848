"""The trade-off of memorization (x, less is better) and alignment (y, more is better).

Pareto front, and the area below the best that a method reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memorization_suite.experiments.evidence.resampling import Estimate, estimate, means
from memorization_suite.runs.lazy import np


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other one beats, by growing x.

    One beats another when it is as good in both and better in one. Of equal points all are there.
    """
    front = []
    for i, (x, y) in enumerate(points):
        beaten = any(
            (other_x <= x and other_y >= y) and (other_x < x or other_y > y)
            for other_x, other_y in points
        )
        if not beaten:
            front.append(i)
    return sorted(front, key=lambda i: points[i])


@dataclass(frozen=True)
class Box:
    """What areas are shares of: x from `left` to the run without mitigation, y from `floor` up."""

    left: float
    right: float
    floor: float
    top: float

    def __post_init__(self) -> None:
        if not (self.left < self.right and self.floor < self.top):
            raise ValueError(
                f"a trade-off needs room: x from {self.left:g} to {self.right:g}, y from "
                f"{self.floor:g} to {self.top:g}"
            )


def area(points: np.ndarray, box: Box) -> np.ndarray:
    """Share of the box that the points dominate, (r,) from 0 on.

    points: (r, k, 2), k points in each of r resamples. At each x it is the largest y that a setting
    with at most this x reaches: the hypervolume with its corner at (right, floor). A resample may
    reach beyond the top, which is that of all prompts; cut off there, the best method's intervals
    would lie too low.
    """
    x = np.clip(points[..., 0], box.left, box.right)
    y = np.maximum(points[..., 1], box.floor)
    order = np.argsort(x, axis=1, kind="stable")
    x = np.take_along_axis(x, order, 1)
    best = np.maximum.accumulate(np.take_along_axis(y, order, 1), axis=1)
    ends = np.concatenate([x[:, 1:], np.full((len(x), 1), box.right)], axis=1)
    covered = ((ends - x) * (best - box.floor)).sum(1)
    return covered / ((box.right - box.left) * (box.top - box.floor))


def heights(points: np.ndarray, at: np.ndarray, floor: float) -> np.ndarray:
    """The best y at each x of `at` on straight lines between points, (r, k).

    points: (r, m, 2); at: (r, k). Left of all points it is `floor`, right of them the best y.
    """
    found = np.empty(at.shape)
    for row, own in enumerate(points):
        x, y = own[np.argsort(own[:, 0], kind="stable")].T
        best = np.maximum.accumulate(np.maximum(y, floor))
        found[row] = np.interp(at[row], x, best, left=floor)
    return found


@dataclass(frozen=True)
class Series:
    """The settings of a method. x, y: (prompts, settings), means of each prompt's images."""

    name: str
    x: np.ndarray
    y: np.ndarray

    def points(self, weights: np.ndarray) -> np.ndarray:
        """Means over weighted prompts, (r, settings, 2). weights: (r, prompts)."""
        return np.stack([means(weights, self.x), means(weights, self.y)], axis=2)


def box_of(every: Sequence[Series], unmitigated_x: float, left: float = 0.0) -> Box:
    """The box of some methods, from all their settings' means: it is the same for all of them.

    unmitigated_x: x of the run without mitigation, beyond which nothing is gained.
    """
    ones = np.ones((1, len(every[0].x)))
    y = np.concatenate([series.points(ones)[0, :, 1] for series in every])
    return Box(left, unmitigated_x, float(y.min()), float(y.max()))


def area_of(series: Series, box: Box, clusters: Sequence[int]) -> Estimate:
    """A method's area, with its interval over clusters of prompts."""
    return estimate(lambda weights: area(series.points(weights), box), clusters)


def area_difference(first: Series, other: Series, box: Box, clusters: Sequence[int]) -> Estimate:
    """How much larger the first one's area is, on the same prompts in every resample."""

    def difference(weights: np.ndarray) -> np.ndarray:
        return area(first.points(weights), box) - area(other.points(weights), box)

    return estimate(difference, clusters)


def lead(
    first: Series, other: Series, plain: Series, box: Box, clusters: Sequence[int]
) -> Estimate:
    """How much higher the first one's settings lie than the other's front at the same x, in the
    mean. The other's front has the run without mitigation, too; where it has no such x, it has the
    lowest y of all.
    """

    def difference(weights: np.ndarray) -> np.ndarray:
        own = first.points(weights)
        front = np.concatenate([other.points(weights), plain.points(weights)], axis=1)
        return (own[..., 1] - heights(front, own[..., 0], box.floor)).mean(1)

    return estimate(difference, clusters)
