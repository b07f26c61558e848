"""What the benchmarks share: flags, where figures go, timing."""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memorization_suite import tiny
from memorization_suite.runs.files import write_bytes, write_json
from memorization_suite.runs.text import markdown_table

# Lines of texts by column.
Table = list[dict[str, str]]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose --help is the script's docstring."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def model_parser(doc: str | None, *, samples: int, out: str) -> argparse.ArgumentParser:
    """The flags of a measurement on an embedded model. out: default folder of its runs."""
    made = parser(doc)
    made.add_argument("--model_id", default="tiny", choices=list(tiny.MODELS))
    made.add_argument("--samples", type=int, default=samples, help="images per prompt")
    made.add_argument("--out", type=Path, default=Path(out), help="folder of the runs")
    made.add_argument("--figures", type=Path, default=tiny.EVALUATION, help="folder of the figures")
    return made


def write_figures(args: argparse.Namespace, name: str, values: Any, *tables: Table) -> None:
    """<model>_<name>.json with the numbers and .md with the tables, in the figures' folder."""
    args.figures.mkdir(parents=True, exist_ok=True)
    stem = f"{args.model_id}_{name}"
    text = "\n".join(map(markdown_table, tables))
    write_json(args.figures / f"{stem}.json", values)
    write_bytes(args.figures / f"{stem}.md", text.encode())


def interval_text(mean: float, low: float, high: float, *, form: str) -> str:
    """`0.12 [0.10, 0.14]`."""
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def best_of(repeats: int, work: Callable[[], object]) -> float:
    """Least wall time of several calls, in seconds."""
    return min(timeit.repeat(work, number=1, repeat=repeats))
