"""Files: nothing half-written ever has a final name, and what cannot be read is said plainly."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes, check: Callable[[], None] | None = None) -> None:
    """Writes to a temporary name in the same folder, then renames. Raises OSError, e.g. on a full
    disk.

    check: called just before the renaming, which it stops by raising.
    """
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check()
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value, check: Callable[[], None] | None = None) -> None:
    """Indented JSON. check: as of `write_bytes`."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode(), check)


def write_csv(path: Path, rows: Iterable[dict], check: Callable[[], None] | None = None) -> None:
    """Rows with the columns of all rows, in order of first appearance; a missing value is empty.

    check: as of `write_bytes`.
    """
    rows = list(rows)
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
    text = csv_text(rows, list(columns), csv.QUOTE_MINIMAL)
    if "\r" in text:  # a lone carriage return would stay without quotes
        text = csv_text(rows, list(columns), csv.QUOTE_ALL)
    write_bytes(path, text.encode(), check)


def csv_text(rows: Iterable[dict], columns: list[str], quoting: Any) -> str:
    """The table as a text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows as written by `write_csv`; none if the file is not there."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def read_text(path: Path, kind: str) -> str:
    """A file's UTF-8 text. Raises ValueError when it is missing, a folder, or something else.

    kind: what messages call the file.
    """
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
