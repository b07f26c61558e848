"""ROC curves of detectors and histograms of their scores, as PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from memorization_suite.runs.files import write_bytes
from memorization_suite.screening.roc import curve
from memorization_suite.screening.summary import finite

Sets = tuple[np.ndarray, np.ndarray]  # of memorized and of ordinary prompts


def write_plots(
    folder: Path, detectors: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> None:
    """`roc.png`, `roc_log.png` with all detectors, and `scores_<name>.png` for each; scores that
    are not finite are left out.

    detectors: name -> scores of memorized and of ordinary prompts. A detector without two sets has
    no plot. Raises OSError.
    """
    kept = {name: (finite(first), finite(second)) for name, (first, second) in detectors.items()}
    kept = {name: sets for name, sets in kept.items() if len(sets[0]) and len(sets[1])}
    if kept:
        for log, file in ((False, "roc.png"), (True, "roc_log.png")):
            write_bytes(folder / file, png(roc_figure(kept, log=log)))
    for (name, sets), stem in zip(kept.items(), file_stems(list(kept))):
        write_bytes(folder / f"scores_{stem}.png", png(histogram(name, *sets)))


def file_stems(names: Sequence[str]) -> list[str]:
    """A different plain file name for each name: letters, digits, dot, dash and underscore of at
    most 80 letters.
    """
    found: list[str] = []
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-80:].strip("-.") or "detector"
        taken = {other.lower() for other in found}
        found.append(
            next(
                one
                for one in (stem, *(f"{stem}_{i}" for i in range(2, len(names) + 2)))
                if one.lower() not in taken
            )
        )
    return found


def roc_figure(detectors: Mapping[str, Sets], *, log: bool) -> Figure:
    """One line a detector. log: false-positive rates on a logarithmic axis, where 0 stands at the
    left edge.
    """
    figure = Figure(figsize=(6.5 + 2.5, 5), layout="constrained")
    axes = figure.subplots()
    left = 0.5 / max(len(negatives) for _, negatives in detectors.values())
    for i, (name, sets) in enumerate(detectors.items()):
        points = curve(sets[0], sets[1])
        fpr, tpr = points.fpr[0], points.tpr[0]
        axes.plot(
            np.maximum(fpr, left) if log else fpr,
            tpr,
            color=f"C{i % 10}",
            linestyle=("-", "--", ":", "-.")[i // 10 % 4],
            label=f"AUC {points.auc()[0]:.3f}  {name[:60]}",
        )
    chance = np.geomspace(left, 1, 200) if log else np.array([0, 1])
    axes.plot(chance, chance, color="0.7", linewidth=1, label="chance")
    if log:
        axes.set_xscale("log")
    axes.set(
        xlim=(left if log else -0.01, 1),
        ylim=(-0.01, 1.01),
        xlabel="false-positive rate",
        ylabel="true-positive rate",
    )
    axes.grid(alpha=0.3)
    for text in figure.legend(
        loc="outside right upper", fontsize="small", frameon=False
    ).get_texts():
        text.set_parse_math(False)  # a $ in a detector's name is a $
    return figure


def histogram(name: str, positives: np.ndarray, negatives: np.ndarray) -> Figure:
    """Share of each set's prompts in bins of the score; bins are logarithmic when scores are
    positive and span more than a factor of 30.
    """
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    pooled = np.concatenate([positives, negatives])
    low, high = pooled.min(), pooled.max()
    log = bool(low > 0 and high > 30 * low)
    number = int(np.clip(np.sqrt(len(pooled)), 10, 60))
    edges = np.geomspace(low, high, number + 1) if log else np.histogram_bin_edges(pooled, number)
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    for scores, label, colour in ((negatives, "ordinary", "C0"), (positives, "memorized", "C1")):
        axes.hist(
            scores,
            edges.tolist(),
            weights=np.full(len(scores), 1 / len(scores)),
            alpha=0.6,
            color=colour,
            label=f"{label} ({len(scores)})",
        )
    if log:
        axes.set_xscale("log")
    axes.set_title(name[:80], parse_math=False)
    axes.set(xlabel="score (larger: more memorized)", ylabel="share of the set's prompts")
    axes.legend(frameon=False)
    return figure


def png(figure: Figure) -> bytes:
    """The figure's bytes, the same for the same figure."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130, metadata={"Software": None})
    return data.getvalue()
