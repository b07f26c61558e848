"""Images for the prompts of a file, with one mitigation or none.

python generate_images.py --model_id tiny --method adj_init_noise --batch_wise

See --help, --method NAME --help, --list_methods and the README.
"""

import sys

from memorization_suite.commands.generate import generate
from memorization_suite.commands.generate_plan import SCRIPT, Request, plan
from memorization_suite.commands.settings import HEADINGS, SMALLER
from memorization_suite.mitigation.registry import METHODS
from memorization_suite.runs.cli import (
    RESUMES,
    Parser,
    add_flags,
    add_owned_flags,
    asked_for,
    command,
    examples,
    listing,
)
from memorization_suite.runs.progress import next_step

EPILOG = examples(
    f"{SCRIPT} --model_id tiny --method per_sample",
    f"{SCRIPT} --method adj_init_noise --batch_wise",
    f"{SCRIPT} --model_id tiny --prompts my_prompts.txt --end 10 -n 4 -b 8",
    more="--list_methods shows the methods, --method NAME --help the flags of one.",
)


def build_parser(argv: list[str]) -> Parser:
    """The general flags, and those of all methods."""
    about = "Images for the prompts of a file, with one mitigation or none."
    parser = Parser(SCRIPT, about, argv=argv, usage=f"{SCRIPT} [flags]", epilog=EPILOG)
    text = "print every method with its paper, cost and flags"
    parser.add_argument("--list_methods", action="store_true", help=text)
    add_flags(parser, Request, headings=HEADINGS)
    add_method_flags(parser, argv)
    return parser


def add_method_flags(parser: Parser, argv: list[str]) -> None:
    """The flags of all methods; --help shows those of the method that was typed."""
    shown = asked_for(argv, "--method", METHODS, switches=("--batch_wise", "--per_sample"))
    add_owned_flags(parser, METHODS, shown, f"flags of {' and '.join(shown)}")


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault."""
    argv = sys.argv[1:] if argv is None else argv
    typed = build_parser(argv).typed(argv)
    if typed.pop("list_methods", False):
        print(listing(METHODS))
        return 0

    def work() -> None:
        run = generate(plan(**typed))
        if run.is_main:
            print(run.summary)
            next_step(run.following, run.plan.settings.quiet)

    return command(SCRIPT, work, after=RESUMES, smaller=SMALLER)


if __name__ == "__main__":
    sys.exit(main())
