"""Memorization scores for the prompts of a file.

python detect_memorization.py --model_id tiny --detector noise_norm
python detect_memorization.py evaluate detections/*
python detect_memorization.py calibrate threshold detections/noise_norm

See --help, --detector NAME --help, --list_detectors and the README.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from memorization_suite.commands.calibrate import (
    Calibration,
    Threshold,
    stability,
    threshold,
    use_of_statistics,
)
from memorization_suite.commands.detect import detect
from memorization_suite.commands.detect_plan import SCRIPT, Request, plan_detection
from memorization_suite.commands.evaluate import EvaluationSettings, evaluate
from memorization_suite.commands.settings import HEADINGS, QUIET
from memorization_suite.commands.spectrum import SpectrumSettings, spectrum
from memorization_suite.commands.study import Study
from memorization_suite.commands.tokens import TokenSettings, tokens
from memorization_suite.detection import DETECTORS
from memorization_suite.runs.cli import (
    NOTHING_SAID,
    NOTHING_WRITTEN,
    RESUMES,
    Parser,
    add_flags,
    add_owned_flags,
    asked_for,
    command,
    examples,
    listing,
)
from memorization_suite.runs.progress import next_step, to_open
from memorization_suite.runs.settings import flags

EPILOG = examples(
    f"{SCRIPT} --model_id tiny --detector noise_norm,bright_ending",
    f"{SCRIPT} --prompts memorized.csv --nonmem_prompts ordinary.txt",
    f"{SCRIPT} evaluate detections/noise_norm detections/bright_ending",
    more="--list_detectors shows the detectors, --detector NAME --help the flags of one.",
)
SCORE_FILES = ("files", "memorized", "ordinary")
CALIBRATIONS = {
    "stability": "norms of ordinary prompts' trajectories, for --method stability_regions",
    "threshold": "Threshold of a detector for generate_images.py --screen, from its scores of "
    "ordinary prompts.",
}


# --- subcommands ---


@dataclass(frozen=True)
class Subcommand:
    """A job with flags of its own."""

    # Its result is printed.
    job: Callable[..., Any]
    # What --help says of it.
    about: str
    # Adds its flags to a parser.
    add_flags: Callable[[Parser], None]
    # What one would type next: from its result and from what was typed.
    following: Callable[[Any, dict[str, Any]], list[str]]
    # What a fault leaves behind, and the flag that helps when the memory does not suffice: see
    # `runs.cli.command`.
    after: tuple[str, str] = RESUMES
    smaller: str = "--batch_size"


def add_evaluation(parser: Parser) -> None:
    """Score files, without a flag or again and again in pairs of two flags; and the flags."""
    texts = {option.name: option.metadata["help"] for option in flags(EvaluationSettings)}
    files, *pair = SCORE_FILES
    place = "FILE_OR_FOLDER"
    parser.add_argument(files, nargs="*", type=Path, metavar=place, help=texts[files])
    for name in pair:
        parser.add_argument(
            f"--{name}", action="append", type=Path, metavar="FILE", help=texts[name]
        )
    add_flags(parser, EvaluationSettings, without=SCORE_FILES)


def add_calibrations(parser: Parser) -> None:
    """A parser for each kind of reference values."""
    kinds = parser.add_subparsers(
        dest="kind", required=True, metavar=f"{{{','.join(CALIBRATIONS)}}}"
    )
    parsers = {
        name: kinds.add_parser(name, help=text, description=text)
        for name, text in CALIBRATIONS.items()
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
    parsers["threshold"].add_argument("--quiet", action="store_true", help=QUIET)


def calibrate(kind: str, **typed: Any) -> Threshold | str:
    """The threshold, or what was written. Raises ValueError for what the user can mend, OSError."""
    if kind == "stability":
        return stability(**typed)
    typed.pop("quiet", None)
    return threshold(**typed)


def after_calibration(made: Threshold | str, typed: dict[str, Any]) -> list[str]:
    """What one would type next: images with the threshold, or with the statistics."""
    return made.following if isinstance(made, Threshold) else use_of_statistics(typed)


def to_look(made: Study, typed: dict[str, Any]) -> list[str]:
    """What one would type next: to open a study's pictures."""
    return to_open(made.path)


def nothing(made: Any, typed: dict[str, Any]) -> list[str]:
    """The job itself says what is next."""
    return []


SUBCOMMANDS = {
    "evaluate": Subcommand(
        evaluate, EvaluationSettings.about, add_evaluation, nothing, after=NOTHING_SAID
    ),
    "spectrum": Subcommand(
        spectrum, SpectrumSettings.about, partial(add_flags, settings=SpectrumSettings), to_look
    ),
    "tokens": Subcommand(
        tokens,
        TokenSettings.about,
        partial(add_flags, settings=TokenSettings),
        to_look,
        smaller="-n",
    ),
    "calibrate": Subcommand(
        calibrate,
        "Reference values from ordinary prompts.",
        add_calibrations,
        after_calibration,
        after=NOTHING_WRITTEN,
    ),
}


def build_subparser(name: str) -> Parser:
    """The flags of a subcommand."""
    parser = Parser(f"{SCRIPT} {name}", SUBCOMMANDS[name].about)
    SUBCOMMANDS[name].add_flags(parser)
    return parser


def run_subcommand(name: str, argv: list[str]) -> int:
    """`main` of a subcommand."""
    chosen = SUBCOMMANDS[name]
    parser = build_subparser(name)
    typed = parser.typed(argv)

    def work() -> None:
        made = chosen.job(**typed)
        print(made)
        next_step(chosen.following(made, typed), typed.get("quiet", False))

    return command(parser.prog, work, after=chosen.after, smaller=chosen.smaller)


# --- the command ---


def build_parser(argv: list[str]) -> Parser:
    """The general flags, and those of all detectors; --help shows the detector's that was typed."""
    parser = Parser(
        SCRIPT,
        "A memorization score for every image of a prompt set; larger means more memorized. "
        f"Subcommands with flags of their own: {', '.join(SUBCOMMANDS)}.",
        argv=argv,
        usage=f"{SCRIPT} [flags], or {SCRIPT} SUBCOMMAND [flags]",
        epilog=EPILOG,
    )
    text = "print every detector with its paper, cost and flags"
    parser.add_argument("--list_detectors", action="store_true", help=text)
    add_flags(parser, Request, headings=HEADINGS)
    shown = asked_for(argv, "--detector", DETECTORS)
    add_owned_flags(parser, DETECTORS, shown, f"flags of {' and '.join(shown)}")
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in SUBCOMMANDS:
        return run_subcommand(argv[0], argv[1:])
    typed = build_parser(argv).typed(argv)
    if typed.pop("list_detectors", False):
        print(listing(DETECTORS))
        return 0

    def work() -> None:
        detections = detect(plan_detection(**typed))
        print(detections.summary)
        next_step(detections.following, detections.plan.settings.quiet)

    return command(SCRIPT, work, after=RESUMES)


if __name__ == "__main__":
    sys.exit(main())
