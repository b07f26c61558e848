"""Reading prompt files: tables (CSV, TSV, Parquet), text and JSON lines.

A row is one prompt, and its number is its place in the file. Messages name the file, and the line
where there are lines.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization_suite.runs.files import check_regular, read_text
from memorization_suite.runs.notices import say
from memorization_suite.runs.parse import json_of

# Names of the column with the captions: of several the first of this list. Their case is no matter.
CAPTION_COLUMNS = (
    "caption",
    "captions",
    "prompt",
    "prompts",
    "text",
    "sentence",
    "description",
)
# What stands between the fields of a table with one column: a separator that no text has.
NOTHING = "\x1f"
OPEN_QUOTE = "a caption that begins with a quote must end with one, and have those inside it twice"
# Columns of other captions.
ALTERNATIVE = re.compile(r"caption[0-9]{1,4}")


@dataclass(frozen=True)
class Prompt:
    """row: position in the file. index, type: the columns `Index` and `type`, empty when there are
    none.

    alternatives: the columns caption1, caption2, ...: other captions of the same meaning, for
    prompt search.
    """

    row: int
    caption: str
    index: str = ""
    type: str = ""
    alternatives: tuple[str, ...] = ()


def read_prompts(path: Path, column: str = "", *, needed: bool = True) -> list[Prompt]:
    """Prompts of a .csv, .tsv, .parquet, .jsonl or .txt file.

    column: the name of the one with the captions; empty: the first of CAPTION_COLUMNS. needed:
    else a file without that column is read as without a name. Raises ValueError naming the file and
    what is wrong with it.
    """
    readers = {
        ".csv": read_table,
        ".tsv": read_table,
        ".txt": read_txt,
        ".jsonl": read_jsonl,
        ".parquet": read_parquet,
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise ValueError(f"{path}: prompt files end in {', '.join(readers)}")
    check_regular(path, "prompt file")
    try:
        prompts = readers[suffix](path, column)
    except NoColumn:
        if needed or not column:
            raise
        prompts = readers[suffix](path, "")
    if not prompts:
        raise ValueError(f"{path} has no prompts")
    return prompts


# --- columns ---


def say_choice(path: Path, names: Sequence[str], column: str, asked: str) -> None:
    """Says which of several columns that may hold the captions is read. asked: the one that was
    typed.
    """
    known = [name for name in names if name.strip().lower() in CAPTION_COLUMNS]
    others = [name for name in known if name != column]
    if others and not asked and column.strip().lower() != CAPTION_COLUMNS[0]:
        say(
            f"{path}: its captions are read from the column {column!r}; "
            f"--caption_column {shlex.quote(others[0])} reads the other one"
        )


class NoColumn(ValueError):
    """A file without a column of captions, or without the one that was asked for."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called there; None where there is none."""

    caption: str
    index: str | None
    type: str | None

    def prompt(self, where: str, row: int, fields: Mapping[str, Any]) -> Prompt:
        """A row of the table. where: for messages. Raises ValueError."""
        kind = fields.get(self.type) if self.type is not None else None
        index = fields.get(self.index) if self.index is not None else None
        others = {name: value for name, value in fields.items() if name != self.caption}
        return checked(where, row, fields.get(self.caption), index, kind, alternatives(others))


def columns_of(names: Sequence[str], asked: str, *, index: str = "Index") -> Columns | None:
    """Which columns are read; None where none holds captions.

    asked: the name of the captions' column, if any. index: how that column is spelled first of all.
    """
    if asked:
        caption = asked if asked in names else alike(names, asked)
    else:
        found = (alike(names, name) for name in CAPTION_COLUMNS)
        caption = next((name for name in found if name is not None), None)
    if caption is None:
        return None
    return Columns(
        caption,
        index=index if index in names else alike(names, index),
        type="type" if "type" in names else alike(names, "type"),
    )


def alike(names: Iterable[str], wanted: str) -> str | None:
    """The first of these names that differs from the wanted one in case and outer spaces alone."""
    plain = wanted.strip().lower()
    return next((name for name in names if name.strip().lower() == plain), None)


def no_column(where: object, names: Collection[str], asked: str, what: str = "column") -> NoColumn:
    """The error for a file, or a line of it, without captions. what: a column is called there."""
    there = ", ".join(name or "''" for name in names) or "none"
    lacks = f"{where} has no {what} {asked or CAPTION_COLUMNS[0].capitalize()!r}"
    if asked:
        return NoColumn(f"{lacks}; its {what}s are {there}")
    return NoColumn(
        f"{lacks} nor any of {', '.join(CAPTION_COLUMNS[1:])}; its {what}s are {there}: name the "
        "one with the prompts with --caption_column"
    )


# --- formats ---


def read_table(path: Path, column: str) -> list[Prompt]:
    """Rows of a table with `;`, `,` or tabs between the fields; of one column, its lines."""
    text = read_text(path, "prompt file")
    delimiter, columns = layout_of(path, text, column)
    prompts: list[Prompt] = []
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    # The line in which a row begins: captions may have several.
    begins = 1
    try:
        for fields in lines:
            where = f"{path}, line {begins}"
            begins = lines.line_num + 1
            if not names or not fields:
                names = names or fields
                continue
            check_fields(where, names, fields, delimiter)
            row = dict(zip(names, fields))
            if delimiter == "," and columns.index is not None:
                check_index(where, row.get(columns.index) or "")
            prompts.append(columns.prompt(where, len(prompts), row))
    except csv.Error as error:
        fault = OPEN_QUOTE if delimiter == NOTHING else error
        raise ValueError(f"{path}, line {begins}: {fault}") from error
    return prompts


