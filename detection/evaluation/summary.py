"""What is reported of a detector's scores: figures with their intervals, as numbers and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from memorization_suite.detection.evaluation.roc import (
    Curves,
    Figure,
    Scores,
    check,
    curve,
    intervals,
)
from memorization_suite.detection.evaluation.score_files import PromptScore, read_scores
from memorization_suite.runs.lazy import np

RATES = (0.01, 0.03)
SWAPPED = "AUC below 0.5: is the sign or are the sets swapped?"
# The sets as a summary calls them, and as people do.
ENDS = {"positives": "memorized", "negatives": "ordinary"}


def summarize(
    positives: Scores,
    negatives: Scores,
    rule: str = "at_most",
    fprs: Sequence[float] = RATES,
    seed: int = 0,
) -> dict:
    """Figures of two sets of scores, one a prompt: `auc`, `tpr_at_0.01` (for each of fprs) and
    `accuracy`, each with `_low` and `_high` of its 95 % interval; the numbers of `positives` and
    `negatives` that count, `resolution` = 1 / negatives (FPR moves in steps of it), and how many
    scores were left out because they are not finite (`left_out_positives`, `left_out_negatives`).
    With the rule nearest also `fpr_at_0.01`, the rate at which the TPR was read off.

    The figures are None where a set has no score left, the intervals where resampling gives none,
    see `runs/spread.py`. Labels are never flipped. Raises ValueError for an unknown rule or a rate
    outside (0, 1).
    """
    check(rule, fprs)
    memorized = finite(positives)
    ordinary = finite(negatives)
    summary: dict = {
        "positives": len(memorized),
        "negatives": len(ordinary),
        "left_out_positives": len(positives) - len(memorized),
        "left_out_negatives": len(negatives) - len(ordinary),
        "resolution": 1 / len(ordinary) if len(ordinary) else None,
        "rule": rule,
    }
    figures: dict[str, Figure] = {"auc": Curves.auc}
    for fpr in fprs:
        figures[tpr_name(fpr)] = partial(Curves.tpr_at, fpr=fpr, rule=rule)
    figures["accuracy"] = Curves.accuracy
    if not len(memorized) or not len(ordinary):
        for name in figures:
            summary |= figure_with_ends(name, None, (math.nan, math.nan))
        return summary
    curves = curve(memorized, ordinary)
    ends = intervals(memorized, ordinary, list(figures.values()), seed=seed)
    for (name, figure), interval in zip(figures.items(), ends):
        summary |= figure_with_ends(name, float(figure(curves)[0]), interval)
    if rule == "nearest":
        summary |= {fpr_name(fpr): float(curves.nearest_fpr(fpr)[0]) for fpr in fprs}
    return summary


def figure_with_ends(name: str, value: float | None, interval: tuple[float, float]) -> dict:
    """The figure and both ends of its interval by name; None in the place of an interval of nan."""
    low, high = interval
    missing = math.isnan(low)
    return {
        name: value,
        f"{name}_low": None if missing else low,
        f"{name}_high": None if missing else high,
    }


def finite(scores: Scores) -> np.ndarray:
    """The scores that are finite numbers."""
    values = np.asarray(scores, dtype=float)
    return values[np.isfinite(values)]


def tpr_name(fpr: float) -> str:
    """`tpr_at_0.01`, with all digits: two rates are two names."""
    return f"tpr_at_{fpr}"


def fpr_name(fpr: float) -> str:
    """`fpr_at_0.01`."""
    return f"fpr_at_{fpr}"


def percent(fpr: float) -> str:
    """`TPR@1%FPR`."""
    return f"TPR@{100 * fpr:.12g}%FPR"


def tpr_text(summary: dict, fpr: float) -> str:
    """The TPR with its interval, and the rate at which it was read off, if that is another."""
    text = figure_text(summary, tpr_name(fpr))
    read_at = summary.get(fpr_name(fpr), fpr)
    return text if read_at == fpr else f"{text} at {100 * read_at:.2f}%"


def has_no_interval(summary: dict) -> bool:
    """Whether there is a figure that has none."""
    ends = [name for name in summary if name.endswith("_low")]
    return any(
        summary[end] is None and summary[end.removesuffix("_low")] is not None for end in ends
    )


def figure_text(summary: dict, name: str) -> str:
    """`0.987 [0.950, 1.000]`; `0.987` without an interval, a dash without a value."""
    if summary[name] is None:
        return "-"
    text = f"{summary[name]:.3f}"
    low = summary[f"{name}_low"]
    high = summary[f"{name}_high"]
    return text if low is None else f"{text} [{low:.3f}, {high:.3f}]"


def warnings_of(summary: dict) -> list[str]:
    """What a reader must know before believing the figures."""
    warnings = []
    for end, name in ENDS.items():
        left_out = summary[f"left_out_{end}"]
        if left_out:
            warnings.append(
                f"{left_out} of {left_out + summary[end]} {name} prompts are left out: "
                "their score is not a finite number"
            )
    if summary["auc"] is not None and summary["auc"] < 0.5:
        warnings.append(SWAPPED)
    return warnings


def report_line(
    path: Path, *, rule: str = "at_most", fprs: Sequence[float] = RATES, seed: int = 0
) -> str:
    """AUC and TPR of a scores.csv with their intervals, and the numbers of prompts; says so when it
    holds one set alone.

    Raises ValueError when the file cannot be read.
    """
    sets = read_scores(path)
    memorized = scores_of(sets.get("mem", []))
    ordinary = scores_of(sets.get("nonmem", []))
    summary = summarize(memorized, ordinary, rule, fprs, seed)
    warnings = "".join(f". {warning}" for warning in warnings_of(summary))
    numbers = ", ".join(f"{summary[end]} {name}" for end, name in ENDS.items())
    if summary["auc"] is None:
        numbers = f"{max(len(memorized), len(ordinary))} prompts"
        return f"no AUC: it needs --prompts and --nonmem_prompts; here are {numbers}{warnings}"
    figures = [f"AUC {figure_text(summary, 'auc')}"]
    figures += [f"{percent(fpr)} {tpr_text(summary, fpr)}" for fpr in fprs]
    return f"{', '.join(figures)} ({numbers} prompts){warnings}"


def highest(path: Path, most: int = 10) -> list[str]:
    """The prompts of a scores.csv whose means are largest, a line each; one whose mean is not
    finite has no place. Raises ValueError.
    """
    entries = [entry for entries in read_scores(path).values() for entry in entries]
    entries = [entry for entry in entries if math.isfinite(entry.score)]
    entries.sort(key=lambda entry: -entry.score)
    lines = [f"  {entry.score:.4g}  {entry.prompt}" for entry in entries[:most]]
    if len(entries) > most:
        lines.append(f"  and {len(entries) - most} more with smaller means")
    return lines


def scores_of(entries: Sequence[PromptScore]) -> list[float]:
    """The scores alone."""
    return [entry.score for entry in entries]
