"""What a file of an experiment may ask for beside its runs: figures, tables, claims.

Each kind is a class in a file of experiments/figures, experiments/tables or experiments/claims; its
fields are the keys of a section.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from memorization_suite.experiments.evidence.resampling import Estimate
from memorization_suite.experiments.evidence.runs import Evidence
from memorization_suite.runs.formats import Cell, Listed
from memorization_suite.runs.registry import Registry
from memorization_suite.runs.settings import Settings, flag

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["CLAIMS", "FIGURES", "TABLES", "Cell", "Claim", "Drawn", "Figure", "Listed", "Table"]
__all__ += ["flag"]


@dataclass(frozen=True)
class Drawn:
    """A figure, and what stands below it."""

    figure: matplotlib.figure.Figure
    # Sentences: what is drawn, of how many prompts and images.
    caption: str


# What a test may come to.
HOLDS = "holds"
IN_PART = "holds in part"
NOT = "does not hold here"
UNTESTED = "not tested"


@dataclass(frozen=True)
class Tested:
    """What a test came to, and by which numbers."""

    verdict: str
    # The number that decides, and its bound, in words.
    numbers: str
    # For files: what it is of -> number.
    values: dict[str, Estimate] = field(default_factory=dict)


class TooFew(ValueError):
    """There are too few prompts, seeds or noises for a verdict."""


class Figure(Settings):
    """A kind of figure."""

    name: ClassVar[str]

    def draw(self, evidence: Evidence) -> Drawn:
        """Inside the suite's style. Raises ValueError for what the runs do not have."""
        raise NotImplementedError


class Table(Settings):
    """A kind of table."""

    name: ClassVar[str]

    def list(self, evidence: Evidence) -> Listed:
        """Raises ValueError for what the runs do not have."""
        raise NotImplementedError


class Claim(Settings):
    """A kind of test."""

    name: ClassVar[str]

    def about(self) -> str:
        """What is tested, in words."""
        raise NotImplementedError

    def test(self, evidence: Evidence) -> Tested:
        """Raises ValueError for what the runs do not have, TooFew where they do not suffice."""
        raise NotImplementedError


FIGURES: Registry[Figure] = Registry("figure", "experiments.figures")
TABLES: Registry[Table] = Registry("table", "experiments.tables")
CLAIMS: Registry[Claim] = Registry("claim", "experiments.claims")


def verdict_of(found: Estimate, *, above: float | None = None, below: float | None = None) -> str:
    """Whether a number is above a bound, or below one: with its whole interval, alone, or not."""
    if below is not None:
        return verdict_of(Estimate(-found.value, -found.high, -found.low), above=-below)
    bound = above or 0.0
    if found.low > bound:
        return HOLDS
    return IN_PART if found.value > bound else NOT


def bound_text(above: float | None, below: float | None) -> str:
    """`above 0`."""
    return f"above {above or 0:g}" if below is None else f"below {below:g}"


def all_of(verdicts: Sequence[str]) -> str:
    """Of several tests: of all, of some, of none."""
    if all(verdict == HOLDS for verdict in verdicts):
        return HOLDS
    return NOT if all(verdict == NOT for verdict in verdicts) else IN_PART


def number(found: Estimate, digits: int = 3) -> Cell:
    """A cell of a number with its interval."""
    if found.value != found.value:
        return Cell("-", found)
    text = f"{found.value:.{digits}f}"
    if found.low == found.low:
        text += f" [{found.low:.{digits}f}, {found.high:.{digits}f}]"
    return Cell(text, found)


def counts(evidence: Evidence, runs: list) -> str:
    """`12 prompts (10 VM A, 2 TM), 4 images of each`, of the runs that a figure is of."""
    prompts = {len(run.prompts) for run in runs}
    images = {len(run.costs) // max(1, len(run.prompts)) for run in runs}
    kinds = Counter(kind for prompt in runs[0].prompts if (kind := runs[0].kinds.get(prompt)))
    of_kinds = f" ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})" * bool(kinds)
    return (
        f"{span(prompts)} prompts{of_kinds}, {span(images)} images of each; "
        f"{', '.join(evidence.models)}"
    )


def span(values: set[int]) -> str:
    """`4`, or `2 to 4`."""
    return f"{min(values)}" if len(values) == 1 else f"{min(values)} to {max(values)}"
