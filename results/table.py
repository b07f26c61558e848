"""The one result table, `results.csv`: a row a value. Means and intervals are computed from it, never stored instead of it."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from results.files import read_csv, write_csv


@dataclass(frozen=True)
class Result:
    """One value. run: the run folder's name; variant: checkpoint and preprocessing, or how a score was made."""

    run: str
    method: str
    prompt_index: int
    sample_index: int
    quantity: str
    variant: str
    value: float


def add_results(folder: Path, results: Iterable[Result]) -> None:
    """Adds rows to `results.csv`; rows of the same run, image, quantity and variant are replaced."""
    table = {identity(row): row for row in read_results(folder)}
    table |= {identity(row): row for row in results}
    write_csv(folder / "results.csv", (asdict(row) | {"value": f"{row.value:.6g}"} for row in table.values()))


def read_results(folder: Path) -> list[Result]:
    """All rows of a run folder's `results.csv`."""
    numbers = {"prompt_index": int, "sample_index": int, "value": float}
    rows = read_csv(folder / "results.csv")
    return [Result(**{name: numbers.get(name, str)(value) for name, value in row.items()}) for row in rows]


def identity(row: Result) -> tuple:
    """What makes two rows the same measurement."""
    return row.run, row.prompt_index, row.sample_index, row.quantity, row.variant
