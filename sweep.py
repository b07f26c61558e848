"""Runs a list or grid of settings, scores the images, and writes one page.

python sweep.py experiments/sweeps/example.toml

See --help and the README.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from memorization_suite.commands.generate_plan import Request
from memorization_suite.commands.settings import HEADINGS, QUIET, SMALLER
from memorization_suite.commands.sweeps.cost import cost_lines
from memorization_suite.commands.sweeps.file import OF_THE_SWEEP, read_sweep
from memorization_suite.commands.sweeps.launch import Launch
from memorization_suite.commands.sweeps.record import Member, read_record
from memorization_suite.commands.sweeps.status import read_status
from memorization_suite.commands.sweeps.sweep import (
    Entry,
    Outcome,
    plan_again,
    plan_sweep,
    sweep,
)
from memorization_suite.experiments.evidence.new_methods import new_lines, with_new_methods
from memorization_suite.experiments.evidence.sections import Section, read_sections
from memorization_suite.experiments.evidence.write import write_evidence
from memorization_suite.generate_images import add_method_flags
from memorization_suite.runs.cli import RESUMES, Parser, add_flags, command, examples
from memorization_suite.runs.progress import next_step, to_open
from memorization_suite.runs.settings import flag_names

SCRIPT = "sweep.py"
DESCRIPTION = "Runs a list or grid of settings, scores the images, and writes one page."
EPILOG = examples(
    f"{SCRIPT} experiments/sweeps/example.toml --dry_run",
    f"{SCRIPT} experiments/sweeps/example.toml --model_id tiny-v",
    more="Rerun the command to resume. generate_images.py --list_methods shows the methods.",
)


def build_parser(argv: list[str]) -> Parser:
    """The flags of a sweep, and those of generate_images.py for every run."""
    usage = f"{SCRIPT} FILE.toml [flags]"
    parser = Parser(SCRIPT, DESCRIPTION, epilog=EPILOG, argv=argv, usage=usage)
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE.toml",
        help="a table [common], and a [[run]] a setting (docs/USAGE.md)",
    )
    parser.add_argument(
        "--output_path",
        type=Path,
        metavar="FOLDER",
        help="folder of the runs (default sweep_results/<name of the file>)",
    )
    parser.add_argument("--no_scores", action="store_true", help="only the images")
    parser.add_argument(
        "--rescore",
        action="store_true",
        help="score all runs again, such as with new checkpoints",
    )
    parser.add_argument("--quiet", action="store_true", help=QUIET)
    add_flags(parser, Launch, headings={"where": flag_names(Launch)})
    of_a_run = [name for names in HEADINGS.values() for name in names]
    add_flags(parser, Request, without=OF_THE_SWEEP, headings={"every run": of_a_run})
    add_method_flags(parser, argv)
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault."""
    argv = sys.argv[1:] if argv is None else argv
    typed = build_parser(argv).typed(argv)
    file = typed.pop("file")
    out = typed.pop("output_path", Path("sweep_results") / file.stem)
    scores = not typed.pop("no_scores", False)
    again = typed.pop("rescore", False)
    own, typed = divide(typed)

    def work() -> int:
        launch = Launch(**own)
        launch.check()
        if launch.status:
            return say_status(file, out, typed)
        sections = read_sections(file)
        if launch.dry_run:
            return say_plan(file, out, typed, launch.devices)
        whole = with_new_methods(file, out, typed, tuner(scores, launch))
        if whole is None:
            print("the tuning of a new method is not done: rerun the command")
            return int(not launch.no_wait)
        runs = planned(whole, out, typed)
        title = f"Sweep {file.stem}"
        made = sweep(runs, out, title=title, scores=scores, again=again, launch=launch)
        if launch.no_wait:
            return 0
        print(made.status)
        if made.lacking:
            print(lacking_text(made.lacking, scores=scores))
        if made.page:
            print(made.summary)
        if not say_evidence(sections, made, out, argv):
            return 1
        next_step(following(made, argv, file, out), typed.get("quiet", False))
        return int(made.status.failed > 0)

    return command(SCRIPT, work, after=RESUMES, smaller=SMALLER)


def say_plan(file: Path, out: Path, typed: dict[str, Any], devices: int | None) -> int:
    """Prints the commands, and on how many devices one would have to wait how long."""
    entries = plan_sweep(file, out, **typed)
    print("\n".join(entry.command for entry in entries))
    print("".join(f"{line}\n" for line in new_lines(file)), end="")
    if devices:
        print("\n".join(cost_lines(entries, devices, out)))
    return 0


def tuner(scores: bool, launch: Launch) -> Callable[[Path, Path, dict[str, Any]], bool]:
    """What makes the runs of a new method's grid."""

    def tune(file: Path, out: Path, typed: dict[str, Any]) -> bool:
        if not scores:
            raise ValueError("a new method's grid is scored: leave --no_scores out")
        made = sweep(planned(file, out, typed), out, title=f"Tuning of {file.stem}", launch=launch)
        print(made.status)
        return made.page is not None and not made.lacking and not made.status.failed

    return tune


def say_evidence(sections: list[Section], made: Outcome, out: Path, argv: list[str]) -> bool:
    """Draws and tests what the file asks for, once all runs are there and scored. Returns whether
    nothing was missing. Raises OSError.
    """
    if not sections or made.status.failed or made.lacking or not made.page:
        return True
    evidence = write_evidence(sections, out, shlex.join(["python", SCRIPT, *argv]))
    for line in evidence.lines:
        print(line)
    for problem in evidence.problems:
        print(f"not made: {problem}", file=sys.stderr)
    return not evidence.problems


def lacking_text(lacking: int, *, scores: bool) -> str:
    """What is said of images that other pieces have not made."""
    are = "image of other pieces is" if lacking == 1 else "images of other pieces are"
    then = "; whoever makes the last one scores all" if scores else ""
    return f"{lacking} {are} missing{then}"


def planned(file: Path, out: Path, typed: dict[str, Any]) -> Sequence[Entry | Member]:
    """The runs. A sweep that was begun goes on without those that cannot be planned any more.

    typed: flags of every run. Raises ValueError.
    """
    try:
        return plan_sweep(file, out, **typed)
    except ValueError:
        begun = read_record(out)
        if begun is None:
            raise
        return plan_again(file, out, begun, **typed)


def divide(typed: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(flags of the launch, flags of every run)."""
    names = flag_names(Launch)
    own = {name: value for name, value in typed.items() if name in names}
    return own, {name: value for name, value in typed.items() if name not in names}


def say_status(file: Path, out: Path, typed: dict[str, Any]) -> int:
    """Prints how far a sweep is. Returns 1 when something failed. typed: flags of every run.

    Raises ValueError for flags that it would not look at.
    """
    others = [name for name in typed if name != "quiet"]
    if others:
        raise ValueError(
            f"--status says how far the sweep in {out} is, and takes no --{others[0]}: type the "
            "file, --status, and --output_path if the sweep has one"
        )
    read_sweep(file)
    status = read_status(out)
    if status is None:
        print(f"nothing was begun in {out}")
        return 0
    print(status)
    return int(status.failed > 0)


def following(made: Outcome, argv: list[str], file: Path, out: Path) -> list[str]:
    """What one would type next: to open the page, to look at the other pieces, or the rest."""
    if made.page and not made.status.failed:
        return to_open(made.page)
    if made.lacking:
        return ["python", SCRIPT, str(file), "--output_path", str(out), "--status"]
    return ["python", SCRIPT, *(word for word in argv if word != "--no_scores")]


if __name__ == "__main__":
    sys.exit(main())
