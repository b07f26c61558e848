"""Rank correlation over the seeds of a prompt, and its mean over prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

from memorization_suite.experiments.evidence.resampling import Estimate, mean_of
from memorization_suite.runs.lazy import Lazy, np

stats = Lazy("scipy.stats")

Pairs = Sequence[tuple[float, float]]
# Seeds of a prompt that have both quantities, for a rank.
FEWEST = 10


@dataclass(frozen=True)
class Association:
    """Rank correlation of two quantities over the seeds of each prompt."""

    # Mean over prompts, with its interval over clusters of prompts.
    mean: Estimate
    # Prompt -> its correlation; prompts without one are left out.
    of_prompts: dict[int, float]
    # Prompts whose seeds all have the same value of one of the two, or of which too few have both.
    unranked: int
    # Clusters of the prompts that have a rank.
    clusters: int
    # Fewest seeds of a prompt, whether they have both quantities or not.
    seeds: int
    # Share of all seeds that have both.
    both: float


def spearman(pairs: Pairs) -> float:
    """Spearman's rank correlation, in [-1, 1]; ties have their mean rank. No number where one side
    is constant. Infinity (never) ranks last. Raises ValueError for a value that is no number.
    """
    if len(pairs) < 2:
        return nan
    sides = np.asarray(pairs, dtype=float).T
    if np.isnan(sides).any():
        raise ValueError("a rank needs numbers")
    x, y = (stats.rankdata(side) for side in sides)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return nan
    return float(np.corrcoef(x, y)[0, 1])


def association(
    pairs: Mapping[int, Pairs], seeds: Mapping[int, int], clusters: Mapping[int, int]
) -> Association:
    """Rank correlations of every prompt and their mean.

    pairs: prompt -> two values of each seed that has both. seeds: how many a prompt has. clusters:
    prompt -> label of those that share training images; a prompt that it lacks is alone.
    """
    enough = {prompt: values for prompt, values in pairs.items() if len(values) >= FEWEST}
    found = {prompt: spearman(values) for prompt, values in enough.items()}
    ranked = {prompt: value for prompt, value in found.items() if not np.isnan(value)}
    labels = [clusters.get(prompt, prompt) for prompt in ranked]
    return Association(
        mean_of(list(ranked.values()), labels),
        ranked,
        unranked=len(seeds) - len(ranked),
        clusters=len(set(labels)),
        seeds=min(seeds.values(), default=0),
        both=sum(map(len, pairs.values())) / max(1, sum(seeds.values())),
    )
