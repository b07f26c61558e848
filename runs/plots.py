"""The look of every figure: one style file, and one color and marker a method.

Colors are those of Okabe and Ito, with gray in the place of yellow. Markers tell methods of one
color apart, and those whose colors are one to the color-blind.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memorization_suite.runs.lazy import Lazy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

matplotlib = Lazy("matplotlib")
figures = Lazy("matplotlib.figure")
styles = Lazy("matplotlib.style")

STYLE = Path(__file__).with_name("plots.mplstyle")
# Inches: a column of a paper, and both.
COLUMN = 3.4
PAGE = 7.0

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
RED = "#D55E00"
PURPLE = "#CC79A7"
GRAY = "#767676"
# For lines of one method, such as its seeds.
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK)


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    color: str
    marker: str


# The paper's methods have the strongest colors. Groups share a color: embedding, attention, ...
LOOKS = {
    "no_mitigation": Look(BLACK, "X"),
    "batch_wise": Look(BLUE, "o"),
    "per_sample": Look(RED, "s"),
    "static_transition": Look(GREEN, "^"),
    "dynamic_transition": Look(GREEN, "v"),
    "opposite_guidance": Look(GREEN, "D"),
    "prompt_embedding": Look(ORANGE, "o"),
    "anisotropy_embedding": Look(ORANGE, "s"),
    "bright_ending_embedding": Look(ORANGE, "^"),
    "prss": Look(ORANGE, "D"),
    "random_tokens": Look(PURPLE, "o"),
    "embedding_noise": Look(PURPLE, "s"),
    "clip_padding": Look(PURPLE, "^"),
    "cross_attention": Look(SKY, "o"),
    "ca_attenuation": Look(SKY, "s"),
    "guard": Look(SKY, "D"),
    "nemo": Look(SKY, "^"),
    "sail": Look(GRAY, "o"),
    "captain_noise": Look(GRAY, "s"),
    "stability_regions": Look(GRAY, "p"),
}
# A method that the table does not have, such as somebody's new one: it stands out.
NEW = (Look(BLACK, "*"), Look(BLACK, "P"), Look(BLACK, "p"), Look(BLACK, "h"))


def looks_of(methods: list[str]) -> dict[str, Look]:
    """Method -> its look. The new ones have theirs by their order."""
    new = [name for name in dict.fromkeys(methods) if name not in LOOKS]
    found = {name: LOOKS[name] for name in methods if name in LOOKS}
    return found | {name: NEW[i % len(NEW)] for i, name in enumerate(new)}


@contextmanager
def style() -> Iterator[None]:
    """Inside, matplotlib draws in the suite's style, without a screen."""
    matplotlib.use("Agg")
    with styles.context(str(STYLE)):
        yield


def new_figure(height: float, width: float = COLUMN) -> Figure:
    """A figure in inches, whose parts do not overlap. Inside `style`."""
    return figures.Figure(figsize=(width, height), layout="constrained")


def plain(text: str) -> str:
    """Text from a file as matplotlib shows it: a dollar begins no formula."""
    return text.replace("$", r"\$")


def shorter(text: str, letters: int) -> str:
    """At most so many letters of a text, in one line, as a label."""
    text = " ".join(text.split())
    return plain(text if len(text) <= letters else f"{text[: letters - 1]}…")


def drawn(draw: Callable[[], Figure], kind: str = "png") -> bytes:
    """What `draw` gives, in the suite's style, as a file of that kind."""
    with style():
        return picture(draw(), kind, {})


def picture(figure: Figure, kind: str, facts: Mapping[str, str]) -> bytes:
    """The figure as a file, the same bytes each time. Inside `style`.

    kind: png or pdf. facts: what the file says of itself, such as Title.
    """
    told = dict(facts)
    if kind == "pdf":
        known = ("Title", "Author", "Subject", "Keywords")
        told = {name: text for name, text in facts.items() if name in known}
        told["CreationDate"] = None  # type: ignore[assignment]
    data = io.BytesIO()
    figure.savefig(data, format=kind, metadata=told or None)
    return data.getvalue()
