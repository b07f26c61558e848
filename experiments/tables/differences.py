"""One method beside every other: paired differences."""

from __future__ import annotations

from memorization_suite.experiments.evidence.base import (
    TABLES,
    Cell,
    Listed,
    Table,
    counts,
    flag,
    number,
)
from memorization_suite.experiments.evidence.direction import heading
from memorization_suite.experiments.evidence.resampling import mean_of
from memorization_suite.experiments.evidence.runs import Evidence, paired
from memorization_suite.experiments.evidence.swept_run import ROLES, SweptRun
from memorization_suite.runs.plots import LOOKS


@TABLES.register("differences")
class Differences(Table):
    """A row a rival: (the method - the rival) on equal prompts."""

    of: str = flag("", "the method, with settings (default: a plugin's, else the last run)")
    columns: tuple[str, ...] = flag(("copies", *ROLES), "quantities")

    def list(self, evidence: Evidence) -> Listed:
        own = evidence.only(self.of) if self.of else newest(evidence)
        others = [run for run in evidence.runs if run is not own]
        rows = [{"less": Cell(run.title(evidence.runs))} for run in others]
        for quantity in self.columns:
            for row, other in zip(rows, others):
                try:
                    found = paired([own, other], quantity)
                except ValueError:
                    if quantity in ROLES:  # of a checkpoint that is not here
                        continue
                    raise
                change = mean_of(found.values[:, 0] - found.values[:, 1], found.clusters)
                row[heading(own, quantity)] = number(change)
        caption = (
            f"{own.title(evidence.runs)} less each other run, mean over the prompts that both have "
            f"[95 % interval, those of one training image drawn together]. "
            f"{counts(evidence, evidence.runs)}."
        )
        return Listed(rows, caption)


def newest(evidence: Evidence) -> SweptRun:
    """The run of a method that the suite does not have; without one the last."""
    new = [run for run in evidence.runs if run.method not in LOOKS]
    return (new or evidence.runs)[-1]
