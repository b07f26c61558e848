"""What every method costs: Table 3 of Han et al. 2025."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from memorization_suite.experiments.evidence.base import (
    TABLES,
    Cell,
    Listed,
    Table,
    counts,
    flag,
)
from memorization_suite.experiments.evidence.resampling import Estimate
from memorization_suite.experiments.evidence.runs import Evidence
from memorization_suite.runs.tables import read_csv


@TABLES.register("costs")
class Costs(Table):
    """A row a run: NFE and seconds from its images, memory from experiments/cost.py."""

    runs: str = flag("", "which runs (default all)")
    memory: str = flag(
        "", "cost.csv of `python -m experiments.cost --out FOLDER`; {model} is the model's name"
    )

    def list(self, evidence: Evidence) -> Listed:
        runs = evidence.select(self.runs)
        memory = memory_of(self.memory, evidence.models[0]) if self.memory else {}
        seconds = [median(run.values("seconds").values()) for run in runs]
        plain = next(
            (took for run, took in zip(runs, seconds) if run.method == "no_mitigation"), None
        )
        rows = []
        for run, took in zip(runs, seconds):
            nfe = run.values("unet_evals")
            row = {
                "run": Cell(run.title(runs)),
                "NFE": plain_cell(sum(nfe.values()) / len(nfe), 1),
                "s": plain_cell(took, 3),
            }
            if plain:
                row["times no mitigation"] = plain_cell(took / plain, 2)
            if memory:
                row["MiB"] = Cell(memory.get(run.method, ""))
            rows.append(row)
        peak = " MiB: the most at once, measured apart by experiments/cost.py." if memory else ""
        device = ", ".join(dict.fromkeys(str(run.config.get("device", "")) for run in runs))
        caption = (
            "NFE: rows through the network, of an image, in the mean. Seconds of an image, median, "
            f"on {device}.{peak} {counts(evidence, runs)}."
        )
        return Listed(rows, caption)


def memory_of(place: str, model: str) -> dict[str, str]:
    """Method -> MiB of the suite on a model. place: of the file, with {model}.

    Raises ValueError for a file that is not there.
    """
    file = Path(place.format(model=model))
    if not file.is_file():
        raise ValueError(
            f"there is no {file}: python -m experiments.cost --methods all --model_id {model} "
            f"--out {file.parent}"
        )
    rows = read_csv(file)
    return {row["method"]: row["peak_mib"] for row in rows if row["code"] == "suite"}


def plain_cell(value: float, digits: int) -> Cell:
    """A number without an interval."""
    return Cell(f"{value:.{digits}f}", Estimate(value))
