"""The command line of calibrate.py: a module with HELP, add_flags(parser) and run(args) -> text for
each subcommand.
"""

from __future__ import annotations

import argparse
import sys

from memorization_suite.calibration import stability, threshold

COMMANDS = {"stability": stability, "threshold": threshold}


class Parser(argparse.ArgumentParser):
    """One line for a wrong argument, exit code 2."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (--help lists all flags)\n")


def build_parser() -> Parser:
    """One parser for each subcommand."""
    parser = Parser(
        prog="calibrate.py",
        description="Reference values from ordinary prompts.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}"
    )
    for name, module in COMMANDS.items():
        module.add_flags(
            commands.add_parser(name, help=module.HELP, description=module.HELP, allow_abbrev=False)
        )
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault while
    running.
    """
    args = build_parser().parse_args(argv)
    try:
        print(COMMANDS[args.command].run(args))
    except ValueError as error:
        print(f"calibrate.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"calibrate.py: {error}. Nothing was written.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("calibrate.py: interrupted; nothing was written.", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        print(
            f"calibrate.py: {str(error).splitlines()[0]} Use a smaller --batch_size.",
            file=sys.stderr,
        )
        return 1
    return 0
