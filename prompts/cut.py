"""Captions that are longer than what reads them: how one says which, and what is not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memorization_suite.runs.text import first_of

# Characters of what a caption loses that a message shows.
SHOWN = 60


@dataclass(frozen=True)
class Cut:
    """A caption whose end is not read."""

    # Which one: "row 3".
    where: str
    # Its tokens, without begin and end, and how many of them are not read.
    tokens: int
    lost: int
    # What is not read; empty where that is not known.
    rest: str = ""

    def __str__(self) -> str:
        """`row 3 (82 tokens, without '... on a hill')`."""
        without = f", without {quoted(self.rest)}" if self.rest else ""
        return f"{self.where} ({self.tokens} tokens{without})"


def quoted(text: str) -> str:
    """The text, on a line; of a long one the beginning and the end."""
    text = " ".join(text.split())
    if len(text) > SHOWN:
        text = f"{text[: SHOWN // 2].rstrip()} ... {text[-SHOWN // 3 :].lstrip()}"
    return repr(text)


def cut_line(cut: Sequence[Cut], total: int, reader: str, what: str = "caption") -> str:
    """Which captions are cut. total: how many there are. reader: who cuts them. what: they are.

    cut: one or more.
    """
    most = cut[0].tokens - cut[0].lost
    longer = f"{what} is longer" if total == 1 else f"{what}s are longer"
    return (
        f"{len(cut)} of {total} {longer} than the {most} tokens that {reader} reads; the rest is "
        f"cut: {first_of([str(each) for each in cut])}"
    )
