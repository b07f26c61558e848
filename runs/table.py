"""The one result table, `results.csv`: a row a value. Means and intervals are computed from it,
never stored instead of it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from sys import intern
from typing import NamedTuple

from memorization_suite.runs.claims import Claim, TakenAway, alone
from memorization_suite.runs.files import table_lines, write_csv

# What one holds who changes a run's scores: `alone(folder, RESULTS)`.
RESULTS = "results"


class Result(NamedTuple):
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
    def of(cls, texts: list[str]) -> Result:
        """A row of the file. Raises ValueError for a row of another table."""
        run, method, prompt, sample, quantity, variant, value = texts
        return cls(
            # Texts that many rows share are kept once.
            intern(run),
            intern(method),
            index(prompt),
            index(sample),
            intern(quantity),
            intern(variant),
            float(value),
        )

    def row(self) -> dict[str, object]:
        """A row for the file."""
        return self._asdict() | {"value": f"{self.value:.6g}"}


def index(text: str) -> int | None:
    """A number, or None for an empty field."""
    return int(text) if text else None


def add_results(
    folder: Path, results: Iterable[Result], replaced: Iterable[tuple[str, str]] = ()
) -> None:
    """Adds rows to `results.csv` of a run folder. A row of the same image, quantity and variant is
    replaced. Others that add rows wait meanwhile, so that nothing is lost.

    replaced: (quantity, variant) whose older rows all go, since they were computed anew. Who lost
    the claim meanwhile waits for another turn. Raises ValueError for a file that is none.
    """
    results, replaced = list(results), set(replaced)
    while True:
        with suppress(TakenAway), alone(folder, RESULTS, closing=True) as claim:
            return put_results(folder, results, replaced, claim)


def put_results(
    folder: Path,
    results: Iterable[Result],
    replaced: Iterable[tuple[str, str]],
    claim: Claim,
) -> None:
    """The same, of one who is alone already. claim: its claim, which must still hold."""
    gone = set(replaced)
    table = {}
    for result in read_results(folder):
        if (result.quantity, result.variant) not in gone:
            table[result.measurement] = result
    table |= {result.measurement: result for result in results}
    write_csv(folder / "results.csv", (result.row() for result in table.values()), claim.check)


def read_results(folder: Path) -> list[Result]:
    """All rows of a run folder's `results.csv`. Raises ValueError when it is not one."""
    file = folder / "results.csv"
    if not file.exists():
        return []
    try:
        return list(rows_of(file))
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{file} is no table of results ({error}): mend it or move it away"
        ) from error


def rows_of(file: Path) -> Iterator[Result]:
    """Rows of a table, one by one. Raises ValueError for a file that is none."""
    with open(file, newline="", encoding="utf-8") as opened:
        lines = table_lines(opened)
        columns = next(lines, [])
        if columns and columns != list(Result._fields):
            raise ValueError(f"its columns are {', '.join(columns)}")
        for texts in lines:
            if texts:
                yield Result.of(texts)
