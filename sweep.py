"""Runs a list or grid of settings, scores the images, and writes one page.

python sweep.py experiments/sweeps/example.toml

See --help and the README.
"""

import sys
from pathlib import Path

from memorization_suite.commands.generate_plan import Request
from memorization_suite.commands.sweep import plan_sweep, sweep
from memorization_suite.commands.sweep_file import OF_THE_SWEEP
from memorization_suite.generate_images import SMALLER, add_method_flags
from memorization_suite.runs.cli import RESUMES, Parser, add_flags, command
from memorization_suite.runs.progress import next_step, to_open

SCRIPT = "sweep.py"
DESCRIPTION = "Runs a list or grid of settings, scores the images, and writes one page."
EPILOG = "A stopped sweep goes on; a finished run is not made or scored again."


def build_parser(argv: list[str]) -> Parser:
    """The flags of a sweep, and those of generate_images.py for every run."""
    parser = Parser(SCRIPT, DESCRIPTION, epilog=EPILOG, argv=argv)
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE.toml",
        help="[common] flags of all runs, [[run]] tables; a list stands for one run a value",
    )
    parser.add_argument(
        "--output_path",
        type=Path,
        metavar="FOLDER",
        help="folder of the runs (default sweep_results/<name of the file>)",
    )
    parser.add_argument("--dry_run", action="store_true", help="print the commands, and do nothing")
    parser.add_argument("--no_scores", action="store_true", help="only the images")
    parser.add_argument(
        "--rescore",
        action="store_true",
        help="score all runs again, for example with checkpoints that were fetched since",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    every_run = parser.add_argument_group("flags of generate_images.py, for every run")
    add_flags(every_run, Request, without=OF_THE_SWEEP)
    add_method_flags(parser, argv)
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault."""
    argv = sys.argv[1:] if argv is None else argv
    typed = build_parser(argv).typed(argv)
    file = typed.pop("file")
    out = typed.pop("output_path", Path("sweep_results") / file.stem)
    dry_run = typed.pop("dry_run", False)
    scores = not typed.pop("no_scores", False)
    again = typed.pop("rescore", False)

    def work() -> None:
        entries = plan_sweep(file, out, **typed)
        if dry_run:
            print("\n".join(entry.command for entry in entries))
            return
        page = sweep(entries, out, title=f"Sweep {file.stem}", scores=scores, again=again)
        following = ["python", SCRIPT, *(word for word in argv if word != "--no_scores")]
        if page:
            print(page.summary)
            following = to_open(page.path)
        next_step(following, typed.get("quiet", False))

    return command(SCRIPT, work, after=RESUMES, smaller=SMALLER)


if __name__ == "__main__":
    sys.exit(main())
