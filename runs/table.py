"""The one result table, `results.csv`: a row a value. Means and intervals are computed from it,
never stored instead of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from memorization_suite.runs.files import read_csv, write_csv


@dataclass(frozen=True)
class Result:
    """One value. run: the run folder's name; variant: checkpoint and preprocessing, or how a score
    was made.

    sample_index: None (empty in the file) for a value of the whole prompt; prompt_index too for one
    of the whole run.
    """

    run: str
    method: str
    prompt_index: int | None
    sample_index: int | None
    quantity: str
    variant: str
    value: float


def add_results(
    folder: Path, results: Iterable[Result], replaced: Iterable[tuple[str, str]] = ()
) -> None:
    """Adds rows to `results.csv` of a run folder. A row of the same image, quantity and variant is
    replaced.

    replaced: (quantity, variant) whose older rows all go, since they were computed anew. Raises
    ValueError for a file that is none.
    """
    gone = set(replaced)
    table = {
        identity(row): row
        for row in read_results(folder)
        if (row.quantity, row.variant) not in gone
    }
    table |= {identity(row): row for row in results}
    write_csv(
        folder / "results.csv",
        (asdict(row) | {"value": f"{row.value:.6g}"} for row in table.values()),
    )


def read_results(folder: Path) -> list[Result]:
    """All rows of a run folder's `results.csv`. Raises ValueError when it is not one."""

    def index(text: str) -> int | None:
        return int(text) if text else None

    numbers: dict[str, Callable[[str], object]] = {
        "prompt_index": index,
        "sample_index": index,
        "value": float,
    }
    rows = read_csv(folder / "results.csv")
    try:
        return [
            Result(**{name: numbers.get(name, str)(value) for name, value in row.items()})
            for row in rows
        ]  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / 'results.csv'} is no table of results ({error}): mend it or move it away"
        ) from error


def identity(row: Result) -> tuple:
    """What makes two rows of a run the same measurement."""
    return row.prompt_index, row.sample_index, row.quantity, row.variant
