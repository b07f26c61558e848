"""The one result table, `results.csv`: a row a value. Means and intervals are computed from it,
never stored instead of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from sys import intern
from typing import NamedTuple

from memorization_suite.runs.claims import Claim, TakenAway, alone
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.tables import Damaged, Fault, lines_of, number, shown, whole
from memorization_suite.runs.text import counted, first_of

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
    """A number from 0 on, or None for an empty field. Raises ValueError."""
    if not text:
        return None
    number = int(text)
    if number < 0:
        raise ValueError(f"{number} is below 0")
    return number


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
    try:
        return list(rows_of(file))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise Damaged(
            f"{file} is no table of results ({error}): mend it or move it away"
        ) from error


def rows_of(file: Path) -> Iterator[Result]:
    """Rows of a table, one by one. Raises ValueError for a file that is none."""
    lines = lines_of(file)
    _, columns = next(lines, (1, []))
    if columns and columns != list(Result._fields):
        raise Fault(f"its columns are {first_of([shown(name) for name in columns], len(columns))}")
    for line, texts in lines:
        try:
            result = Result.of(texts)
        except ValueError as error:
            raise Fault(f"line {line}: {fault_of(texts) or error}") from error
        yield result


def fault_of(texts: list[str]) -> str:
    """What is wrong with the cells of a row; empty where nothing is known."""
    if len(texts) != len(Result._fields):
        return f"it has {counted(len(texts), 'field')} in the place of {len(Result._fields)}"
    row = dict(zip(Result._fields, texts))
    try:
        for column in ("prompt_index", "sample_index"):
            if row[column]:
                whole(row, column)
        number(row["value"], "value")
    except Fault as fault:
        return str(fault)
    return ""
