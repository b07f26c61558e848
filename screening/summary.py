"""What is reported of a detector's scores: figures with their intervals, as numbers and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from memorization_suite.screening.roc import Curves, Figure, Scores, check, curve, intervals
from memorization_suite.screening.score_files import PromptScore, read_scores

RATES = (0.01, 0.03)
SWAPPED = "AUC below 0.5: is the sign or are the sets swapped?"


def summarise(
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

    The figures are None where a set has no score left, the intervals where one has less than two.
    Labels are never flipped. Raises ValueError for an unknown rule or a rate outside (0, 1).
    """
    check(rule, fprs)
    good, bad = finite(positives), finite(negatives)
    found: dict = {
        "positives": len(good),
        "negatives": len(bad),
        "left_out_positives": len(positives) - len(good),
        "left_out_negatives": len(negatives) - len(bad),
        "resolution": 1 / len(bad) if len(bad) else None,
        "rule": rule,
    }
    figures: dict[str, Figure] = {
        "auc": Curves.auc,
        **{tpr_name(fpr): partial(Curves.tpr_at, fpr=fpr, rule=rule) for fpr in fprs},
        "accuracy": Curves.accuracy,
    }
    if not len(good) or not len(bad):
        return found | {name + end: None for name in figures for end in ("", "_low", "_high")}
    curves = curve(good, bad)
    for (name, figure), (low, high) in zip(
        figures.items(), intervals(good, bad, list(figures.values()), seed=seed)
    ):
        ends = (None, None) if math.isnan(low) else (low, high)
        found |= {name: float(figure(curves)[0]), f"{name}_low": ends[0], f"{name}_high": ends[1]}
    return found


def finite(scores: Scores) -> np.ndarray:
    """The scores that are finite numbers."""
    found = np.asarray(scores, dtype=float)
    return found[np.isfinite(found)]


def tpr_name(fpr: float) -> str:
    """`tpr_at_0.01`."""
    return f"tpr_at_{fpr:g}"


def percent(fpr: float) -> str:
    """`TPR@1%FPR`."""
    return f"TPR@{100 * fpr:g}%FPR"


def figure_text(summary: dict, name: str) -> str:
    """`0.987 [0.950, 1.000]`; a dash where there is none."""
    if summary[name] is None:
        return "-"
    low, high = summary[f"{name}_low"], summary[f"{name}_high"]
    return f"{summary[name]:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def warnings_of(summary: dict) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    for end, name in (("positives", "memorized"), ("negatives", "ordinary")):
        if summary[f"left_out_{end}"]:
            found.append(
                f"{summary[f'left_out_{end}']} of {summary[f'left_out_{end}'] + summary[end]} "
                f"{name} prompts are left out: "
                "their score is not a finite number"
            )
    return found + ([SWAPPED] if summary["auc"] is not None and summary["auc"] < 0.5 else [])


def report_line(
    path: Path, *, rule: str = "at_most", fprs: Sequence[float] = RATES, seed: int = 0
) -> str:
    """AUC and TPR of a scores.csv with their intervals, and the numbers of prompts; says so when it
    holds one set alone.

    Raises ValueError when the file cannot be read.
    """
    sets = read_scores(path)
    summary = summarise(
        scores_of(sets.get("mem", [])), scores_of(sets.get("nonmem", [])), rule, fprs, seed
    )
    ends = "".join(f". {warning}" for warning in warnings_of(summary))
    if summary["auc"] is None:
        numbers = ", ".join(
            f"{summary[end]} {name}"
            for end, name in (("positives", "memorized"), ("negatives", "ordinary"))
        )
        return f"no AUC: it needs scores of both sets; here are {numbers} prompts{ends}"
    shown = {"AUC": "auc", **{percent(fpr): tpr_name(fpr) for fpr in fprs}}
    return (
        ", ".join(f"{label} {figure_text(summary, name)}" for label, name in shown.items())
        + f" ({summary['positives']} memorized, {summary['negatives']} ordinary prompts){ends}"
    )


def scores_of(entries: Sequence[PromptScore]) -> list[float]:
    """The scores alone."""
    return [entry.score for entry in entries]


def table_text(rows: Sequence[dict[str, str]]) -> str:
    """Columns of equal width under their names; an empty column is left out."""
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    kept = [name for name in widths if any(row[name] for row in rows)]
    return "\n".join(
        "  ".join(row[name].ljust(widths[name]) for name in kept).rstrip()
        for row in [{name: name for name in widths}, *rows]
    )