def layout_of(path: Path, text: str, column: str) -> tuple[str, Columns]:
    """(what stands between the fields, the columns), as the header tells. Raises ValueError."""
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    common = ";" if header.count(";") >= header.count(",") else ","
    order = dict.fromkeys((common, "\t", ";", ","))
    if path.suffix.lower() == ".tsv":
        order = dict.fromkeys(("\t", *order))
    headers = {delimiter: names_in(text, delimiter) for delimiter in order}
    if path.suffix.lower() == ".csv" and all(len(names) == 1 for names in headers.values()):
        headers = {NOTHING: headers[common]}
    for delimiter, names in headers.items():
        columns = columns_of(names, column)
        if columns is not None:
            say_choice(path, names, columns.caption, column)
            return delimiter, columns
    raise no_column(path, max(headers.values(), key=len), column)


def names_in(text: str, delimiter: str) -> list[str]:
    """Names of a table's columns; none where the header cannot be read so."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return next((fields for fields in rows if fields), [])
    except csv.Error:
        return []


def check_fields(where: str, names: list[str], fields: list[str], delimiter: str) -> None:
    """Raises ValueError for a row with more fields than the header has."""
    if len(fields) > len(names):
        raise ValueError(
            f"{where}: more fields than the header has; is a caption with {delimiter!r} not quoted?"
        )


def check_index(where: str, index: str) -> None:
    """Raises ValueError for what is the rest of a caption."""
    if index.startswith(" "):
        raise ValueError(
            f"{where}: the Index {index!r} begins with a space; is a caption with ',' not quoted?"
        )


def read_txt(path: Path, column: str) -> list[Prompt]:
    """A prompt a line; empty lines are passed over."""
    if column:
        raise NoColumn(f"{path} has no columns, so that --caption_column {column} names none")
    lines = lines_of(read_text(path, "prompt file"))
    return [
        checked(f"{path}, line {number}", row, line.rstrip("\r"))
        for row, (number, line) in enumerate(lines)
    ]


def read_jsonl(path: Path, column: str) -> list[Prompt]:
    """A JSON object a line, with a text field caption: that of the first line in all of them."""
    prompts: list[Prompt] = []
    chosen = column
    for number, line in lines_of(read_text(path, "prompt file")):
        where = f"{path}, line {number}"
        try:
            entry = json_of(line)
        except ValueError as error:
            raise ValueError(f"{where}: not JSON ({error})") from error
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: no text field {chosen or 'caption'!r}")
        known = "caption" if "caption" in entry and not chosen else chosen
        columns = columns_of(list(entry), known, index="index")
        if columns is None:
            raise no_column(where, list(entry), chosen, "text field")
        if not prompts:
            say_choice(path, list(entry), columns.caption, column)
            chosen = columns.caption
        if not isinstance(entry[columns.caption], str):
            raise ValueError(f"{where}: no text field {columns.caption!r}")
        prompts.append(columns.prompt(where, len(prompts), entry))
    return prompts


def lines_of(text: str) -> list[tuple[int, str]]:
    """(number from 1, line) of those that are not empty.

    They end with a newline; where there is none in the whole file, with a carriage return.
    """
    end = "\n" if "\n" in text else "\r"
    return [(number, line) for number, line in enumerate(text.split(end), 1) if line.strip()]


def read_parquet(path: Path, column: str) -> list[Prompt]:
    """Rows of a Parquet file; only the columns that are read are loaded."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = [str(name) for name in file.schema_arrow.names]
            columns = columns_of(names, column)
            if columns is None:
                raise no_column(path, names, column)
            say_choice(path, names, columns.caption, column)
            wanted = {columns.caption, columns.index, columns.type}
            read = [name for name in names if name in wanted or ALTERNATIVE.fullmatch(name)]
            table = file.read(columns=list(dict.fromkeys(read)))
            fields = {
                str(name): values.to_pylist()
                for name, values in zip(table.column_names, table.columns)
            }
    except NoColumn:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, ArithmeticError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is no Parquet file that can be read ({reason})") from error
    rows = []
    for row, values in enumerate(zip(*fields.values())):
        entry = {name: plain(value) for name, value in zip(fields, values)}
        where = f"{path}, row {row}"
        if not isinstance(entry[columns.caption], str | None):
            raise ValueError(f"{where}: the column {columns.caption!r} holds no text")
        rows.append(columns.prompt(where, row, entry))
    return rows


def plain(value: Any) -> Any:
    """A value of a Parquet file: a whole number is one, also where a column with gaps has 12.0."""
    if isinstance(value, float):
        if value != value:
            return None
        return int(value) if value.is_integer() else value
    return value


# --- fields ---


def alternatives(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts in caption1, caption2, ... in the order of their numbers; empty ones are passed
    over.
    """
    numbered = {
        int(name[7:]): value for name, value in row.items() if ALTERNATIVE.fullmatch(str(name))
    }
    return tuple(
        value for _, value in sorted(numbered.items()) if isinstance(value, str) and value.strip()
    )


def checked(
    where: str,
    row: int,
    caption: str | None,
    index: Any = None,
    kind: Any = None,
    others: tuple[str, ...] = (),
) -> Prompt:
    """A prompt; raises ValueError when its caption is empty, or a text is no text of Unicode."""
    if caption is None or not caption.strip():
        raise ValueError(f"{where}: prompt {row} is empty")
    nothing = isinstance(kind, bool | list | dict) and not kind
    prompt = Prompt(row, caption, text_of(index), "" if nothing else text_of(kind), others)
    try:
        "".join([caption, prompt.index, prompt.type, *others]).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: prompt {row} is not valid Unicode ({error.reason})") from error
    return prompt


def text_of(value: Any) -> str:
    """A field as a text: 0 is one, what is not there is empty."""
    return "" if value is None else str(value)
