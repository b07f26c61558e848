"""Numbers that somebody will type: with as few digits as keep what they decide."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

# Of scores as tables store them.
STORED = 7
# A float has no more.
LONGEST = 17
# How far above a score its threshold may lie, where nothing larger is near.
REACH = Decimal("0.001")


def just_above(score: float, larger: float | None = None) -> float:
    """A threshold that a score does not exceed, and a larger one does, when it is typed.

    score, larger: as stored, of the same kind; larger: the next one, if there is one. What they
    were before they were rounded may be half a unit of the last digit away, and another batch size
    moves them by about as much. So the threshold lies about in the middle between the two, but no
    more than a thousandth above the score. Where the two are neighbors, the larger one may not
    exceed it; where they are nearer than that, it is the score itself.
    """
    low = Decimal(repr(score)) + half_unit(score)
    high = low + abs(low) * REACH
    if larger is not None and low >= Decimal(repr(larger)):
        return score
    if larger is not None:
        high = min(high, Decimal(repr(larger)) - half_unit(larger))
    quarter = (high - low) / 4
    if quarter <= 0:
        return float(low)
    middle = (low + high) / 2
    for digits in range(1, LONGEST):
        rounded = Context(prec=digits, rounding=ROUND_HALF_EVEN).plus(middle)
        if abs(rounded - middle) <= quarter:
            return float(rounded)
    return float(middle)


def half_unit(score: float) -> Decimal:
    """Half a unit of the last digit that a table stores."""
    number = Decimal(repr(score))
    return Decimal(5).scaleb(number.adjusted() - STORED) if number else Decimal(0)


def exact_text(number: float) -> str:
    """The number as short as possible, so that it is the same when it is typed: `50`, `0.1`."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)
