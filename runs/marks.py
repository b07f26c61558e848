"""Images that a reader of a run's numbers must know of: not finite, or of one flat color."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from memorization_suite.runs.run_folder import Key
from memorization_suite.runs.text import counted, first_of

NOT_FINITE = "not finite"
FLAT = "of one flat color"


@dataclass(frozen=True)
class Marks:
    """What images.csv says of some images."""

    # Whose latents or decoded picture are not finite numbers. They have no scores.
    not_finite: frozenset[Key] = frozenset()
    # Others of one flat color, which a model may make honestly. They are scored.
    flat: frozenset[Key] = frozenset()
    # How many images there are.
    total: int = 0

    @classmethod
    def of(cls, rows: Mapping[Key, Mapping[str, str]], wanted: Collection[Key]) -> Marks:
        """Of the wanted images. rows: of images.csv; an older one has no column `flat`."""
        not_finite = set()
        flat = set()
        for key in wanted:
            row = rows.get(key, {})
            if number_of(row.get("finite")) == 0:
                not_finite.add(key)
            elif number_of(row.get("flat")) == 1:
                flat.add(key)
        return cls(frozenset(not_finite), frozenset(flat), len(wanted))

    @property
    def texts(self) -> list[str]:
        """What there is, without the name of the run: `2 are not finite: img_0000_00, ...`."""
        texts = []
        for keys, what in ((self.not_finite, NOT_FINITE), (self.flat, FLAT)):
            if keys:
                are = "is" if len(keys) == 1 else "are"
                texts.append(f"{len(keys)} {are} {what}: {names_of(keys)}")
        return texts

    def lines(self, run: str) -> list[str]:
        """What there is, and what becomes of it in the scores of a run."""
        return [
            *said(self.not_finite, self.total, run, f"{NOT_FINITE} and left out of every score"),
            *said(self.flat, self.total, run, f"{FLAT}, and scored"),
        ]


def said(keys: Collection[Key], total: int, run: str, what: str) -> list[str]:
    """`2 of 20 images of RUN are WHAT: ...`; nothing without any."""
    if not keys:
        return []
    are = "is" if len(keys) == 1 else "are"
    return [f"{len(keys)} of {counted(total, 'image')} of {run} {are} {what}: {names_of(keys)}"]


def is_flat(picture: Any) -> bool:
    """Whether a PIL image, RGB, is of one color."""
    return all(low == high for low, high in picture.getextrema())


def names_of(keys: Iterable[Key]) -> str:
    """`img_0000_00, img_0000_01 and 3 more`."""
    return first_of([f"img_{key}" for key in sorted(keys)])


def number_of(text: str | None) -> float | None:
    """The number in a cell; None where there is none."""
    with suppress(TypeError, ValueError):
        return float(text)  # type: ignore[arg-type]
    return None
