"""The summary of a page: which run copies least of each kind of caption, at what price, whether the
difference is sure; and all runs by kinds.
"""

from __future__ import annotations

import math
import statistics
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
from memorization_suite.runs.text import counted

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
        text = f"{half_up(100 * value):{sign}d}" if self.copies else f"{value:{sign}.3f}"
        if not any(digit in text for digit in "123456789"):
            text = text.lstrip("+-")
        return text.replace("-", "\N{MINUS SIGN}")

    def interval(self, mean: Mean, sign: str = "") -> str:
        """`[3, 10]`; empty where there is none."""
        if math.isnan(mean.low):
            return ""
        return f"[{self.text(mean.low, sign)}, {self.text(mean.high, sign)}]"


def half_up(value: float) -> int:
    """The nearest whole number, of two the one farther from zero: 58 for 57.5, and for 37.5 38."""
    return int(math.copysign(math.floor(abs(value) + 0.5 + 1e-9), value))


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
    # Whether no other of its column is better.
    best: bool = False


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
    mark_best(rows)
    return Heat(measures, kinds, rows)


def mark_best(rows: list[list[Cell]]) -> None:
    """Marks the cells of each column that are best, if not all are alike."""
    for column in range(len(rows[0]) if rows else 0):
        heats = {heat for row in rows if (heat := row[column].heat) is not None}
        if len(heats) < 2:
            continue
        least = min(heats)
        for row in rows:
            row[column] = replace(row[column], best=row[column].heat == least)


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


# --- the best of each kind


@dataclass(frozen=True)
class Told:
    """A cell of the table of the best runs."""

    text: str
    # Below it, small.
    interval: str = ""
    note: str = ""


@dataclass(frozen=True)
class Change(Told):
    """How a measure differs between two runs on equal prompts and seeds."""

    # Whether the interval leaves out zero.
    sure: bool = False


@dataclass(frozen=True)
class Answer:
    """Which run copies least of the captions of a kind, and what it costs."""

    kind: str
    captions: int
    best: str
    share: Told
    # Others that copy as little.
    tied: tuple[str, ...] = ()
    # The run without a mitigation that it is compared with; empty if it is that one.
    reference: str = ""
    change: Change | None = None
    # The other measures, in their order; None where there is no pair.
    price: tuple[Change | None, ...] = ()
    cost: Told | None = None
    # The next one, its share, and the difference to it.
    next: str = ""
    next_share: Told | None = None
    next_change: Change | None = None


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
    """Shares of copies with their runs, the least first; of equal ones the better aligned, then the
    cheaper.
    """
    copies, *others = measures
    shares = []
    for reported in runs:
        mean = copies.mean_of(line_of(reported, copies, kind))
        if mean is not None and not math.isnan(mean.mean):
            shares.append((mean, reported))

    def rank(entry: tuple[Mean, Reported]) -> tuple[float, ...]:
        mean, reported = entry
        after = [measure.mean_of(line_of(reported, measure, kind)) for measure in others[:1]]
        aligned = [-each.mean if each else math.inf for each in after]
        return mean.mean, *aligned, evals_of_kind(reported, kind)

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
        share=share_told(copies, least, line_of(best, copies, kind)),
        tied=tuple(each.title for mean, each in shares[1:] if mean.mean == least.mean),
        next=other.title,
        next_share=share_told(copies, second, line_of(other, copies, kind)),
        next_change=compared(copies, other, best, kind),
    )
    reference = reference_of(best, runs)
    if reference is None:
        return found
    return replace(
        found,
        reference=reference.title,
        change=compared(copies, reference, best, kind),
        price=tuple(compared(each, reference, best, kind) for each in others),
        cost=cost_told(best, reference, kind),
    )


def captions_of(copies: Measure, best: Reported, kind: str) -> set[int | None]:
    """The prompts of a kind that the share of copies is of: those with scores."""
    name = (copies.quantity.name, copies.variant)
    scored = (row for row in best.results if (row.quantity, row.variant) == name)
    return {row.prompt_index for row in scored if is_of(best, row.prompt_index, kind)}


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


def compared(measure: Measure, before: Reported, after: Reported, kind: str) -> Change | None:
    """The change of a measure on equal prompts and seeds of a kind; None where there are none."""
    name = (measure.quantity.name, measure.variant)
    pairs = pairs_of(before.results, after.results).get(name, [])
    pairs = [pair for pair in pairs if is_of(after, pair.prompt, kind)]
    if not pairs:
        return None
    mean = measure.change_of(pairs)
    if mean.mean == 0 and math.isnan(mean.low):
        level = measure.mean_of(line_of(after, measure, kind))
        both = f"{measure.text(level.mean)} in both, " if level else ""
        return Change("as before", note=f"{both}of {counted(len(pairs), 'image')}")
    points = " points" if measure.copies else ""
    wanted = (mean.mean > 0) == (measure.quantity.better == "higher")
    verdict = "sure" if is_sure(mean) else "not sure"
    note = f"{'better' if wanted else 'worse'}, {verdict}" if mean.mean else verdict
    return Change(
        measure.text(mean.mean, "+") + points,
        measure.interval(mean, "+") or "no interval",
        note,
        sure=is_sure(mean),
    )


def share_told(copies: Measure, mean: Mean, line: Line | None) -> Told:
    """`5 %`; of how many images where some have no score."""
    some = line is not None and line.n < line.total
    note = f"of {line.n} images with scores, of {line.total}" if line and some else ""
    return Told(f"{copies.text(mean.mean)}\N{NO-BREAK SPACE}%", copies.interval(mean), note)


def evals_of_kind(reported: Reported, kind: str) -> float:
    """Mean NFE of the images of a kind; infinite where it is not known."""
    evals = [
        value
        for row, values in reported.evals.items()
        if is_of(reported, row, kind)
        for value in values
    ]
    known = evals and all(map(math.isfinite, evals))
    return statistics.fmean(evals) if known else math.inf


def cost_told(best: Reported, reference: Reported, kind: str) -> Told | None:
    """`140 instead of 100`, NFE an image of that kind; None where it is not known."""
    after, before = evals_of_kind(best, kind), evals_of_kind(reference, kind)
    if math.inf in (after, before):
        return None
    return Told(f"{after:.0f}", note=f"instead of {before:.0f}")
