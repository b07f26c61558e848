"""How much of a caption a score reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from memorization_suite.prompts.cut import Cut, cut_line
from memorization_suite.prompts.files import Prompt


@dataclass(frozen=True)
class TextReader:
    """A network that reads the first tokens of a caption."""

    # What people call it; tells two apart.
    name: str
    # How many of a caption's own tokens it reads.
    most: int
    # A caption's own tokens, and how some tokens read.
    tokens: Callable[[str], Sequence[Any]]
    text: Callable[[Sequence[Any]], str]

    def cut(self, prompts: Iterable[Prompt]) -> list[Cut]:
        """The captions whose end it does not read."""
        found = []
        for prompt in prompts:
            tokens = self.tokens(prompt.caption)
            rest = tokens[self.most :]
            if rest:
                where = f"row {prompt.row}"
                found.append(Cut(where, len(tokens), len(rest), self.text(rest)))
        return found


def cut_lines(readers: Iterable[TextReader | None], prompts: Sequence[Prompt]) -> list[str]:
    """What is said of captions that are cut, a line for each reader. None: reads no captions."""
    lines = {}
    for reader in readers:
        if reader is not None and reader.name not in lines:
            found = reader.cut(prompts)
            lines[reader.name] = cut_line(found, len(prompts), reader.name) if found else ""
    return [line for line in lines.values() if line]
