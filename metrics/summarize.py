"""Tables of finished scores: mean, 95 % interval over prompts, n of N, per quantity, variant and
split; differences on equal seeds.

python metrics/summarize.py RUN [RUN ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from memorization_suite.metrics.command import Parser, guarded
from memorization_suite.runs.table import read_results


def build_parser() -> Parser:
    """All flags."""
    parser = Parser(
        prog="summarize.py",
        description="Means and intervals of scored runs; with several, differences to the first on "
        "equal seeds.",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run folder with a results.csv"
    )
    parser.add_argument("--quantities", nargs="+", metavar="NAME", help="only these")
    return parser


def differences(first: Path, other: Path) -> list[dict]:
    """For each quantity that both runs have: mean over prompts of (other - first) on the same
    images, and its interval.
    """
    from memorization_suite.metrics.intervals import interval
    from memorization_suite.metrics.summary import interval_text, prompt_means

    before = {
        (row.quantity, row.variant, row.prompt_index, row.sample_index): row.value
        for row in read_results(first)
    }
    groups: dict[tuple[str, str], list] = {}
    for row in read_results(other):
        key = (row.quantity, row.variant, row.prompt_index, row.sample_index)
        if key in before and row.prompt_index is not None:
            groups.setdefault(key[:2], []).append(
                type(row)(**{**vars(row), "value": row.value - before[key]})
            )
    found = []
    for (quantity, variant), rows in groups.items():
        means = list(prompt_means(rows).values())
        low, high = interval(means)
        found.append(
            {
                "run": f"{other.parent.name}/{other.name}",
                "quantity": quantity,
                "variant": variant,
                "difference": f"{sum(means) / len(means):+.4f}",
                "95 % interval": interval_text(low, high, "+"),
                "pairs": str(len(rows)),
            }
        )
    return found


def report(runs: Sequence[Path], quantities: Sequence[str] | None) -> None:
    """Prints the tables. Raises ValueError for a folder without results."""
    for run in runs:
        if not (run / "results.csv").is_file():
            raise ValueError(
                f"{run} has no results.csv: score it first with the compute_*.py scripts"
            )
    from memorization_suite.metrics.runs import unlike
    from memorization_suite.metrics.summary import summarise, table_text, text_of

    print(
        text_of(
            [
                line
                for run in runs
                for line in summarise(run)
                if not quantities or line.quantity in quantities
            ]
        )
    )
    for run in runs[1:]:
        problem = unlike(runs[0], run)
        if problem:
            print(f"no differences: {problem}", file=sys.stderr)
    rows = [
        row for run in runs[1:] if not unlike(runs[0], run) for row in differences(runs[0], run)
    ]
    rows = [row for row in rows if not quantities or row["quantity"] in quantities]
    if rows:
        print(f"\ndifference to {runs[0].parent.name}/{runs[0].name} on equal prompts and samples")
        print(table_text(rows))


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    args = build_parser().parse_args(sys.argv[1:] if argv is None else argv)
    return guarded(
        "summarize.py", lambda: report([run.resolve() for run in args.runs], args.quantities)
    )


if __name__ == "__main__":
    sys.exit(main())
