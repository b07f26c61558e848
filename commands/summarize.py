"""Tables of finished scores, and differences between runs on equal seeds."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from memorization_suite.metrics.comparison import (
    problem_of,
    references_of,
    remark_on,
    titles_of,
)
from memorization_suite.metrics.paired import change, pairs_of
from memorization_suite.metrics.summary import (
    Line,
    Seen,
    cells,
    interval_text,
    text_of,
)
from memorization_suite.runs.cli import Parser, add_flags, command
from memorization_suite.runs.foreign import method_of, title_of
from memorization_suite.runs.formats import FORMATS, Cell, Listed
from memorization_suite.runs.progress import from_here, next_step
from memorization_suite.runs.settings import Settings, flag, frozen_settings, unkeyed
from memorization_suite.runs.text import table_text

SCRIPT = "summarize.py"
DESCRIPTION = (
    "Means and intervals of scored runs; with several, differences to the one "
    "without a mitigation (else the first) on equal seeds. Of several without one, each run is "
    "compared with that of its own model, sampler and guidance."
)


@frozen_settings
class Summarizing(Settings):
    """The flags of summarize.py."""

    quantities: tuple[str, ...] = flag((), "only these", metavar="NAME")
    reference: Path | None = flag(None, "the run that all others are compared with", metavar="RUN")
    format: str = flag("text", "of the tables on stdout", choices=("text", "md", "csv", "tex"))
    quiet: bool = unkeyed(False, "no line on what comes next")


@dataclass(frozen=True)
class Summary:
    """What is known of some runs. As a text it is the printed tables."""

    # Means and intervals of every run.
    lines: list[Line]
    # What runs are compared with -> what it is called, and rows of a table: the differences to it.
    differences: dict[Path, tuple[str, list[dict[str, str]]]]
    # Which images count in no score, or are of one color; how else runs differ from what they are
    # compared with, or why they have no differences.
    notes: list[str]

    def __str__(self) -> str:
        texts = [text_of(self.lines)]
        for title, rows in self.differences.values():
            texts.append(f"difference to {title} on equal prompts and samples\n{table_text(rows)}")
        return "\n\n".join(texts)


def summary_of(
    runs: Sequence[Path], quantities: Collection[str] = (), reference: Path | None = None
) -> Summary:
    """Means and intervals of scored runs, and their differences to what they are compared with.

    quantities: only these. reference: what all are compared with, else see `references_of`. Raises
    ValueError for a folder without results.
    """
    named = [reference] if reference is not None else []
    runs = list(dict.fromkeys([*named, *runs]))
    check_scored(runs)
    titles = titles_of(runs)
    seen = {run: Seen.of(run) for run in runs}
    notes = [line for run in runs for line in seen[run].notes(titles[run])]
    tables: dict[Path, tuple[str, list[dict[str, str]]]] = {}
    for run, other in references_of(runs, reference).items():
        problem = problem_of(run, other, named=reference is not None)
        every = [] if problem else differences(seen[other], seen[run])
        rows = [{"run": titles[run], **row} for row in every if wanted(row["quantity"], quantities)]
        if rows:
            notes.append(remark_on(run, other))
            tables.setdefault(other, (titles[other], []))[1].extend(rows)
        else:
            reason = problem or f"{from_here(run)} and {from_here(other)} share no score"
            notes.append(f"no differences: {reason}")
    lines = [line for run in runs for line in lines_of(seen[run], titles[run], quantities)]
    return Summary(lines, tables, [note for note in notes if note])


def formatted(summary: Summary, ending: str) -> str:
    """The tables for a document: Markdown, CSV or LaTeX, one after the other.

    ending: of a file of that format.
    """
    tables = [Listed([cells_of(line) for line in summary.lines])]
    for title, rows in summary.differences.values():
        caption = f"Difference to {title} on equal prompts and samples."
        tables.append(Listed([{name: Cell(row[name]) for name in row} for row in rows], caption))
    return "\n".join(FORMATS[ending](table, "") for table in tables if table.rows)


def cells_of(line: Line) -> dict[str, Cell]:
    """A row of the summary; the mean with its interval in one cell."""
    texts = cells(line)
    interval = texts.pop("95 % interval")
    found = {name: Cell(text) for name, text in texts.items()}
    mean = texts["mean"] if interval == "-" else f"{texts['mean']} {interval}"
    found["mean"] = Cell(mean, (line.mean, line.low, line.high))
    return found


def wanted(quantity: str, quantities: Collection[str]) -> bool:
    """Whether a quantity is one of those that were asked for, if any were."""
    return not quantities or quantity in quantities


def lines_of(run: Seen, title: str, quantities: Collection[str]) -> list[Line]:
    """The summary of a run. title: what it is called among others."""
    lines = [line for line in run.lines() if wanted(line.quantity, quantities)]
    if title == title_of(run.folder):
        return lines
    method = method_of(run.folder)
    name = title.removeprefix(method).strip(" /") or title
    return [replace(line, method=method, run=name) for line in lines]


def check_scored(runs: Sequence[Path]) -> None:
    """Raises ValueError for a folder without results."""
    for run in runs:
        if not (run / "results.csv").is_file():
            raise ValueError(
                f"{run} has no results.csv: score it first with the compute_*.py scripts"
            )


def differences(first: Seen, other: Seen) -> list[dict[str, str]]:
    """Rows of a table: for each quantity that both runs have, (other - first) on the same images.

    Its mean over prompts, and the mean's interval.
    """
    rows = []
    for (quantity, variant), pairs in pairs_of(first.results(), other.results()).items():
        mean = change(pairs)
        rows.append(
            {
                "quantity": quantity,
                "variant": variant,
                "difference": f"{mean.mean:+.4f}",
                "95 % interval": interval_text(mean.low, mean.high, "+"),
                "pairs": str(len(pairs)),
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
        reference = settings.reference.resolve() if settings.reference else None
        summary = summary_of(runs, settings.quantities, reference)
        for line in summary.notes:
            print(line, file=sys.stderr)
        print(summary if settings.format == "text" else formatted(summary, settings.format))
        words = ["python", "make_report.py", *map(str, runs)]
        if reference is not None:
            words += ["--reference", str(reference)]
        next_step(words, settings.quiet)

    return command(SCRIPT, work)
