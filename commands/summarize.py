"""Tables of finished scores, and differences between runs on equal seeds."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.metrics.intervals import mean_over_prompts
from memorization_suite.metrics.runs import unlike
from memorization_suite.metrics.summary import (
    Line,
    interval_text,
    marks_of,
    results_that_count,
    summarize,
    text_of,
)
from memorization_suite.runs.cli import Parser, add_flags, command
from memorization_suite.runs.progress import next_step
from memorization_suite.runs.settings import Settings, flag, frozen_settings, unkeyed
from memorization_suite.runs.text import table_text

SCRIPT = "summarize.py"
DESCRIPTION = (
    "Means and intervals of scored runs; with several, differences to the one "
    "without a mitigation (else the first) on equal seeds."
)


@frozen_settings
class Summarizing(Settings):
    """The flags of summarize.py."""

    quantities: tuple[str, ...] = flag((), "only these", metavar="NAME")
    quiet: bool = unkeyed(False, "no line on what comes next")


@dataclass(frozen=True)
class Summary:
    """What is known of some runs. As a text it is the printed tables."""

    # The unmitigated run, or else the first, which the others are compared with.
    first: Path
    # Means and intervals of every run.
    lines: list[Line]
    # Rows of a table: other runs' differences to the first.
    differences: list[dict[str, str]]
    # Which images count in no score, or are of one color; why a run has no differences.
    notes: list[str]

    def __str__(self) -> str:
        text = text_of(self.lines)
        if not self.differences:
            return text
        title = f"difference to {title_of(self.first)} on equal prompts and samples"
        return f"{text}\n\n{title}\n{table_text(self.differences)}"


def summary_of(runs: Sequence[Path], quantities: Collection[str] = ()) -> Summary:
    """Means and intervals of scored runs, and the others' differences to the unmitigated one, or to
    the first.

    quantities: only these. Raises ValueError for a folder without results.
    """
    check_scored(runs)
    lines = []
    for run in runs:
        of_run = summarize(run)
        lines += [line for line in of_run if not quantities or line.quantity in quantities]
    unmitigated = [run for run in runs if run.resolve().parent.name == "no_mitigation"]
    first = [*unmitigated, *runs][0]
    rows = []
    notes = [line for run in runs for line in marks_of(run).lines(title_of(run))]
    for run in runs:
        if run == first:
            continue
        problem = unlike(first, run)
        if problem:
            notes.append(f"no differences: {problem}")
        else:
            rows += differences(first, run)
    rows = [row for row in rows if not quantities or row["quantity"] in quantities]
    return Summary(first, lines, rows, notes)


def title_of(run: Path) -> str:
    """A run's method and settings, as its folder is called."""
    return f"{run.parent.name}/{run.name}"


def check_scored(runs: Sequence[Path]) -> None:
    """Raises ValueError for a folder without results."""
    for run in runs:
        if not (run / "results.csv").is_file():
            raise ValueError(
                f"{run} has no results.csv: score it first with the compute_*.py scripts"
            )


def differences(first: Path, other: Path) -> list[dict[str, str]]:
    """Rows of a table: for each quantity that both runs have, (other - first) on the same images.

    Its mean over prompts, and the mean's interval.
    """
    before = {row.measurement: row.value for row in results_that_count(first)}
    groups: dict[tuple[str, str], list[tuple[int | None, float]]] = {}
    for row in results_that_count(other):
        if row.measurement in before and row.prompt_index is not None:
            value = row.value - before[row.measurement]
            groups.setdefault((row.quantity, row.variant), []).append((row.prompt_index, value))
    rows = []
    for (quantity, variant), changes in groups.items():
        change = mean_over_prompts(changes)
        rows.append(
            {
                "run": title_of(other),
                "quantity": quantity,
                "variant": variant,
                "difference": f"{change.mean:+.4f}",
                "95 % interval": interval_text(change.low, change.high, "+"),
                "pairs": str(len(changes)),
            }
        )
    return rows


def parser_of_runs(prog: str, about: str, settings: type[Settings], text: str) -> Parser:
    """One that takes run folders and the settings' flags. text: what --help says of the folders."""
    parser = Parser(prog, about)
    parser.add_argument(
        "runs", type=lambda text: Path(text).resolve(), nargs="+", metavar="RUN", help=text
    )
    add_flags(parser, settings)
    return parser


def build_parser() -> Parser:
    """All flags."""
    return parser_of_runs(SCRIPT, DESCRIPTION, Summarizing, "run folder with a results.csv")


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    typed = build_parser().typed(argv)
    runs = typed.pop("runs")

    def work() -> None:
        settings = Summarizing(**typed)
        summary = summary_of(runs, settings.quantities)
        for line in summary.notes:
            print(line, file=sys.stderr)
        print(summary)
        next_step(["python", "make_report.py", *runs], settings.quiet)

    return command(SCRIPT, work)
