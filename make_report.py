"""One HTML page of runs, sweeps and detections: a summary, trade-offs, images on equal seeds.

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
    "One HTML page of runs, sweeps and detections: which method is best at what price, scores with "
    "intervals, the trade-off, images on equal seeds beside their training images, detectors."
)


def build_parser() -> Parser:
    """All flags."""
    epilog = examples(
        f"{SCRIPT} generated_images",
        f"{SCRIPT} sweep_results/my_sweep detections --out all.html",
    )
    parser = Parser(SCRIPT, DESCRIPTION, usage=f"{SCRIPT} DIR [DIR ...] [flags]", epilog=epilog)
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="run, sweep or detection, or a folder with them below it; runs are shown beside the "
        "one without a mitigation (--reference)",
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
