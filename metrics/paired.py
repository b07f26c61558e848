"""How scores change from one run to another, on the same images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from memorization_suite.metrics.intervals import Mean, is_copy, mean_over_prompts
from memorization_suite.runs.spread import exact_interval
from memorization_suite.runs.table import Result

# Prompts of which no two change otherwise: fewer would do so by chance in 1 of 16 cases or more.
ONE_WAY = 6


@dataclass(frozen=True)
class Pair:
    """A score of an image, or of a whole prompt, in two runs."""

    prompt: int
    before: float
    after: float


def pairs_of(first: Iterable[Result], other: Iterable[Result]) -> dict[tuple[str, str], list[Pair]]:
    """(quantity, variant) -> what both runs have a value of; of whole runs nothing.

    first, other: the values that count, see `summary.counted`.
    """
    before = {row.measurement: row.value for row in first}
    pairs: dict[tuple[str, str], list[Pair]] = {}
    for row in other:
        if row.measurement in before and row.prompt_index is not None:
            pair = Pair(row.prompt_index, before[row.measurement], row.value)
            pairs.setdefault((row.quantity, row.variant), []).append(pair)
    return pairs


def change(pairs: Iterable[Pair]) -> Mean:
    """Mean of after - before over prompts, with its interval."""
    return mean_over_prompts((pair.prompt, pair.after - pair.before) for pair in pairs)


def change_of_copies(pairs: Iterable[Pair], threshold: float) -> Mean:
    """The same of the share of copies: after - before, in [-1, 1]. Where every image became a copy,
    or none is one any more, the interval is exact.
    """
    changes = []
    for pair in pairs:
        before = is_copy(pair.before, threshold)
        after = is_copy(pair.after, threshold)
        changes.append((pair.prompt, after - before))
    mean = mean_over_prompts(changes)
    prompts = len({prompt for prompt, _ in changes})
    if abs(mean.mean) != 1 or prompts < ONE_WAY:
        return mean
    least, most = exact_interval(1.0, prompts)
    low, high = (least, most) if mean.mean == 1 else (-most, -least)
    return Mean(mean.mean, low, high)


def is_sure(mean: Mean) -> bool:
    """Whether the interval of a change leaves out zero; without an interval it is not."""
    return mean.low > 0 or mean.high < 0
