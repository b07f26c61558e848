"""One self-contained HTML page of run folders: tables, trade-offs, images on equal seeds.

python make_report.py generated_images --out report.html

See --help and the README.
"""

import sys
from pathlib import Path

from memorization_suite.commands.report import Reporting, report
from memorization_suite.runs.cli import Parser, add_flags, command, examples
from memorization_suite.runs.progress import next_step, to_open

SCRIPT = "make_report.py"
DESCRIPTION = (
    "One self-contained HTML page of run folders: costs, scores with intervals, the trade-off, and "
    "images on equal seeds beside their training images."
)


def build_parser() -> Parser:
    """All flags."""
    epilog = examples(
        f"{SCRIPT} generated_images",
        f"{SCRIPT} generated_images/no_mitigation/g7_seed2 other_runs --out other.html",
    )
    parser = Parser(SCRIPT, DESCRIPTION, usage=f"{SCRIPT} DIR [DIR ...] [flags]", epilog=epilog)
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="run folder, or a folder with run folders below it; others are shown beside the one "
        "without a mitigation (--reference)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page; its scores go into NAME_scores.csv beside it (default %(default)s)",
    )
    add_flags(parser, Reporting)
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault."""
    typed = build_parser().typed(argv)
    folders = typed.pop("folders")
    out = typed.pop("out")

    def work() -> None:
        page = report(folders, out, **typed)
        print(page.summary)
        next_step(to_open(page.path), typed.get("quiet", False))

    return command(SCRIPT, work)


if __name__ == "__main__":
    sys.exit(main())
