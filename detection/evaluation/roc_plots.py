"""ROC curves of detectors and histograms of their scores, as PNG."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from memorization_suite.detection.evaluation.roc import curve
from memorization_suite.detection.evaluation.summary import finite
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.lazy import np
from memorization_suite.runs.plots import (
    COLUMN,
    CYCLE,
    GRAY,
    ORANGE,
    PAGE,
    SKY,
    drawn,
    new_figure,
    shorter,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Scores of memorized and of ordinary prompts.
Sets: TypeAlias = "tuple[np.ndarray, np.ndarray]"
LINES = ("-", "--", ":", "-.")


def write_plots(
    folder: Path, detectors: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> None:
    """`roc.png`, `roc_log.png` with all detectors, and `scores_<name>.png` for each; scores that
    are not finite are left out.

    detectors: name -> scores of memorized and of ordinary prompts. A detector without two sets has
    no plot. Raises OSError.
    """
    whole: dict[str, Sets] = {}
    for name, (memorized, ordinary) in detectors.items():
        sets = (finite(memorized), finite(ordinary))
        if len(sets[0]) and len(sets[1]):
            whole[name] = sets
    if whole:
        write_bytes(folder / "roc.png", drawn(partial(roc_figure, whole, log=False)))
        write_bytes(folder / "roc_log.png", drawn(partial(roc_figure, whole, log=True)))
    for (name, sets), stem in zip(whole.items(), file_stems(list(whole))):
        write_bytes(folder / f"scores_{stem}.png", drawn(partial(histogram, name, *sets)))


def file_stems(names: Sequence[str]) -> list[str]:
    """A different plain file name for each name: letters, digits, dot, dash and underscore of at
    most 80 letters.
    """
    stems: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-80:].strip("-.") or "detector"
        taken = {stem.lower() for stem in stems}
        stem = plain
        number = 2
        while stem.lower() in taken:
            stem = f"{plain}_{number}"
            number += 1
        stems.append(stem)
    return stems


def roc_figure(detectors: Mapping[str, Sets], *, log: bool) -> Figure:
    """One line a detector. log: false-positive rates on a logarithmic axis, where 0 stands at the
    left edge.
    """
    figure = new_figure(3.9, PAGE)
    axes = figure.subplots()
    left = 0.5 / max(len(negatives) for _, negatives in detectors.values())
    for i, (name, sets) in enumerate(detectors.items()):
        points = curve(sets[0], sets[1])
        fpr = points.fpr[0]
        axes.plot(
            np.maximum(fpr, left) if log else fpr,
            points.tpr[0],
            color=CYCLE[i % len(CYCLE)],
            linestyle=LINES[i // len(CYCLE) % len(LINES)],
            label=f"AUC {points.auc()[0]:.3f}  {shorter(name, 60)}",
        )
    chance = np.geomspace(left, 1, 200) if log else np.array([0, 1])
    axes.plot(chance, chance, color=GRAY, linewidth=0.6, label="chance")
    if log:
        axes.set_xscale("log")
    label_axes(axes, left if log else -0.01)
    figure.legend(loc="outside right upper")
    return figure


def label_axes(axes: Axes, left: float) -> None:
    """The frame of a ROC plot. left: where its false-positive rates begin."""
    axes.set(
        xlim=(left, 1),
        ylim=(-0.01, 1.01),
        xlabel="false-positive rate",
        ylabel="true-positive rate",
    )


def histogram(name: str, positives: np.ndarray, negatives: np.ndarray) -> Figure:
    """Share of each set's prompts in bins of the score; bins are logarithmic when scores are
    positive and span more than a factor of 30.
    """
    figure = new_figure(2.2, COLUMN)
    axes = figure.subplots()
    pooled = np.concatenate([positives, negatives])
    log = bool(pooled.min() > 0 and pooled.max() > 30 * pooled.min())
    edges = bin_edges(pooled, log=log)
    for scores, label, color in ((negatives, "ordinary", SKY), (positives, "memorized", ORANGE)):
        axes.hist(
            scores,
            edges.tolist(),
            weights=np.full(len(scores), 1 / len(scores)),
            alpha=0.6,
            color=color,
            label=f"{label} ({len(scores)})",
        )
    if log:
        axes.set_xscale("log")
    axes.set_title(shorter(name, 60))
    axes.set(xlabel="score (larger: more memorized)", ylabel="share of the set's prompts")
    axes.legend()
    return figure


def bin_edges(scores: np.ndarray, *, log: bool) -> np.ndarray:
    """Edges of 10 to 60 bins that hold all scores."""
    low = scores.min()
    high = scores.max()
    number = int(np.clip(np.sqrt(len(scores)), 10, 60))
    edges = np.geomspace(low, high, number + 1) if log else np.histogram_bin_edges(scores, number)
    edges[0] = min(edges[0], low)
    edges[-1] = max(edges[-1], high)
    return edges
