"""Tables that grow by batches: CSV files, and rows that are not in them yet.

The rows of a batch lie in `.parts/`, each table's in a file of its own, until they are put into the
tables. Several processes may add at once. The tables only one process writes at a time
(`Batches.changing`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from memorization_suite.runs.claims import Claim, alone
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.tables import Damaged, Fault, check_numbers, in_line, numbered_rows

Row = dict[str, str]


class Batches:
    """A folder of tables. A subclass names them.

    tables: name -> key of a row, which says what it is about and orders the table. Rows of one key
    are replaced together by those of a later file: first the table, then the parts by their names.
    The last table marks a batch as done.
    """

    tables: Mapping[str, Callable[[Row], Any]] = {}
    numbers: Mapping[str, tuple[str, ...]] = {}  # table -> columns that hold numbers
    what = "run"  # what a message calls it

    def __init__(self, path: Path):
        self.path = path

    def check_begun(self) -> None:
        """Raises OSError when nothing more may be written."""

    def changing(self, *, closing: bool = False) -> AbstractContextManager[Claim]:
        """A block in which no other process changes the manifest or the tables. closing: see
        `alone`.
        """
        return alone(self.path, "tables", closing=closing)

    def add(self, batch: str, **tables: list[dict]) -> None:
        """Keeps the rows of one batch, on disk at once; the last table marks the batch as done.

        batch: a name for files, which tells the batches apart. Raises OSError, also when the run
        was started over meanwhile.
        """
        self.check_begun()
        for table in self.tables:
            if table in tables:
                self.add_part(f"{table}_{batch}", tables[table])

    def add_part(self, name: str, rows: list[dict]) -> None:
        """A file of rows in `.parts/`, which another process may be about to remove. Raises
        OSError.
        """
        while True:
            (self.path / ".parts").mkdir(exist_ok=True)
            try:
                return write_csv(self.path / ".parts" / f"{name}.csv", rows)
            except FileNotFoundError:
                if not self.path.is_dir():
                    raise

    def rows(self, table: str) -> list[Row]:
        """All rows so far, in order. Raises ValueError for a file that is no such table."""
        return in_order(self.merged(table)[0])

    def done(self, table: str) -> set:
        """What the rows so far are about."""
        return set(self.merged(table)[0])

    def check_tables(self) -> None:
        """Raises ValueError for a file that is no table of this store."""
        for table in self.tables:
            self.merged(table)

    def publish(self) -> None:
        """Writes the tables from all batches so far, and drops the parts that are in them now."""
        with self.changing() as claim:
            self.put_into_tables(claim)

    def put_into_tables(self, claim: Claim) -> dict[str, int]:
        """`publish`, in a block of `changing` with its claim. Returns how many keys a table has."""
        self.check_begun()
        counts = {}
        for table in self.tables:
            found, parts = self.merged(table)
            counts[table] = len(found)
            if parts:
                write_csv(self.path / f"{table}.csv", in_order(found), claim.check)
            for part in parts:
                part.unlink(missing_ok=True)
        return counts

    def parts(self, table: str) -> list[Path]:
        """Files of the batches that are in no table yet."""
        return sorted((self.path / ".parts").glob(f"{table}_*.csv"))

    def merged(self, table: str) -> tuple[dict[Any, list[Row]], list[Path]]:
        """(rows of the table and of all parts by key, where a later file wins; the parts).

        Raises ValueError. A part that vanishes meanwhile is in the table by then, which is
        therefore read last.
        """
        parts = self.parts(table)
        fresh = [self.by_key(table, part) for part in parts]
        found = self.by_key(table, self.path / f"{table}.csv")
        for rows in fresh:
            found |= rows
        return found, parts

    def by_key(self, table: str, file: Path) -> dict[Any, list[Row]]:
        """Rows of a file by key; none where there is no file. A last one that was cut, in the
        middle of a value or before it, is none. Raises Damaged.
        """
        about = self.tables[table]
        numbers = self.numbers.get(table, ())
        found: dict[Any, list[Row]] = {}
        try:
            for line, row in numbered_rows(file, cut=True):
                with in_line(line):
                    check_numbers(row, numbers)
                    key = about(row)
                found.setdefault(key, []).append(row)
        except Fault as fault:
            raise Damaged(
                f"{file} is no table {table} of a {self.what} ({fault}): mend it, or move it "
                "away; what it lacks is made again"
            ) from fault
        return found


def in_order(found: dict[Any, list[Row]]) -> list[Row]:
    """Rows by key as a table has them."""
    return [row for key in sorted(found) for row in found[key]]
