"""Charts as shapes for the template: axes, points with their labels, lines. Units are pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from memorization_suite.commands.report.figures import tidy

WIDTH = 760
HEIGHT = 460
# Of a chart for phones.
NARROW_WIDTH = NARROW_HEIGHT = 380
# Room for ticks and titles.
LEFT, RIGHT, TOP, BOTTOM = 62, 20, 18, 50
# Colors of series; after the last the first comes again.
COLORS = 8
# Of a label.
LETTER = 6.1
LINE = 13
# What a pixel of a line through a label costs, in covered pixels of other things.
CROSSED = 12
# Where a label may stand, from its point: (x, y, which end of it is there), the best first.
PLACES = tuple(
    (side * x, y, "start" if side > 0 else "end")
    for x, y in (
        (9, -7),
        (9, 15),
        (9, 4),
        (9, -20),
        (9, 28),
        (24, -34),
        (24, 42),
        (40, -50),
        (40, 58),
    )
    for side in (1, -1)
)

# Left, top, right and bottom.
Box = tuple[float, float, float, float]
# x and y of one end, then of the other.
Segment = tuple[float, float, float, float]
# A text beside a corner: x, y, which end of it is there, text.
Corner = tuple[float, float, str, str]


@dataclass(frozen=True)
class Axis:
    """An axis with its ticks, and where values lie on it."""

    title: str
    low: float
    high: float
    # Pixels of its ends.
    start: float
    end: float
    ticks: list[tuple[float, str]] = field(default_factory=list)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def axis(title: str, values: Sequence[float], start: float, end: float) -> Axis:
    """One that holds all values, with four to eight ticks at round numbers."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    margin = 0.06 * (high - low)
    low, high = low - margin, high + margin
    step = round_step((high - low) / 6)
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(low / step)
    ticks = []
    for i in range(first, math.floor(high / step) + 1):
        ticks.append((i * step, tidy(f"{i * step:.{digits}f}")))
    made = Axis(title, low, high, start, end)
    return Axis(title, low, high, start, end, [(made.at(value), text) for value, text in ticks])


def round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, at least as large."""
    power = 10 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999)


@dataclass
class Point:
    """A point with its bars and its label."""

    x: float
    y: float
    # Ends of the bars, where there are any.
    x_bar: tuple[float, float] | None
    y_bar: tuple[float, float] | None
    color: int
    label: str
    # What is told when it is pointed at, in lines.
    tip: list[str]
    label_x: float = 0
    label_y: float = 0
    anchor: str = "start"


@dataclass(frozen=True)
class Line:
    """A line of a series, and its band, as points of SVG."""

    name: str
    color: int
    path: str
    band: str = ""
    tip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """What the template draws."""

    title: str
    x: Axis
    y: Axis
    points: list[Point] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT
    # Where a point is best.
    corner: Corner | None = None


def path_of(points: Sequence[tuple[float, float]]) -> str:
    """`10,20 30,40`."""
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def place_labels(
    points: list[Point],
    segments: Sequence[Segment] = (),
    *,
    taken: Sequence[Box] = (),
    width: int = WIDTH,
    height: int = HEIGHT,
) -> None:
    """Puts each label where it covers no point, no other label and no line, as far as there is
    room.

    segments: of lines and bars. taken: what else is there. width, height: of the chart.
    """
    boxes_there = [*taken, *((p.x - 5, p.y - 5, p.x + 5, p.y + 5) for p in points)]
    room = (LEFT, TOP, width - 2, height - BOTTOM)
    for point in points:
        length = LETTER * len(point.label)
        boxes = [box_of(point, place, length) for place in PLACES]
        costs = [cost_of(box, boxes_there, segments, room) for box in boxes]
        best = costs.index(min(costs))
        x, y, point.anchor = PLACES[best]
        point.label_x, point.label_y = round(point.x + x, 1), round(point.y + y, 1)
        boxes_there.append(boxes[best])


def box_of(point: Point, place: tuple[float, float, str], width: float) -> Box:
    """Left, top, right and bottom of a label at a place."""
    x, y, anchor = place
    left = point.x + x - (width if anchor == "end" else 0)
    return left, point.y + y - LINE + 3, left + width, point.y + y + 3


def cost_of(box: Box, taken: Sequence[Box], segments: Sequence[Segment], room: Box) -> float:
    """How much of other things a box covers, and how far it stands out of its room."""
    left, top, right, bottom = box
    outside = max(0, room[0] - left) + max(0, right - room[2])
    outside += max(0, room[1] - top) + max(0, bottom - room[3])
    covered = 0.0
    for other in taken:
        width = min(right, other[2]) - max(left, other[0])
        height = min(bottom, other[3]) - max(top, other[1])
        covered += max(0, width) * max(0, height)
    crossed = sum(inside(segment, box) for segment in segments)
    return covered + CROSSED * crossed + 20 * outside


def inside(segment: Segment, box: Box) -> float:
    """How many pixels of a segment lie in a box."""
    x, y, to_x, to_y = segment
    start, end = 0.0, 1.0
    for at, step, low, high in ((x, to_x - x, box[0], box[2]), (y, to_y - y, box[1], box[3])):
        if step == 0:
            if not low < at < high:
                return 0.0
            continue
        ends = sorted(((low - at) / step, (high - at) / step))
        start, end = max(start, ends[0]), min(end, ends[1])
    return max(0.0, end - start) * math.hypot(to_x - x, to_y - y)


def frame(
    x_title: str,
    xs: Sequence[float],
    y_title: str,
    ys: Sequence[float],
    *,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> tuple[Axis, Axis]:
    """Both axes of a chart of this size that holds these values."""
    return (
        axis(x_title, xs, LEFT, width - RIGHT),
        axis(y_title, ys, height - BOTTOM, TOP),
    )


def finite(values: Sequence[float]) -> list[float]:
    """Those that are numbers."""
    return [value for value in values if math.isfinite(value)]
