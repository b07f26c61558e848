"""Reading prompt files: CSV, text and JSON lines."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.runs.files import read_text


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


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a .csv (`;` or `,`; column Caption), .txt (one a line) or .jsonl (field caption)
    file.

    Raises ValueError naming the file and what is wrong with it.
    """
    readers = {".csv": read_csv, ".txt": read_txt, ".jsonl": read_jsonl}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: prompt files end in {', '.join(readers)}")
    prompts = readers[path.suffix.lower()](path, read_text(path, "prompt file"))
    if not prompts:
        raise ValueError(f"{path} has no prompts")
    return prompts


def read_csv(path: Path, text: str) -> list[Prompt]:
    """Rows of a CSV text with a column Caption."""
    header = text.split("\n", 1)[0]
    delimiter = ";" if header.count(";") >= header.count(",") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    prompts: list[Prompt] = []
    try:
        names = reader.fieldnames or []
        column = next((name for name in names if name.lower() == "caption"), None)
        if column is None:
            raise ValueError(
                f"{path} has no column 'Caption'; its columns are {', '.join(names) or 'none'}: "
                "rename the one with the prompts"
            )
        for row in reader:
            if None in row:
                raise ValueError(
                    f"{path}, line {reader.line_num}: more fields than the header has; is a "
                    f"caption with {delimiter!r} not quoted?"
                )
            index = row.get("Index") or ""
            if delimiter == "," and index.startswith(" "):
                raise ValueError(
                    f"{path}, line {reader.line_num}: the Index {index!r} begins with a space; is "
                    "a caption with ',' not quoted?"
                )
            prompts.append(
                checked(
                    path,
                    len(prompts),
                    row[column],
                    row.get("Index"),
                    row.get("type"),
                    alternatives(row),
                )
            )
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    return prompts


def read_txt(path: Path, text: str) -> list[Prompt]:
    """A prompt a line; empty lines are passed over."""
    return [
        checked(path, row, line)
        for row, line in enumerate(line.rstrip("\r") for line in text.split("\n") if line.strip())
    ]


def read_jsonl(path: Path, text: str) -> list[Prompt]:
    """A JSON object a line, with a text field caption."""
    prompts: list[Prompt] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("caption"), str):
            raise ValueError(f"{path}, line {number}: no text field 'caption'")
        prompts.append(
            checked(
                path,
                len(prompts),
                entry["caption"],
                entry.get("index"),
                entry.get("type"),
                alternatives(entry),
            )
        )
    return prompts


def alternatives(row: dict) -> tuple[str, ...]:
    """The texts in caption1, caption2, ... in the order of their numbers; empty ones are passed
    over.
    """
    numbered = {
        int(name[7:]): value
        for name, value in row.items()
        if re.fullmatch(r"caption[0-9]{1,4}", str(name))
    }
    return tuple(
        value for _, value in sorted(numbered.items()) if isinstance(value, str) and value.strip()
    )


def checked(
    path: Path, row: int, caption: str | None, index=None, kind=None, others: tuple[str, ...] = ()
) -> Prompt:
    """A prompt; raises ValueError when its caption is empty."""
    if caption is None or not caption.strip():
        raise ValueError(f"{path}: prompt {row} is empty")
    try:
        caption.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}: prompt {row} is not valid Unicode ({error.reason})") from error
    return Prompt(row, caption, "" if index is None else str(index), kind or "", others)
