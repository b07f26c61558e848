r"""Finds the neurons that memorized prompts need (NeMo), for --method nemo.

python localize_neurons.py statistics --model_id tiny \
    --prompts tiny/prompts/tiny_ordinary_tuning.csv --out ordinary.safetensors
python localize_neurons.py localize --model_id tiny --blocks all \
    --prompts tiny/prompts/tiny_memorized_test.csv --statistics ordinary.safetensors \
    --out neurons.json

See --help and the README.
"""

import sys

from memorization_suite.commands.neurons import OrdinarySettings, SearchSettings, ordinary, search
from memorization_suite.runs.cli import RESUMES, Parser, add_flags, command

SCRIPT = "localize_neurons.py"
HELP = {
    "statistics": "activations of ordinary prompts, and how alike their seeds are",
    "localize": "neurons of memorized prompts",
}


def build_parser() -> Parser:
    """One parser for each subcommand."""
    parser = Parser(
        SCRIPT, "Finds the neurons that memorized prompts need (NeMo), for --method nemo."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar=f"{{{','.join(HELP)}}}")
    add_flags(commands.add_parser("statistics", help=HELP["statistics"]), OrdinarySettings)
    add_flags(commands.add_parser("localize", help=HELP["localize"]), SearchSettings)
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault."""
    typed = build_parser().typed(argv)
    job = {"statistics": ordinary, "localize": search}[typed.pop("command")]

    def work() -> None:
        print(job(**typed).summary)

    return command(SCRIPT, work, after=RESUMES, smaller="--rows")


if __name__ == "__main__":
    sys.exit(main())
