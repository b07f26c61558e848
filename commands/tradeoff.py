"""The plot of scored runs: copy similarity against text alignment, a line a method."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from memorization_suite.commands.summarize import check_scored, parser_of_runs
from memorization_suite.metrics.comparison import titles_of
from memorization_suite.metrics.summary import Seen
from memorization_suite.metrics.tradeoff import figure_of, points
from memorization_suite.runs.cli import Parser, command
from memorization_suite.runs.files import write_bytes, write_csv
from memorization_suite.runs.places import check_file
from memorization_suite.runs.plots import drawn
from memorization_suite.runs.progress import next_step, to_open
from memorization_suite.runs.settings import Settings, flag, frozen_settings, unkeyed

SCRIPT = "plot_tradeoff.py"
DESCRIPTION = (
    "The trade-off of scored runs: copy similarity against text alignment, a line a method, with "
    "95 % intervals over prompts."
)


@frozen_settings
class Plotting(Settings):
    """The flags of plot_tradeoff.py."""

    out: Path = flag(
        Path("tradeoff.png"), "the figure; its points go into NAME_points.csv beside it"
    )
    x: str | None = flag(
        None,
        "copy similarity (default: sscd, or the first that every run has)",
        metavar="QUANTITY",
    )
    y: str | None = flag(
        None,
        "alignment (default: clip_gen, or the first that every run has)",
        metavar="QUANTITY",
    )
    quiet: bool = unkeyed(False, "no line on what comes next")


def plot_tradeoff(runs: Sequence[Path], **typed: Any) -> str:
    """Writes the figure and its points. Returns what there is, in a line; images that count in no
    score, or are of one color, are told on stderr.

    typed: flags of plot_tradeoff.py by name. Raises ValueError for what the user can mend.
    """
    settings = Plotting(**typed)
    out = settings.out.resolve()
    check_scored(runs)
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
    table = out.with_name(f"{out.stem}_points.csv")
    check_file(out, "--out", table.name)
    lines = {}
    for run, title in titles_of(runs).items():
        seen = Seen.of(run)
        for line in seen.notes(title):
            print(line, file=sys.stderr)
        lines[run] = seen.lines()
    shown = points(lines, settings.x, settings.y)
    write_bytes(out, drawn(partial(figure_of, shown), out.suffix.lstrip(".") or "png"))
    write_csv(table, shown.rows)
    return f"{out}: {shown.y} against {shown.x} of {len(shown.rows)} runs"


def build_parser() -> Parser:
    """All flags."""
    return parser_of_runs(SCRIPT, DESCRIPTION, Plotting, "scored run folder")


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    typed = build_parser().typed(argv)
    runs = typed.pop("runs")

    def work() -> None:
        settings = Plotting(**typed)
        print(plot_tradeoff(runs, **typed))
        next_step(to_open(settings.out), settings.quiet)

    return command(SCRIPT, work)
