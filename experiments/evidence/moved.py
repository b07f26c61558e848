"""Whether numbers made anew are the stored ones: inside their intervals, or about the same.

No heavy import.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Of a number with its interval, in figures and in verdicts.
INTERVALS = (("mean", "low", "high"), ("value", "low", "high"))
ROUNDING = 1e-6
# How far a number without an interval may lie from the stored one: so much, so many if it counts
# images, or such a share of it. Machines round otherwise, which moves single images across a
# threshold; the smallest shares are of 20.
SLACK = 0.1
COUNT = 5
SHARE = 0.1
# Of keys that are ends of intervals.
ENDS = ("_low", "_high")
# Of a row in a list.
ROW_NAMES = ("method", "detector")


@dataclass(frozen=True)
class Difference:
    """Where something is not as it is stored."""

    where: str
    stored: str
    made: str


def differences(stored: Any, made: Any, where: str = "") -> Iterator[Difference]:
    """Numbers outside the stored intervals, or without one further away than `SLACK` and `SHARE`
    allow; other verdicts; what is missing. Seconds and texts are not compared.
    """
    if isinstance(stored, Mapping):
        yield from in_table(stored, made, where)
    elif isinstance(stored, list):
        rows = by_name(made if isinstance(made, list) else [])
        for name, value in by_name(stored).items():
            yield from differences(value, rows.get(name), f"{where}/{name}")
    elif isinstance(stored, int | float):
        if not isinstance(made, int | float):
            yield Difference(where, f"{stored:g}", "nothing")
        elif not is_near(stored, made):
            yield Difference(where, f"{stored:g}, about", f"{made:g}")


def in_table(stored: Mapping, made: Any, where: str) -> Iterator[Difference]:
    """Of numbers with names: one with its interval, or several things."""
    if not isinstance(made, Mapping):
        yield Difference(where, "a table", "nothing")
        return
    names = next((names for names in INTERVALS if stored.keys() >= {*names}), None)
    if names:
        yield from outside(names[0], stored, made, where)
        return
    for name, value in stored.items():
        if f"{name}_low" in stored:
            yield from outside(name, stored, made, f"{where}/{name}")
        elif "seconds" not in name and not name.endswith(ENDS):
            yield from differences(value, made.get(name), f"{where}/{name}")
    if "verdict" in stored and stored["verdict"] != made.get("verdict"):
        yield Difference(where, str(stored["verdict"]), str(made.get("verdict")))


def is_near(stored: float, made: float) -> bool:
    """Whether a number without an interval is about the stored one."""
    slack = COUNT if isinstance(stored, int) and isinstance(made, int) else SLACK
    return abs(made - stored) <= max(slack, SHARE * abs(stored))


def by_name(rows: Sequence[Any]) -> dict[str, Any]:
    """Rows by what they are of, so that their order does not matter; else by their place."""
    named = {}
    for place, row in enumerate(rows):
        names = [row[key] for key in ROW_NAMES if key in row] if isinstance(row, Mapping) else []
        named[names[0] if names else str(place)] = row
    return named


def outside(name: str, stored: Mapping, made: Mapping, where: str) -> Iterator[Difference]:
    """A number that is not in the stored interval, or without one not near the stored one."""
    low, high = ends_of(name, stored)
    middle, found = stored[name], made.get(name)
    if middle is None or found is None:
        if middle is not found:
            yield Difference(where, str(middle), str(found))
        return
    if low is None or high is None or math.isnan(low):
        if not is_near(middle, found):
            yield Difference(where, f"{middle:g}, about", f"{found:g}")
    elif not low - ROUNDING <= found <= high + ROUNDING:
        yield Difference(where, f"{middle:g} [{low:g}, {high:g}]", f"{found:g}")


def ends_of(name: str, stored: Mapping) -> tuple[float | None, float | None]:
    """Both ends of a number's interval."""
    own = "low" if name in ("mean", "value") else f"{name}_low"
    return stored[own], stored[own.replace("low", "high")]
