"""What a 95 % interval is where resampling cannot tell, for means and for detectors' figures alike.

Resamples that all give the same number have no spread. That is no certainty, so there is no
interval, and tables show a dash. A share of 0 or 1 is the exception, as it has an exact interval.
"""

from __future__ import annotations

from math import nan

# Of the resamples, on each side of an interval.
TAIL = 0.025
# Numbers that differ by less, relative to their size, differ by rounding alone.
ROUNDING = 1e-9
NOTHING = (nan, nan)
# For people, of detectors' figures.
RULE = (
    "no interval: fewer than two prompts, or no spread among them; an AUC or TPR of 0 or 1 has "
    "the exact one"
)


def is_spread(low: float, high: float) -> bool:
    """Whether the least and the largest number differ by more than rounding."""
    return high - low > ROUNDING * max(abs(low), abs(high))


def exact_interval(share: float, n: int) -> tuple[float, float]:
    """(low, high), the 95 % interval of a share of n that is 0 or 1; of another one (nan, nan).

    It takes each of n as one yes or no, so it is wider than a resampled one of prompts with several
    images, and does not compare with that.

    *Source:* Clopper and Pearson, Biometrika 1934, for none and for all of n.
    """
    reach = TAIL ** (1 / n)
    if share == 0:
        return 0.0, 1 - reach
    return (reach, 1.0) if share == 1 else NOTHING
