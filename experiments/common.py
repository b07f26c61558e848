"""What the benchmarks share: flags, timing."""

from __future__ import annotations

import argparse
import math
import timeit
from collections.abc import Callable
from pathlib import Path

from memorization_suite import tiny


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose --help is the script's docstring."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def model_parser(doc: str | None, *, samples: int, out: str) -> argparse.ArgumentParser:
    """The flags of a measurement on an embedded model. out: default folder of its runs."""
    made = parser(doc)
    made.add_argument("--model_id", default="tiny", choices=list(tiny.MODELS))
    made.add_argument("--samples", type=positive, default=samples, help="images per prompt")
    made.add_argument("--out", type=Path, default=Path(out), help="folder of the runs")
    made.add_argument("--figures", type=Path, default=tiny.EVALUATION, help="folder of the figures")
    return made


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def amount(text: str) -> float:
    """A finite number above 0, for argparse."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no finite number above 0")
    return value


def best_of(repeats: int, work: Callable[[], object]) -> float:
    """Least wall time of several calls, in seconds."""
    return min(timeit.repeat(work, number=1, repeat=repeats))
