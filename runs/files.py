"""Files: nothing half-written ever has a final name, and what cannot be read is said plainly."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from memorization_suite.runs.parts import part_of
from memorization_suite.runs.pointers import pointer_fault

# A caption may be longer than the 131,072 characters that the module takes for a fault.
csv.field_size_limit(2**31 - 1)
# What a spreadsheet takes for a formula at the beginning of a text, and the apostrophes before it.
FORMULA = re.compile(r"'*[=+\-@\t\r]")
MARKED = re.compile(r"'+[=+\-@\t\r]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity|nan)", re.I | re.A)


def write_bytes(path: Path, data: bytes, check: Callable[[], None] | None = None) -> None:
    """Writes to a temporary name in the same folder, then renames. Raises OSError that names the
    path, e.g. on a full disk.

    check: called just before the renaming, which it stops by raising.
    """
    part = part_of(path)
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check()
        os.replace(part, path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_json(path: Path, value, check: Callable[[], None] | None = None) -> None:
    """Indented JSON. check: as of `write_bytes`."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode(), check)


# --- tables ---


def write_csv(path: Path, rows: Iterable[dict], check: Callable[[], None] | None = None) -> None:
    """Rows with the columns of all rows, in order of first appearance; a missing value is empty.

    Texts are marked as `marked` says. check: as of `write_bytes`.
    """
    rows = [{name: marked(value) for name, value in row.items()} for row in rows]
    write_bytes(path, csv_text(rows).encode(), check)


def csv_text(rows: Iterable[dict]) -> str:
    """The same as a text, with all texts as they are: of prompt files."""
    rows = list(rows)
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
    text = quoted_text(rows, list(columns), csv.QUOTE_MINIMAL)
    if "\r" in text:  # a lone carriage return would stay without quotes
        text = quoted_text(rows, list(columns), csv.QUOTE_ALL)
    return text


def quoted_text(rows: Iterable[dict], columns: list[str], quoting: Any) -> str:
    """The table with quotes where they are asked for."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def marked(value: Any) -> Any:
    """A cell as our tables have it, so that no spreadsheet runs it.

    The rule: a text that begins with = + - @, a tab or a carriage return gets an apostrophe in
    front; so does a text that begins with apostrophes and then one of those, so that `unmarked`
    gives back exactly what was there. A number gets none, be it written as a text.
    """
    text = str(value)
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else value


def unmarked(text: str) -> str:
    """A cell of our tables as it was before `marked`; others are as they are."""
    return text[1:] if MARKED.match(text) else text


# --- files of others ---


def check_regular(path: Path, kind: str) -> None:
    """Raises ValueError for what is no file, such as a folder or a pipe, on which one would wait,
    and for what Git LFS did not bring.

    kind: what messages call it. What is not there is left to who opens it.
    """
    try:
        what = kind_of_place(path)
    except ValueError as error:  # a NUL in its name
        raise ValueError(f"cannot read the {kind} {str(path)!r}: {error}") from error
    if what:
        raise ValueError(f"cannot read the {kind} {path}: it is {what}, and no file")
    fault = pointer_fault(path)
    if fault:
        raise ValueError(f"cannot read the {kind}: {fault}")


def kind_of_place(path: Path) -> str:
    """What there is in the place of a file: `a folder`, `a pipe`; empty for a file, and for what is
    not there.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), "a device")


def read_text(path: Path, kind: str) -> str:
    """A file's UTF-8 text. Raises ValueError when it is missing, no file, or something else.

    kind: what messages call the file.
    """
    check_regular(path, kind)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read the {kind} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start})") from error
    if "\0" in text:
        raise ValueError(f"{path} is a binary file, not a {kind}")
    return text


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
