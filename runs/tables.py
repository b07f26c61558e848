"""Reading tables: those that we wrote, or what a spreadsheet saved of them. Faults are in words.

A table is UTF-8 with commas. What a spreadsheet makes of it is read, too: a byte order mark, CRLF,
and semicolons or tabs in the place of commas.
"""

from __future__ import annotations

import codecs
import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memorization_suite.runs.files import kind_of_place, unmarked
from memorization_suite.runs.text import counted, first_of

DELIMITERS = (",", ";", "\t")
# Characters of a cell that a message shows.
SHOWN = 40
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Fault(ValueError):
    """What is wrong with a table, as a part of a sentence about it."""


class Damaged(ValueError):
    """A file of a run that is not what it should be; the message names it."""


# --- lines ---


def lines_of(file: Path) -> Iterator[tuple[int, list[str]]]:
    """(line in which it begins, cells) of each row, the names of the columns first.

    Empty lines are left out, and marks are undone. Raises Fault; FileNotFoundError for no file.
    """
    what = kind_of_place(file)
    if what:
        raise Fault(f"it is {what}, and no file")
    try:
        with open(file, "rb") as opened:
            if opened.read(2) in UTF_16:
                raise Fault("it is UTF-16 text: save it as UTF-8")
        with open(file, newline="", encoding="utf-8-sig") as text:
            yield from cells_of(text)
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise Fault("it is not UTF-8 text") from error
    except OSError as error:
        raise Fault(f"it cannot be read: {error.strerror}") from error


def cells_of(text: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The same of its lines."""
    lines = checked_lines(text)
    first = next(lines, "")
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter_of(first))
    begins = 1
    try:
        for cells in reader:
            if cells:
                yield begins, [unmarked(cell) for cell in cells]
            begins = reader.line_num + 1
    except csv.Error as error:
        raise Fault(f"line {begins}: {error}") from error


def checked_lines(text: Iterable[str]) -> Iterator[str]:
    """Raises Fault for a NUL, which no text has."""
    for number, line in enumerate(text, 1):
        if "\0" in line:
            raise Fault(f"line {number}: it holds a NUL byte")
        yield line


def delimiter_of(header: str) -> str:
    """What separates the names of the columns, none of which has it in itself."""
    return next((mark for mark in DELIMITERS if mark in header), DELIMITERS[0])


# --- rows ---


def numbered_rows(file: Path, *, cut: bool = False) -> list[tuple[int, dict[str, str]]]:
    """(line, row by the names of the columns) of each row; none where there is no file.

    cut: a last row that is not whole, as of a process that was killed, is left out, and no fault.
    Raises Fault.
    """
    rows: list[tuple[int, dict[str, str]]] = []
    short = ""
    try:
        lines = lines_of(file)
        _, names = next(lines, (1, []))
        for number, cells in lines:
            if short:
                raise Fault(short)
            if len(cells) < len(names) and cut:
                short = count_fault(number, cells, names)
                continue
            if len(cells) != len(names):
                raise Fault(count_fault(number, cells, names))
            rows.append((number, dict(zip(names, cells))))
        if cut and rows and not short and not ends_a_line(file):
            rows.pop()
    except FileNotFoundError:
        return []
    return rows


def count_fault(number: int, cells: Sequence[str], names: Sequence[str]) -> str:
    """What is said of a row of another length than the header."""
    has = counted(len(cells), "field")
    return f"line {number}: it has {has} in the place of {len(names)}"


def ends_a_line(file: Path) -> bool:
    """Whether the last byte ends a line."""
    with open(file, "rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - 1))
        return opened.read() == b"\n"


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows as written by `write_csv`; none if the file is not there. Raises Damaged."""
    try:
        return [row for _, row in numbered_rows(path)]
    except Fault as fault:
        raise Damaged(f"{path} is no table ({fault})") from fault


@contextmanager
def in_line(number: int) -> Iterator[None]:
    """Says of a fault of a row in which line that is."""
    try:
        yield
    except KeyError as error:
        raise Fault(f"line {number}: it has no column {error.args[0]}") from error
    except ValueError as error:
        raise Fault(f"line {number}: {error}") from error


# --- cells ---


def cell(row: Mapping[str, Any], column: str) -> str:
    """A cell that must be there. Raises Fault."""
    if column not in row:
        names = first_of([shown(name) for name in row])
        raise Fault(f"it has no column {column}; its columns are {names}")
    return row[column]


def whole(row: Mapping[str, Any], column: str) -> int:
    """A cell that is a whole number, at least 0, also of a row that was just made. Raises Fault."""
    text = str(cell(row, column))
    if text.isascii() and text.isdigit() and len(text) < SHOWN:
        return int(text)
    raise Fault(f"{column} is {shown(text)}, and no number from 0 on")


def check_numbers(row: Mapping[str, Any], columns: Iterable[str]) -> None:
    """Raises Fault for a cell of these columns, where they are there, that is no number. An empty
    one is none by intent.
    """
    for column in columns:
        text = row.get(column)
        if text:
            number(text, column)


def number(text: str, column: str) -> float:
    """A cell's number. Raises Fault."""
    try:
        return float(text)
    except ValueError as error:
        raise Fault(f"{column} is {shown(text)}, and no number") from error


def shown(text: Any) -> str:
    """A cell in a message."""
    short = str(text)[:SHOWN]
    return repr(short if short == text else f"{short}...")
