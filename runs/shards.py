"""Pieces of a run: every N-th of its batches, so that several processes make it together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True, order=True)
class Shard:
    """Piece `number` of `count`, counted from 1. As a text it is what one types: `2/4`."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def __bool__(self) -> bool:
        """Whether it is less than the whole."""
        return self.count > 1

    def has(self, batch: int) -> bool:
        """Whether the batch of this number, counted from 0, is in the piece."""
        return batch % self.count == self.number - 1

    def part(self, number: int, count: int) -> Shard:
        """Piece `number` of `count` of this piece, such as of the processes that share it."""
        return Shard(self.number + self.count * (number - 1), self.count * count)

    def siblings(self) -> list[Shard]:
        """All pieces, this one included."""
        return [Shard(number, self.count) for number in range(1, self.count + 1)]


WHOLE = Shard()


# Flags of one call, which the command that makes all of it has not.
OF_A_CALL = ("shard", "verify")


class InPieces:
    """Something that is made whole or in pieces, as its flags say."""

    settings: Any
    # What was typed, by name.
    typed: dict[str, Any]

    @cached_property
    def shard(self) -> Shard:
        """The piece that is to be made."""
        return parse_shard(self.settings.shard)

    @property
    def typed_for_whole(self) -> dict[str, Any]:
        """What one would type for all of it."""
        return {name: value for name, value in self.typed.items() if name not in OF_A_CALL}


def parse_shard(text: str) -> Shard:
    """`2/4`; an empty text is the whole. Raises ValueError."""
    if not text:
        return WHOLE
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(
            f"--shard {text} is no piece: I/N takes I from 1 to N, whole batches are the unit. "
            f"Type for example --shard 1/{max(2, count)}"
        )
    return Shard(number, count)
