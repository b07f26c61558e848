r"""Reference values from ordinary prompts, for the methods that need them.

python calibrate.py stability --model_id tiny --prompts tiny/prompts/tiny_ordinary_tuning.csv \
    --out stability.json

See --help and the README.
"""

import sys
from pathlib import Path

from memorization_suite.commands.calibrate import Calibration, stability, threshold
from memorization_suite.runs.cli import NOTHING_WRITTEN, Parser, add_flags, command

SCRIPT = "calibrate.py"
HELP = {
    "stability": "norms of ordinary prompts' trajectories, for --method stability_regions",
    "threshold": "Threshold of a detector for generate_images.py --screen, from its scores of "
    "ordinary prompts.",
}


def build_parser() -> Parser:
    """One parser for each subcommand."""
    parser = Parser(SCRIPT, "Reference values from ordinary prompts.")
    commands = parser.add_subparsers(dest="command", required=True, metavar=f"{{{','.join(HELP)}}}")
    parsers = {
        name: commands.add_parser(name, help=text, description=text) for name, text in HELP.items()
    }
    add_flags(parsers["stability"], Calibration)
    parsers["threshold"].add_argument(
        "scores",
        type=Path,
        help="a detector's folder or scores.csv, made by detect_memorization.py with "
        "--nonmem_prompts",
    )
    parsers["threshold"].add_argument(
        "--fpr",
        type=float,
        help="largest share of ordinary images that may lie above it (default 0.01)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault."""
    typed = build_parser().typed(argv)
    name = typed.pop("command")

    def work() -> None:
        print(stability(**typed).summary if name == "stability" else threshold(**typed))

    return command(SCRIPT, work, after=NOTHING_WRITTEN)


if __name__ == "__main__":
    sys.exit(main())
