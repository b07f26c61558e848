"""Methods' settings on the prompts that all runs of a sweep share, for areas below trade-offs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memorization_suite.experiments.evidence.direction import sign_of
from memorization_suite.experiments.evidence.front import (
    Box,
    Series,
    area_difference,
    area_of,
    box_of,
    lead,
)
from memorization_suite.experiments.evidence.resampling import Estimate
from memorization_suite.experiments.evidence.runs import Evidence, paired


@dataclass(frozen=True)
class Areas:
    """The series of every method, and what their areas are shares of."""

    series: dict[str, Series]
    # Without a mitigation.
    plain: Series
    box: Box
    clusters: list[int]
    prompts: int

    @classmethod
    def of(
        cls,
        evidence: Evidence,
        x: str,
        y: str,
        series: Sequence[str] = (),
        prompts: Sequence[int] | None = None,
    ) -> Areas:
        """x: less is better, y: more is, or of a metric what it says.

        series: `method settings` of each, default a series a method. prompts: only these. Raises
        ValueError.
        """
        names = series or tuple(
            dict.fromkeys(run.method for run in evidence.runs if run.method != "no_mitigation")
        )
        groups = {name: evidence.select(name) for name in names}
        plain = evidence.select("no_mitigation")[0]
        every = [plain, *(run for group in groups.values() for run in group)]
        known = [paired(every, name, prompts) for name in (x, y)]
        rows = sorted(set(known[0].prompts).intersection(known[1].prompts))
        across, along = (paired(every, name, rows) for name in (x, y))
        sign = sign_of(plain, y)

        def series_of(name: str, places: slice) -> Series:
            return Series(name, across.values[:, places], sign * along.values[:, places])

        unmitigated = series_of("no_mitigation", slice(0, 1))
        made = {}
        first = 1
        for name, group in groups.items():
            made[name] = series_of(name, slice(first, first + len(group)))
            first += len(group)
        box = box_of(list(made.values()), float(unmitigated.x.mean()))
        return cls(made, unmitigated, box, across.clusters, len(rows))

    def area(self, name: str) -> Estimate:
        """Of one series."""
        return area_of(self.series[name], self.box, self.clusters)

    def difference(self, name: str, other: str) -> Estimate:
        """How much larger the first one's is, paired."""
        first, second = self.series[name], self.series[other]
        return area_difference(first, second, self.box, self.clusters)

    def lead(self, name: str, other: str) -> Estimate:
        """How much higher the first one's settings lie than the other's front."""
        first, second = self.series[name], self.series[other]
        return lead(first, second, self.plain, self.box, self.clusters)
