"""The summary of a page: methods by kinds of memorization, and in words which one copies least, at
what price, and whether the difference is sure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from memorization_suite.commands.report.gather import (
    Reported,
    first_quantity,
    of_alignment,
    of_copies,
)
from memorization_suite.metrics.base import Quantity, quantities_of
from memorization_suite.metrics.comparison import is_unmitigated, references_of
from memorization_suite.metrics.intervals import Mean
from memorization_suite.metrics.paired import Pair, change, change_of_copies, is_sure, pairs_of
from memorization_suite.metrics.summary import ALL, Line

# Types of prompts -> what they say of memorization.
KINDS = {
    "VM": "verbatim",
    "MV": "verbatim",
    "TM": "template",
    "TV": "template",
    "LM": "local",
    "RV": "retrieved verbatim",
    "N": "not memorized",
}


def kind_title(kind: str) -> str:
    """`template (TM)`; other types as they are."""
    if kind == ALL:
        return "all captions"
    return f"{KINDS[kind]} ({kind})" if kind in KINDS else kind


@dataclass(frozen=True)
class Measure:
    """What a block of the heat table shows."""

    quantity: Quantity
    variant: str
    # Share of copies by the strictest threshold, else the mean.
    copies: bool = False

    @property
    def title(self) -> str:
        return "share of copies" if self.copies else self.quantity.role

    @property
    def note(self) -> str:
        """Which values one wants, and what they are."""
        if self.copies:
            return f"%, less is better; {self.quantity.name} ≥ {self.quantity.thresholds[-1]:g}"
        better = "more" if self.quantity.better == "higher" else "less"
        return f"{self.quantity.name}, {better} is better"

    def mean_of(self, line: Line | None) -> Mean | None:
        """Its figure in a line of a summary."""
        if line is None or self.copies:
            return line.copies if line else None
        return Mean(line.mean, line.low, line.high)

    def change_of(self, pairs: Iterable[Pair]) -> Mean:
        """Its change on the same images."""
        if self.copies:
            return change_of_copies(pairs, self.quantity.thresholds[-1])
        return change(pairs)

    def text(self, value: float, sign: str = "") -> str:
        """The figure for people; of copies in percent, without the sign of it."""
        if math.isnan(value):
            return "–"
        text = f"{100 * value:{sign}.0f}" if self.copies else f"{value:{sign}.3f}"
        if not any(digit in text for digit in "123456789"):
            text = text.lstrip("+-")
        return text.replace("-", "\N{MINUS SIGN}")

    def interval(self, mean: Mean, sign: str = "") -> str:
        """`[3, 10]`; empty where there is none."""
        if math.isnan(mean.low):
            return ""
        return f"[{self.text(mean.low, sign)}, {self.text(mean.high, sign)}]"


def measures_of(runs: Sequence[Reported]) -> list[Measure]:
    """Copies, alignment and quality, as far as a run has them."""
    every = list(runs)
    copies = of_copies()
    measures = []
    for quantities in (copies, of_alignment(), quantities_of("quality")):
        quantity = first_quantity(quantities, every)
        variant = variant_of(quantity.name, every) if quantity else None
        if quantity and variant is not None:
            measures.append(Measure(quantity, variant, copies=quantities is copies))
    return measures


def variant_of(quantity: str, runs: Iterable[Reported]) -> str | None:
    """The first variant in which a run has it."""
    for reported in runs:
        for line in reported.lines:
            if line.quantity == quantity and line.n:
                return line.variant
    return None


# --- the heat table


@dataclass(frozen=True)
class Cell:
    """A figure of the heat table."""

    text: str
    interval: str = ""
    n: str = ""
    # From 0 (the best of its block) to 1; None without a figure.
    heat: float | None = None


@dataclass(frozen=True)
class Heat:
    """Runs by measures and kinds."""

    measures: list[Measure]
    kinds: list[str]
    # A row a run, the measures' kinds one after the other.
    rows: list[list[Cell]]


def heat_table(runs: Sequence[Reported], measures: list[Measure], kinds: list[str]) -> Heat:
    """The table; kinds: all, and the types."""
    rows: list[list[Cell]] = [[] for _ in runs]
    for measure in measures:
        lines = [[line_of(reported, measure, kind) for kind in kinds] for reported in runs]
        means = [measure.mean_of(line) for row in lines for line in row]
        values = [mean.mean for mean in means if mean and not math.isnan(mean.mean)]
        for row, of_run in zip(rows, lines):
            row += [cell(measure, line, values) for line in of_run]
    return Heat(measures, kinds, rows)


def line_of(reported: Reported, measure: Measure, kind: str) -> Line | None:
    """The summary that a cell is of."""
    return reported.line(measure.quantity.name, measure.variant, kind)


def cell(measure: Measure, line: Line | None, values: Sequence[float]) -> Cell:
    """A cell of the block that has these values."""
    mean = measure.mean_of(line)
    if line is None or mean is None or math.isnan(mean.mean):
        return Cell("–")
    low, high = (0.0, 1.0) if measure.copies else (min(values), max(values))
    share = (mean.mean - low) / (high - low) if high > low else 0.0
    if measure.quantity.better == "higher":
        share = 1 - share if high > low else 0.0
    n = f"{line.n} of {line.total} images"
    return Cell(measure.text(mean.mean), measure.interval(mean), n, round(share, 3))


# --- in words


@dataclass(frozen=True)
class Compared:
    """A change between two runs in words."""

    # `45 points less [-60, -30]`.
    text: str
    # Whether the interval leaves out zero.
    sure: bool
    # Whether all images, or all prompts, are as before.
    equal: bool = False

    @property
    def verdict(self) -> str:
        """What a reader may say of it."""
        if self.equal:
            return "no difference"
        return "sure" if self.sure else "not sure"


@dataclass(frozen=True)
class Answer:
    """Which run copies least of the captions of a kind, and what it costs."""

    kind: str
    captions: int
    best: str
    share: str
    # The run that it is compared with; empty if it is that one.
    reference: str = ""
    change: Compared | None = None
    # What else changes: (name, change).
    price: tuple[tuple[str, Compared], ...] = ()
    cost: str = ""
    # The next one, its share, and the difference to it.
    next: str = ""
    next_share: str = ""
    next_change: Compared | None = None


def answers(
    runs: Sequence[Reported], measures: Sequence[Measure], kinds: Sequence[str]
) -> list[Answer]:
    """One for each kind of which two runs have shares of copies; runs: of equal seeds."""
    if not measures or not measures[0].copies:
        return []
    found = []
    for kind in kinds:
        shares = shares_of(runs, measures, kind)
        if len(shares) > 1:
            found.append(answer(runs, measures, kind, shares))
    return found


def shares_of(
    runs: Sequence[Reported], measures: Sequence[Measure], kind: str
) -> list[tuple[Mean, Reported]]:
    """Shares of copies with their runs, the least first; of equal ones the better aligned."""
    copies, *others = measures
    shares = []
    for reported in runs:
        mean = copies.mean_of(line_of(reported, copies, kind))
        if mean is not None and not math.isnan(mean.mean):
            shares.append((mean, reported))

    def rank(entry: tuple[Mean, Reported]) -> tuple[float, ...]:
        mean, reported = entry
        after = [measure.mean_of(line_of(reported, measure, kind)) for measure in others[:1]]
        return mean.mean, *(-each.mean for each in after if each)

    return sorted(shares, key=rank)


def answer(
    runs: Sequence[Reported],
    measures: Sequence[Measure],
    kind: str,
    shares: list[tuple[Mean, Reported]],
) -> Answer:
    """Of one kind. shares: the least first, two or more."""
    copies, *others = measures
    (least, best), (second, other), *_ = shares
    found = Answer(
        kind=kind_title(kind),
        captions=len(captions_of(copies, best, kind)),
        best=best.title,
        share=share_text(copies, least, line_of(best, copies, kind)),
        next=other.title,
        next_share=share_text(copies, second, line_of(other, copies, kind)),
        next_change=compared(copies, other, best, kind),
    )
    reference = reference_of(best, runs)
    if reference is None:
        return found
    changes = [(name_of(each), compared(each, reference, best, kind)) for each in others]
    return replace(
        found,
        reference=reference.title,
        change=compared(copies, reference, best, kind),
        price=tuple((name, each) for name, each in changes if each),
        cost=cost_text(best, reference),
    )


def captions_of(copies: Measure, best: Reported, kind: str) -> set[int | None]:
    """The prompts of a kind that the share of copies is of: those with scores."""
    name = (copies.quantity.name, copies.variant)
    scored = (row for row in best.results if (row.quantity, row.variant) == name)
    return {row.prompt_index for row in scored if is_of(best, row.prompt_index, kind)}


def name_of(measure: Measure) -> str:
    """`alignment (clip_gen)`."""
    return f"{measure.title} ({measure.quantity.name})"


def reference_of(best: Reported, runs: Sequence[Reported]) -> Reported | None:
    """The run without a mitigation that a run is compared with; None for that one itself."""
    by_folder = {reported.run.folder: reported for reported in runs}
    folder = references_of(list(by_folder)).get(best.run.folder)
    if folder is None or is_unmitigated(best.run.folder) or not is_unmitigated(folder):
        return None
    return by_folder[folder]


def is_of(reported: Reported, row: int | None, kind: str) -> bool:
    """Whether a prompt is of a kind."""
    return kind == ALL or (row is not None and reported.run.prompts[row].type == kind)


def compared(measure: Measure, before: Reported, after: Reported, kind: str) -> Compared | None:
    """The change of a measure on the same images of a kind; None where there are none."""
    name = (measure.quantity.name, measure.variant)
    pairs = pairs_of(before.results, after.results).get(name, [])
    pairs = [pair for pair in pairs if is_of(after, pair.prompt, kind)]
    if not pairs:
        return None
    mean = measure.change_of(pairs)
    points = " points" if measure.copies else ""
    equal = mean.mean == 0 and math.isnan(mean.low)
    interval = measure.interval(mean, "+") or ("" if equal else "(no interval)")
    text = f"{measure.text(mean.mean, '+')}{points} {interval}".strip()
    return Compared(text, is_sure(mean), equal)


def share_text(copies: Measure, mean: Mean, line: Line | None) -> str:
    """`5 % [0, 12] of its images`; of how many where some have no score."""
    text = f"{copies.text(mean.mean)} % {copies.interval(mean)}".strip()
    if line is None or line.n == line.total:
        return f"{text} of its images"
    return f"{text} of its {line.n} images with scores, of {line.total}"


def cost_text(best: Reported, reference: Reported) -> str:
    """`140 NFE an image instead of 100`; empty where it is not known."""
    costs = [reported.costs.get("unet_evals") for reported in (best, reference)]
    if None in costs:
        return ""
    return f"{costs[0]:.0f} NFE an image instead of {costs[1]:.0f}"
