"""The command line of make_report.py."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from memorization_suite.metrics.command import Parser, existing, guarded, positive
from memorization_suite.runs.files import write_bytes, write_csv

DESCRIPTION = (
    "One self-contained HTML page of run folders: costs, scores with intervals, the trade-off, and "
    "images on equal seeds beside their "
    "training images."
)


def build_parser() -> Parser:
    """All flags."""
    parser = Parser(prog="make_report.py", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="run folder, or a folder with run folders below it; others are shown beside the first "
        "one",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        help="the page; its scores go into NAME_scores.csv beside it (default %(default)s)",
    )
    parser.add_argument("--title", default="Memorization report", help="heading of the page")
    parser.add_argument(
        "-p",
        "--prompts",
        type=Path,
        help="prompt file of the runs (default: the one that each run names)",
    )
    parser.add_argument(
        "--gt_folder",
        type=Path,
        help="training images, <folder>/<Index>/*.png (default as for the metric scripts)",
    )
    parser.add_argument(
        "--max_prompts",
        type=positive,
        default=48,
        help="prompts in the gallery (default %(default)s)",
    )
    parser.add_argument(
        "--max_runs", type=positive, default=12, help="runs in the gallery (default %(default)s)"
    )
    parser.add_argument(
        "--samples",
        type=positive,
        default=2,
        help="images of each prompt and run in the gallery (default %(default)s)",
    )
    return parser


def report(args: argparse.Namespace) -> None:
    """Writes the page and its numbers. Raises ValueError for what the user can mend."""
    if not args.out.resolve().parent.is_dir():
        raise ValueError(f"--out {args.out}: there is no folder {args.out.parent}")
    if args.out.is_dir() or args.out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out {args.out} is no name of a page: it ends in .html")
    existing(args.gt_folder, "--gt_folder", folder=True)
    existing(args.prompts, "--prompts", folder=False)
    from memorization_suite.reporting.gather import find_runs, gather, score_rows
    from memorization_suite.reporting.page import Limits, render

    runs = gather(find_runs(args.folders), args.prompts)
    page = render(
        runs,
        title=args.title,
        gt_folder=args.gt_folder,
        limits=Limits(args.max_prompts, args.max_runs, args.samples),
    ).encode()
    write_csv(
        args.out.with_name(f"{args.out.stem}_scores.csv"),
        (row for one in runs for row in score_rows(one)),
    )
    write_bytes(args.out, page)
    print(f"{args.out}: {len(runs)} runs, {len(page) / 1e6:.1f} MB")


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    args = build_parser().parse_args(sys.argv[1:] if argv is None else argv)
    return guarded("make_report.py", lambda: report(args))
