"""The trade-off of runs as a chart: copy similarity against alignment, a point a run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from memorization_suite.commands.report.chart import (
    COLORS,
    HEIGHT,
    LETTER,
    LINE,
    NARROW_HEIGHT,
    NARROW_WIDTH,
    WIDTH,
    Axis,
    Box,
    Chart,
    Corner,
    Line,
    Point,
    Segment,
    finite,
    frame,
    path_of,
    place_labels,
)
from memorization_suite.commands.report.figures import tidy
from memorization_suite.commands.report.gather import Reported
from memorization_suite.commands.report.names import short_names
from memorization_suite.metrics.base import quantity_named
from memorization_suite.metrics.tradeoff import Points, label, points

# (whether right is better, whether up is) -> where the best corner lies.
ARROWS = {(False, True): "↖", (True, True): "↗", (False, False): "↙", (True, False): "↘"}


def tradeoff(runs: list[Reported]) -> tuple[list[Chart], str]:
    """(the chart and the same for phones, why there is none)."""
    scored = [reported for reported in runs if reported.lines]
    if len(scored) < 2:
        return [], "it takes two scored runs"
    try:
        drawn = points({reported.run.folder: reported.lines for reported in scored})
    except ValueError as error:
        return [], str(error)
    wide = chart_of(drawn, scored, WIDTH, HEIGHT)
    return [wide, chart_of(drawn, scored, NARROW_WIDTH, NARROW_HEIGHT)], ""


def chart_of(drawn: Points, runs: Sequence[Reported], width: int, height: int) -> Chart:
    """drawn: a row a run, in their order. width, height: of the chart."""
    xs = values_of(drawn, "x")
    ys = values_of(drawn, "y")
    x, y = frame(label(drawn.x), xs, label(drawn.y), ys, width=width, height=height)
    marks = marks_of(drawn, runs, x, y)
    series = series_of(drawn, marks)
    corner, box = best_corner(drawn, x, y)
    taken = [box] if box else []
    place_labels(marks, segments_of(marks, series), taken=taken, width=width, height=height)
    title = f"copy similarity against alignment: {drawn.x} and {drawn.y} of {len(marks)} runs"
    lines = [
        Line(name, i % COLORS, path_of([(mark.x, mark.y) for mark in own]))
        for i, (name, own) in enumerate(series.items())
    ]
    return Chart(title, x, y, marks, lines, width, height, corner)


def values_of(drawn: Points, axis: str) -> list[float]:
    """All that an axis has to hold: values and the ends of their intervals."""
    names = (axis, f"{axis}_low", f"{axis}_high")
    return finite([row[name] for row in drawn.rows for name in names])


def marks_of(drawn: Points, runs: Sequence[Reported], x: Axis, y: Axis) -> list[Point]:
    """A point a run, in the color of its series."""
    names = list(dict.fromkeys(row["series"] for row in drawn.rows))
    marks = []
    for row, name, reported in zip(drawn.rows, short_names(runs), runs):
        mark = Point(
            x=x.at(row["x"]),
            y=y.at(row["y"]),
            x_bar=bar(x, row, "x"),
            y_bar=bar(y, row, "y"),
            color=names.index(row["series"]) % COLORS,
            label=name,
            tip=[reported.title, told(drawn.x, row, "x"), told(drawn.y, row, "y")],
        )
        marks.append(mark)
    return marks


def series_of(drawn: Points, marks: Sequence[Point]) -> dict[str, list[Point]]:
    """Name -> its points, from left to right."""
    series: dict[str, list[Point]] = {}
    for row, mark in zip(drawn.rows, marks):
        series.setdefault(row["series"], []).append(mark)
    return {name: sorted(own, key=lambda mark: mark.x) for name, own in series.items()}


def segments_of(marks: Sequence[Point], series: dict[str, list[Point]]) -> list[Segment]:
    """Bars and lines, which labels shall not cross."""
    segments = [segment for mark in marks for segment in bars_of(mark)]
    for own in series.values():
        segments += [(one.x, one.y, other.x, other.y) for one, other in itertools.pairwise(own)]
    return segments


def bars_of(point: Point) -> list[Segment]:
    """Its bars as segments."""
    segments = []
    if point.x_bar:
        segments.append((point.x_bar[0], point.y, point.x_bar[1], point.y))
    if point.y_bar:
        segments.append((point.x, point.y_bar[0], point.x, point.y_bar[1]))
    return segments


def best_corner(drawn: Points, x: Axis, y: Axis) -> tuple[Corner | None, Box | None]:
    """The mark of the corner where both quantities are best, and the room that it takes; None where
    nothing says which values one wants.
    """
    quantities = [quantity_named(name) for name in (drawn.x, drawn.y)]
    if None in quantities:
        return None, None
    is_right, is_up = (quantity.better == "higher" for quantity in quantities if quantity)
    mark = ARROWS[is_right, is_up]
    text = f"better {mark}" if is_right else f"{mark} better"
    length = LETTER * len(text)
    left = x.end - length - 6 if is_right else x.start + 6
    bottom = y.end + LINE if is_up else y.start - 6
    box = (left, bottom - LINE, left + length, bottom + 3)
    if is_right:
        return (x.end - 6, bottom, "end", text), box
    return (left, bottom, "start", text), box


def bar(axis: Axis, row: dict, name: str) -> tuple[float, float] | None:
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
