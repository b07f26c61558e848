"""Rank correlations by kind of memorization: the paper's hypothesis as a number."""

from __future__ import annotations

from memorization_suite.experiments.evidence.association import Asked
from memorization_suite.experiments.evidence.base import (
    TABLES,
    Cell,
    Listed,
    Table,
    counts,
    flag,
    number,
)
from memorization_suite.experiments.evidence.ranks import FEWEST
from memorization_suite.experiments.evidence.runs import Evidence, by_kind


@TABLES.register("association")
class AssociationTable(Table):
    """A row a kind, a column a quantity y."""

    x: str = flag("magnitude", "a quantity of the run `x_run`")
    x_run: str = flag("", "method and settings")
    y: tuple[str, ...] = flag(("transition",), "quantities")
    y_runs: tuple[str, ...] = flag((), "method and settings for each y")

    def list(self, evidence: Evidence) -> Listed:
        if len(self.y) != len(self.y_runs):
            raise ValueError(f"y has {len(self.y)} names and y_runs {len(self.y_runs)}")
        run = evidence.only(self.x_run)
        rows = []
        for kind, prompts in by_kind(run).items():
            row = {"captions": Cell(kind), "prompts": Cell(str(len(prompts)))}
            for y, y_run in zip(self.y, self.y_runs):
                found = Asked(self.x, self.x_run, y, y_run).association(evidence, prompts)
                name = y.replace("_", " ")
                row[f"{self.x} and {name}"] = number(found.mean, 2)
                row[f"{name}: have both"] = Cell(f"{found.both:.0%}")
                row[f"{name}: no rank"] = Cell(str(found.unranked))
            rows.append(row)
        caption = (
            f"Mean over prompts of Spearman's rank correlation over seeds [95 % interval, prompts "
            "of one training image drawn together]. Have both: share of the images; one without a "
            "drop of the magnitude has no transition. No rank: prompts with equal values at all "
            f"seeds, or with fewer than {FEWEST} that have both. {counts(evidence, [run])}."
        )
        return Listed(rows, caption)
