"""When a trajectory leaves its training image's basin.

Without guidance that is read from the magnitude of the conditional noise prediction (Jain et al.,
CVPR 2025); with late guidance from which starts still give a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def first_minimum(magnitudes: Sequence[float], drop: float = 0.0) -> int | None:
    """Step of the first strict local minimum; None without one.

    drop: how far it lies below the largest earlier value at least, as a share of that. A value that
    is no number is no minimum. The rule of `mitigation/dynamic_transition.py`, which guides from
    the step after it on.
    """
    for i in range(1, len(magnitudes) - 1):
        before, value, after = magnitudes[i - 1 : i + 2]
        deep = value <= (1 - drop) * max(magnitudes[:i])
        if value < before and value < after and deep:
            return i
    return None


def first_free_start(copies: Mapping[int, bool]) -> int | None:
    """First start of guidance from which on an image is a copy of no later start either.

    copies: start -> whether the image is a copy. None if it is one at the last start.
    """
    free = None
    for start in sorted(copies, reverse=True):
        if copies[start]:
            break
        free = start
    return free
