"""Memorization scores for the prompts of a file.

python detect_memorization.py --model_id tiny --detector noise_norm
python detect_memorization.py evaluate detections/*

See --help, --detector NAME --help, --list_detectors and the README.
"""

import sys
from pathlib import Path

from memorization_suite.commands.detect import SCRIPT, Request, detect, plan_detection
from memorization_suite.commands.evaluate import EvaluationSettings, evaluate
from memorization_suite.commands.spectrum import SpectrumSettings, spectrum
from memorization_suite.commands.tokens import TokenSettings, tokens
from memorization_suite.detection import DETECTORS
from memorization_suite.runs.cli import (
    NOTHING_SAID,
    RESUMES,
    Parser,
    add_flags,
    add_owned_flags,
    asked_for,
    command,
    listing,
)
from memorization_suite.runs.settings import flags

SUBCOMMANDS = {
    "evaluate": (evaluate, EvaluationSettings),
    "spectrum": (spectrum, SpectrumSettings),
    "tokens": (tokens, TokenSettings),
}
SCORE_FILES = ("files", "memorized", "ordinary")


def build_parser(argv: list[str]) -> Parser:
    """The general flags, and those of all detectors; --help shows the detector's that was typed."""
    parser = Parser(
        SCRIPT,
        "A memorization score for every image of a prompt set; larger means more memorized. "
        f"Subcommands with flags of their own: {', '.join(SUBCOMMANDS)}.",
    )
    add_flags(parser, Request)
    text = "print every detector and leave"
    parser.add_argument("--list_detectors", action="store_true", help=text)
    shown = asked_for(argv, "--detector", DETECTORS)
    add_owned_flags(parser, DETECTORS, shown, "detector")
    return parser


def build_subparser(name: str) -> Parser:
    """The flags of a subcommand."""
    _, settings = SUBCOMMANDS[name]
    parser = Parser(f"{SCRIPT} {name}", settings.about)
    if name == "evaluate":
        add_score_files(parser)
    add_flags(parser, settings, without=SCORE_FILES)
    return parser


def add_score_files(parser: Parser) -> None:
    """Score files: without a flag, or again and again in pairs of two flags."""
    texts = {option.name: option.metadata["help"] for option in flags(EvaluationSettings)}
    files, *pair = SCORE_FILES
    place = "FILE_OR_FOLDER"
    parser.add_argument(files, nargs="*", type=Path, metavar=place, help=texts[files])
    for name in pair:
        parser.add_argument(
            f"--{name}", action="append", type=Path, metavar="FILE", help=texts[name]
        )


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in SUBCOMMANDS:
        return subcommand(argv[0], argv[1:])
    typed = build_parser(argv).typed(argv)
    if typed.pop("list_detectors", False):
        print(listing(DETECTORS))
        return 0

    def work() -> None:
        print(detect(plan_detection(**typed)).summary)

    return command(SCRIPT, work, after=RESUMES)


def subcommand(name: str, argv: list[str]) -> int:
    """The same of a subcommand."""
    parser = build_subparser(name)
    typed = parser.typed(argv)
    job, _ = SUBCOMMANDS[name]
    after = NOTHING_SAID if name == "evaluate" else RESUMES
    smaller = "-n" if name == "tokens" else "--batch_size"
    return command(parser.prog, lambda: print(job(**typed)), after=after, smaller=smaller)


if __name__ == "__main__":
    sys.exit(main())
