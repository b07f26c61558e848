"""Scores of every run: Table 2 of Han et al. 2025, and the table of all methods."""

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
from memorization_suite.experiments.evidence.direction import heading, sign_of
from memorization_suite.experiments.evidence.resampling import mean_of
from memorization_suite.experiments.evidence.runs import Evidence, by_kind, paired
from memorization_suite.experiments.evidence.swept_run import ROLES, SweptRun
from memorization_suite.runs.lazy import np


@TABLES.register("scores")
class Scores(Table):
    """A row a run: means over prompts with 95 % intervals."""

    runs: str = flag("", "which runs (default all)")
    columns: tuple[str, ...] = flag(ROLES, "quantities")
    kinds: bool = flag(False, "the first column by kind of memorization, too")
    best: bool = flag(True, "mark the best of each column, without the unmitigated run")
    digits: int = flag(3, "of each number", at_least=0)

    def list(self, evidence: Evidence) -> Listed:
        runs = evidence.select(self.runs)
        rows = [{"run": Cell(run.title(runs))} for run in runs]
        for quantity in self.columns:
            self.add_column(rows, runs, quantity, heading(runs[0], quantity))
        if self.kinds:
            for kind, prompts in by_kind(runs[0]).items():
                if kind != "all":
                    name = f"{heading(runs[0], self.columns[0])}, {kind}"
                    self.add_column(rows, runs, self.columns[0], name, prompts)
        for name in ("unet_evals", "seconds"):
            for row, run in zip(rows, runs):
                mean = np.mean(list(run.values(name).values()))
                row["NFE" if name == "unet_evals" else "s"] = Cell(f"{mean:.1f}")
        marked = " Bold: better than every other method by the paired interval." * self.best
        caption = f"Means over prompts [95 % interval].{marked} {counts(evidence, runs)}."
        return Listed(rows, caption)

    def add_column(
        self,
        rows: list[dict[str, Cell]],
        runs: list[SweptRun],
        quantity: str,
        name: str,
        prompts: list[int] | None = None,
    ) -> None:
        """A quantity of every run, on the prompts that all have."""
        try:
            found = paired(runs, quantity, prompts)
        except ValueError:
            if quantity in ROLES:  # of a checkpoint that is not here
                return
            raise
        best = best_of(runs, found.values, found.clusters, sign_of(runs[0], quantity))
        for place, row in enumerate(rows):
            cell = number(mean_of(found.values[:, place], found.clusters), self.digits)
            is_best = self.best and place == best
            row[name] = Cell(cell.text, cell.numbers, best=is_best)


def best_of(runs: list[SweptRun], values: np.ndarray, clusters: list[int], sign: int) -> int | None:
    """The run that is better than every other one beyond the paired interval; None without one.

    Runs without a mitigation are not compared. sign: -1 where less is better.
    """
    places = [place for place, run in enumerate(runs) if run.method != "no_mitigation"]
    if len(places) < 2:
        return None
    best = max(places, key=lambda place: sign * values[:, place].mean())
    for other in places:
        change = mean_of(sign * (values[:, best] - values[:, other]), clusters)
        if other != best and not change.low > 0:
            return None
    return best
