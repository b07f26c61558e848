"""Runs a list or grid of settings, scores the images, and writes one page.

python sweep.py experiments/sweeps/example.toml

See --help and the README.
"""

import sys
from pathlib import Path

from memorization_suite.commands.generate_plan import Request
from memorization_suite.commands.settings import HEADINGS, QUIET
from memorization_suite.commands.sweep import plan_sweep, sweep
from memorization_suite.commands.sweep_file import OF_THE_SWEEP
from memorization_suite.generate_images import SMALLER, add_method_flags
from memorization_suite.runs.cli import RESUMES, Parser, add_flags, command, examples
from memorization_suite.runs.progress import next_step, to_open

SCRIPT = "sweep.py"
DESCRIPTION = "Runs a list or grid of settings, scores the images, and writes one page."
EPILOG = examples(
    f"{SCRIPT} experiments/sweeps/example.toml --dry_run",
    f"{SCRIPT} experiments/sweeps/example.toml --model_id tiny-v",
    more="Rerun the command to resume; a finished run is not made or scored again.\n"
    "generate_images.py --list_methods shows the methods.",
)


def build_parser(argv: list[str]) -> Parser:
    """The flags of a sweep, and those of generate_images.py for every run."""
    usage = f"{SCRIPT} FILE.toml [flags]"
    parser = Parser(SCRIPT, DESCRIPTION, epilog=EPILOG, argv=argv, usage=usage)
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
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    headings = {f"every run: {heading}": names for heading, names in HEADINGS.items()}
    add_flags(parser, Request, without=OF_THE_SWEEP, headings=headings)
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
