"""What all pictures of this folder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def empty_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, whose parts do not overlap."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def one_line(text: str, length: int) -> str:
    """The text in one line, cut to so many letters."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
