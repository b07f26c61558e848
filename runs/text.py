"""Texts for people that several commands print."""

from __future__ import annotations

import errno
from collections.abc import Sequence

# How many things a message names one by one.
NAMED = 5
# Columns of a Markdown table that are wider in its source are not aligned there.
WIDEST = 60
WIDEST_LAST = 24
# What is said of a disk that takes no more.
FULL = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "your quota of the disk is used up",
}
# Characters of what a library says.
LONGEST_REASON = 400


def table_text(rows: list[dict[str, str]]) -> str:
    """Columns of equal width under their names; an empty column is left out."""
    padded = []
    for name in rows[0]:
        cells = [row[name] for row in rows]
        if any(cells):
            width = max(map(len, [name, *cells]))
            padded.append([cell.ljust(width) for cell in [name, *cells]])
    lines = ["  ".join(cells).rstrip() for cells in zip(*padded)]
    return "\n".join(lines)


def markdown_table(rows: list[dict[str, str]]) -> str:
    """The same for a Markdown file, with every column; aligned in its source too, but for columns
    of long texts.
    """
    names = list(rows[0])
    widths = []
    for name in names:
        widest = WIDEST_LAST if name == names[-1] else WIDEST
        width = max(3, len(name), *(len(row[name]) for row in rows))
        widths.append(width if width <= widest else 3)
    lines = [names, ["-" * width for width in widths]]
    lines += [list(row.values()) for row in rows]
    return "".join(markdown_line(cells, widths) for cells in lines)


def markdown_line(cells: list[str], widths: list[int]) -> str:
    """A line of it."""
    padded = [cell.ljust(width) for cell, width in zip(cells, widths)]
    return f"| {' | '.join(padded)} |\n"


def counted(number: int, what: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def first_of(texts: Sequence[str], most: int = NAMED, between: str = ", ") -> str:
    """The first few of some texts, and how many more there are."""
    more = len(texts) - most
    return between.join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def said_by(error: BaseException) -> str:
    """What an error says, in one line; one that says nothing is named by its kind."""
    return " ".join(str(error).split()) or type(error).__name__


def fault_of_reading(error: BaseException) -> str:
    """What is wrong with a file, from the error of reading it; the file is named beside it."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, (TypeError, AttributeError)):
        return "it is built in another way"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return said_by(error)


def fault_text(error: OSError) -> str:
    """What an error of the system says, in one line; of a full disk what to do."""
    if error.errno not in FULL:
        return said_by(error)
    lost = f": {error.filename} is not written" if error.filename else ""
    return f"{FULL[error.errno]}{lost}, and what is written already stays. Make room first"


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    return isinstance(error, OSError) and error.errno in FULL


def reason_of(error: BaseException) -> str:
    """What an error says, in one line with its kind: `OSError: no file named ...`."""
    text = " ".join(str(error).split()).rstrip(".")
    if len(text) > LONGEST_REASON:
        text = f"{text[:LONGEST_REASON]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
