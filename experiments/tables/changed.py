"""What a method does to images of ordinary captions: are they changed at all?"""

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
from memorization_suite.experiments.evidence.resampling import mean_of
from memorization_suite.experiments.evidence.runs import Evidence, paired
from memorization_suite.experiments.evidence.swept_run import SweptRun
from memorization_suite.runs.lazy import Image, np


@TABLES.register("changed")
class Changed(Table):
    """A row a run, beside the unmitigated one on equal seeds."""

    runs: str = flag("", "which runs (default all)")
    columns: tuple[str, ...] = flag(("alignment", "diversity"), "quantities, as differences")

    def list(self, evidence: Evidence) -> Listed:
        runs = evidence.select(self.runs)
        plain = evidence.select("no_mitigation")[0]
        rows = []
        for run in runs:
            if run is plain:
                continue
            same, apart = compared(run, plain)
            row = {"run": Cell(run.title(runs)), "unchanged": number(same), "change": number(apart)}
            for name in self.columns:
                found = paired([plain, run], name)
                change = mean_of(found.values[:, 1] - found.values[:, 0], found.clusters)
                row[f"difference of {name}"] = number(change)
            rows.append(row)
        caption = (
            "Images on equal seeds beside those without a mitigation. Unchanged: share of images "
            "with the same pixels. Change: root mean square over pixels, of 1. Differences on "
            f"equal prompts. Means over prompts [95 % interval]. {counts(evidence, runs)}."
        )
        return Listed(rows, caption)


def compared(run: SweptRun, plain: SweptRun) -> tuple:
    """(share of images with the same pixels, root mean square of the change in [0, 1])."""
    same: dict[int, list[float]] = {}
    apart: dict[int, list[float]] = {}
    for key in sorted(set(run.costs) & set(plain.costs)):
        first, other = (pixels(each.folder.image_path(key)) for each in (run, plain))
        change = float(np.sqrt(np.mean((first - other) ** 2)))
        same.setdefault(key.prompt, []).append(float(change == 0))
        apart.setdefault(key.prompt, []).append(change)
    if not same:
        raise ValueError(f"the runs {run.name} and {plain.name} share no image")
    labels = [run.clusters.get(prompt, prompt) for prompt in same]
    return tuple(mean_of([np.mean(v) for v in table.values()], labels) for table in (same, apart))


def pixels(file) -> np.ndarray:
    """A picture's numbers in [0, 1]."""
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"), dtype=float) / 255
