"""ROC curves with intervals, and histograms of scores, as charts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from memorization_suite.commands.report.chart import (
    COLORS,
    LEFT,
    Axis,
    Chart,
    Line,
    axis,
    frame,
    path_of,
)
from memorization_suite.commands.report.detections import Detection
from memorization_suite.commands.report.figures import tidy
from memorization_suite.detection.evaluation.roc import Curves, curve, intervals
from memorization_suite.detection.evaluation.roc_plots import bin_edges
from memorization_suite.detection.evaluation.summary import figure_text, finite, scores_of
from memorization_suite.runs.lazy import np

# False-positive rates at which the curves have intervals.
RATES = tuple(i / 20 for i in range(1, 20))
# Of a small chart.
SMALL_WIDTH, SMALL_HEIGHT = 380, 240
# x, y, width, height, color, what is told.
Bar = tuple[float, float, float, float, int, str]


@dataclass(frozen=True)
class Histogram:
    """Shares of each set's prompts in bins of the score."""

    name: str
    x: Axis
    y: Axis
    bars: list[Bar]
    # Pixels of the threshold.
    threshold: float | None
    width: int = SMALL_WIDTH
    height: int = SMALL_HEIGHT


def roc_chart(detections: Sequence[Detection]) -> Chart | None:
    """The curves of all detectors with two sets; None without any."""
    judged = [detection for detection in detections if detection.has_both]
    if not judged:
        return None
    x, y = frame("false-positive rate", [0, 1], "true-positive rate", [0, 1])
    lines = [roc_line(detection, i, x, y) for i, detection in enumerate(judged)]
    chance = Line("chance", COLORS, path_of([(x.at(0), y.at(0)), (x.at(1), y.at(1))]))
    return Chart("ROC curves with 95 % intervals", x, y, lines=[*lines, chance])


def roc_line(detection: Detection, i: int, x: Axis, y: Axis) -> Line:
    """One detector's curve, and the band of its intervals."""
    memorized = finite(scores_of(detection.scored.memorized))
    ordinary = finite(scores_of(detection.scored.ordinary))
    points = curve(memorized, ordinary)
    corners = points.corners[0]
    rates = zip(points.fpr[0][corners].tolist(), points.tpr[0][corners].tolist())
    figures = [partial(Curves.tpr_at, fpr=rate, rule="at_most") for rate in RATES]
    ends = [
        (rate, low, high)
        for rate, (low, high) in zip(RATES, intervals(memorized, ordinary, figures))
        if not math.isnan(low)
    ]
    band = [(x.at(rate), y.at(high)) for rate, _, high in ends]
    band += [(x.at(rate), y.at(low)) for rate, low, _ in reversed(ends)]
    told = (detection.name, f"AUC {figure_text(detection.rows[0], 'auc')}")
    path = path_of([(x.at(fpr), y.at(tpr)) for fpr, tpr in rates])
    return Line(" ".join(told), i % COLORS, path, path_of(band), told)


def histogram(detection: Detection) -> Histogram | None:
    """Of a detector's finite scores; None without any."""
    sets = {
        "ordinary": finite(scores_of(detection.scored.ordinary)),
        "memorized": finite(scores_of(detection.scored.memorized)),
    }
    pooled = np.concatenate(list(sets.values()))
    if not len(pooled):
        return None
    edges = bin_edges(pooled, log=False)
    shares = {
        name: np.histogram(scores, edges)[0] / max(1, len(scores)) for name, scores in sets.items()
    }
    top = max(float(share.max()) for share in shares.values())
    x = axis("score", edges.tolist(), LEFT, SMALL_WIDTH - 12)
    y = axis("share of prompts", [0, top], SMALL_HEIGHT - 46, 12)
    bars = []
    for color, (name, share) in enumerate(shares.items()):
        bins = zip(itertools.pairwise(edges.tolist()), share.tolist())
        bars += [bar(x, y, ends, value, color, name) for ends, value in bins if value]
    at = None if detection.threshold is None else x.at(detection.threshold)
    return Histogram(detection.name, x, y, bars, at)


def bar(x: Axis, y: Axis, ends: tuple[float, float], share: float, color: int, name: str) -> Bar:
    """A bin of a set. ends: of the bin, in scores."""
    left, right = (x.at(end) for end in ends)
    top = y.at(share)
    height = round(y.at(0) - top, 1)
    low, high = (tidy(f"{end:.4g}") for end in ends)
    told = f"{name}: {100 * share:.0f} % from {low} to {high}"
    return left, top, right - left, height, color, told
