"""Numbers as texts of the page: a minus that is one, no zero below zero, no score that seems to be
on the other side of its threshold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from memorization_suite.metrics.intervals import is_copy

MINUS = "\N{MINUS SIGN}"
NUMBER = r"-?\d[\d.]*(?:e[+-]?\d+)?"
# A number, or an interval.
WHOLE = re.compile(rf"{NUMBER}|\[{NUMBER}, {NUMBER}\]")
# A minus of zero.
BELOW_ZERO = re.compile(r"-(?=0(?:\.0*)?(?![\d.]))")
DIGITS = 3
# A score that is so close to its threshold has all of its digits.
MOST_DIGITS = 6


def tidy(text: str) -> str:
    """A text that is a number or an interval, with minus signs and without one of zero; others as
    they are.
    """
    if not WHOLE.fullmatch(text):
        return text
    return BELOW_ZERO.sub("", text).replace("-", MINUS)


def score_text(value: float, thresholds: Sequence[float] = ()) -> str:
    """`0.750`: three digits, or as many more as it takes to be seen on its side of each threshold.

    value: finite.
    """
    sides = [is_copy(value, threshold) for threshold in thresholds]
    for digits in range(DIGITS, MOST_DIGITS):
        text = f"{value:.{digits}f}"
        if [is_copy(float(text), threshold) for threshold in thresholds] == sides:
            return tidy(text)
    return tidy(repr(value))
