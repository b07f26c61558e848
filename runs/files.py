"""Writing files so that nothing half-written ever has a final name."""

from __future__ import annotations

import csv
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
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
