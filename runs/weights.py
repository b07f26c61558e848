"""Whether a network got each of its tensors from its file: what loaders report, in one message."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from memorization_suite.runs.notices import say
from memorization_suite.runs.text import first_of

# How many tensors a message names.
NAMED = 3
# Loggers of the libraries that print what they report.
REPORTING = ("diffusers.models.modeling_utils", "transformers.modeling_utils")
# A line of what torch says of a state that does not fit.
QUOTED = re.compile(r'"([^"]+)"')
SIZES = re.compile(r"size mismatch for (\S+): .*?\[([\d, ]*)\].*?\[([\d, ]*)\]")


class Incomplete(ValueError):
    """Files that are not all that a network was trained as; the message is for people."""


@dataclass(frozen=True)
class Report:
    """What a loader says of a file: names of tensors."""

    # Of the network, and not in the file.
    missing: tuple[str, ...] = ()
    # (name, shape in the file, shape in the network).
    mismatched: tuple[tuple[str, Any, Any], ...] = ()
    # In the file, and not of the network.
    unexpected: tuple[str, ...] = ()

    @classmethod
    def of(cls, told: Mapping[str, Iterable], network: Any = None) -> Self:
        """Of what `from_pretrained(..., output_loading_info=True)` tells beside the network.

        A tensor that a list of pieces promises, and none of them holds, has no content.
        """
        missing = set(told["missing_keys"])
        mismatched = sorted(told["mismatched_keys"], key=lambda each: each[0])
        if network is not None:
            empty = {name for name, tensor in network.state_dict().items() if tensor.is_meta}
            missing |= empty - {name for name, _, _ in mismatched}
        return cls(
            tuple(sorted(missing)), tuple(mismatched), tuple(sorted(told["unexpected_keys"]))
        )

    @classmethod
    def of_error(cls, error: Exception) -> Self | None:
        """Of what torch's `load_state_dict` raises; None for another error."""
        text = str(error)
        if "Error(s) in loading state_dict" not in text:
            return None
        named: dict[str, list[str]] = {"Missing": [], "Unexpected": []}
        for line in text.splitlines():
            kind = line.split(maxsplit=1)[0] if line.strip() else ""
            if kind in named:
                named[kind] += QUOTED.findall(line)
        sizes = [tuple(found) for found in SIZES.findall(text)]
        return cls(tuple(named["Missing"]), tuple(sizes), tuple(named["Unexpected"]))

    def but(self, beginnings: tuple[str, ...]) -> Self:
        """Without the missing tensors whose names begin so."""
        missing = tuple(name for name in self.missing if not name.startswith(beginnings))
        return replace(self, missing=missing)

    @property
    def is_whole(self) -> bool:
        """Whether every tensor of the network is there."""
        return not self.missing and not self.mismatched

    def fault(self) -> str:
        """What is not as it should be, as the end of a sentence about the file."""
        found = []
        if self.missing:
            found.append(f"lacks {tensors(self.missing, 'tensor')}")
        if self.mismatched:
            shapes = [
                f"{name} is {list_of(ours)} in place of {list_of(wanted)}"
                for name, ours, wanted in self.mismatched
            ]
            found.append(f"has {tensors(shapes, 'tensor of another shape')}")
        if self.unexpected:
            found.append(f"has {tensors(self.unexpected, 'unexpected tensor')}")
        return ", and ".join(found)

    def check(self, what: str, place: str | Path) -> None:
        """Raises Incomplete for a file that lacks tensors; names once what is in no use.

        what: is loaded. place: file, folder or hub id that it is loaded from.
        """
        if not self.is_whole:
            raise Incomplete(f"{what} is not complete: {place} {self.fault()}")
        if self.unexpected:
            say(f"{what}: {place} {self.fault()}, not used")


@contextmanager
def quiet_reports() -> Iterator[None]:
    """Inside the block the libraries do not print the reports that they return."""
    loggers = [logging.getLogger(name) for name in REPORTING]
    try:
        for logger in loggers:
            logger.addFilter(is_error)
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_error)


def is_error(record: logging.LogRecord) -> bool:
    """Whether a library says more than a warning."""
    return record.levelno >= logging.ERROR


def tensors(names: Sequence[str], what: str) -> str:
    """`2 tensors (a, b)`; of many the first few."""
    plural = what if len(names) == 1 else what.replace("tensor", "tensors")
    return f"{len(names)} {plural} ({first_of(names, NAMED)})"


def list_of(shape: Any) -> str:
    """A shape as `[2, 3]`, from a sequence or torch's text."""
    return f"[{shape}]" if isinstance(shape, str) else str(list(shape))
