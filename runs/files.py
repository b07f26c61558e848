"""Files: nothing half-written ever has a final name, and what cannot be read is said plainly."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Writes to a temporary name in the same folder, then renames. Raises OSError, e.g. on a full
    disk.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value) -> None:
    """Indented JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode())


def write_csv(path: Path, rows: Iterable[dict]) -> None:
    """Rows with the columns of all rows, in order of first appearance; a missing value is empty."""
    rows = list(rows)
    columns: dict[str, None] = {}
    carriage_return = False
    for row in rows:
        columns |= dict.fromkeys(row)
        carriage_return |= any("\r" in str(value) for value in row.values())
    text = io.StringIO()
    writer = csv.DictWriter(
        text,
        list(columns),
        lineterminator="\n",
        # A lone carriage return would stay without quotes.
        quoting=csv.QUOTE_ALL if carriage_return else csv.QUOTE_MINIMAL,
    )
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


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
