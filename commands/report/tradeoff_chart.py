"""The trade-off of runs as a chart: copy similarity against alignment, a point a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from memorization_suite.commands.report.chart import (
    COLORS,
    Chart,
    Line,
    Point,
    finite,
    frame,
    path_of,
    place_labels,
)
from memorization_suite.commands.report.figures import tidy
from memorization_suite.commands.report.gather import Reported
from memorization_suite.commands.report.names import short_names
from memorization_suite.metrics.tradeoff import Points, label, points


def tradeoff(runs: list[Reported]) -> tuple[Chart | None, str]:
    """(the chart, why there is none)."""
    scored = [reported for reported in runs if reported.lines]
    if len(scored) < 2:
        return None, "it takes two scored runs"
    try:
        drawn = points({reported.run.folder: reported.lines for reported in scored})
    except ValueError as error:
        return None, str(error)
    return chart_of(drawn, scored), ""


def chart_of(drawn: Points, runs: Sequence[Reported]) -> Chart:
    """drawn: a row a run, in their order."""
    ends = ("", "_low", "_high")
    xs = finite([row[f"x{end}"] for row in drawn.rows for end in ends])
    ys = finite([row[f"y{end}"] for row in drawn.rows for end in ends])
    x, y = frame(label(drawn.x), xs, label(drawn.y), ys)
    series = list(dict.fromkeys(row["series"] for row in drawn.rows))
    made = []
    for row, name, reported in zip(drawn.rows, short_names(runs), runs):
        point = Point(
            x=x.at(row["x"]),
            y=y.at(row["y"]),
            x_bar=bar(x, row, "x"),
            y_bar=bar(y, row, "y"),
            color=series.index(row["series"]) % COLORS,
            label=name,
            tip=[reported.title, told(drawn.x, row, "x"), told(drawn.y, row, "y")],
        )
        made.append(point)
    lines = []
    for i, name in enumerate(series):
        own = [point for point, row in zip(made, drawn.rows) if row["series"] == name]
        own.sort(key=lambda point: point.x)
        lines.append(Line(name, i % COLORS, path_of([(each.x, each.y) for each in own])))
    place_labels(made)
    title = f"copy similarity against alignment: {drawn.x} and {drawn.y} of {len(made)} runs"
    return Chart(title, x, y, made, lines)


def bar(axis: Any, row: dict, name: str) -> tuple[float, float] | None:
    """Pixels of the ends of an interval, if there is one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return None if math.isnan(low) else (axis.at(low), axis.at(high))


def told(quantity: str, row: dict, axis: str) -> str:
    """`copy_score 0.412 [0.300, 0.500], 40 of 40 images`."""
    low, high = row[f"{axis}_low"], row[f"{axis}_high"]
    text = tidy(f"{row[axis]:.3f}")
    if not math.isnan(low):
        text += " " + tidy(f"[{low:.3f}, {high:.3f}]")
    return f"{quantity} {text}, {row[f'{axis}_n']} of {row[f'{axis}_of']} images"
