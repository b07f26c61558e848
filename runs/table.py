"""The one result table, `results.csv`: a row a value. Means and intervals are computed from it,
never stored instead of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memorization_suite.runs.files import read_csv, write_csv


@dataclass(frozen=True)
class Result:
    """One value."""

    # The run folder's name.
    run: str
    method: str
    # Row of the prompt in its file; None (empty in the file) for a value of the whole run.
    prompt_index: int | None
    # Image of the prompt; None for a value of the whole prompt.
    sample_index: int | None
    # What was measured.
    quantity: str
    # Checkpoint and preprocessing, or how a score was made.
    variant: str
    value: float

    @property
    def measurement(self) -> tuple:
        """What makes two rows of a run the same measurement."""
        return self.prompt_index, self.sample_index, self.quantity, self.variant

    @classmethod
    def of(cls, row: dict[str, str]) -> Result:
        """A row of the file. Raises TypeError or ValueError for a row of another table."""
        return cls(**{name: PARSERS.get(name, str)(text) for name, text in row.items()})


def index(text: str) -> int | None:
    """A number, or None for an empty field."""
    return int(text) if text else None


PARSERS: dict[str, Callable[[str], Any]] = {
    "prompt_index": index,
    "sample_index": index,
    "value": float,
}


def add_results(
    folder: Path, results: Iterable[Result], replaced: Iterable[tuple[str, str]] = ()
) -> None:
    """Adds rows to `results.csv` of a run folder. A row of the same image, quantity and variant is
    replaced.

    replaced: (quantity, variant) whose older rows all go, since they were computed anew. Raises
    ValueError for a file that is none.
    """
    gone = set(replaced)
    table = {}
    for result in read_results(folder):
        if (result.quantity, result.variant) not in gone:
            table[result.measurement] = result
    table |= {result.measurement: result for result in results}
    rows = [asdict(result) | {"value": f"{result.value:.6g}"} for result in table.values()]
    write_csv(folder / "results.csv", rows)


def read_results(folder: Path) -> list[Result]:
    """All rows of a run folder's `results.csv`. Raises ValueError when it is not one."""
    file = folder / "results.csv"
    rows = read_csv(file)
    try:
        return [Result.of(row) for row in rows]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is no table of results ({error}): mend it or move it away"
        ) from error
