"""`python -m memorization_suite`: the commands that are no script.

Also an old Python reads this file and is told so: nothing here needs a new one.
"""

import importlib
import shutil
import subprocess
import sys

OLDEST = (3, 11)
COMMANDS = {
    "doctor": "says what this machine has, what is missing, and what gets it",
    "setup": "makes the environment; `make setup` calls it",
}


def main(argv=None) -> int:
    """The command line. Returns the exit code."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name not in COMMANDS:
        print(usage(), file=sys.stdout if name in ("", "-h", "--help") else sys.stderr)
        return 0 if name in ("", "-h", "--help") else 2
    if sys.version_info < OLDEST:
        print(("broken   " if name == "doctor" else "") + too_old(), file=sys.stderr)
        return 1
    return importlib.import_module(f"memorization_suite.commands.{name}").main(rest)


def usage() -> str:
    """What there is."""
    lines = ["usage: python -m memorization_suite COMMAND [--help]", ""]
    for name, text in COMMANDS.items():
        lines.append(f"  {name:<8} {text}")
    lines += ["", "In a checkout the jobs are scripts: python generate_images.py --help"]
    return "\n".join(lines)


def too_old() -> str:
    """One line: what is needed, what this is, and what to type."""
    here = ".".join(map(str, sys.version_info[:3]))
    return (
        f"Python 3.11 or newer is needed, this is {here} ({sys.executable}); "
        f"type: make setup PYTHON={newer_python()}"
    )


def newer_python() -> str:
    """The first of python3.11, python3.12, ... on the PATH that runs, else a place to fill in."""
    for minor in range(OLDEST[1], OLDEST[1] + 6):
        name = f"python3.{minor}"
        if shutil.which(name) is None:
            continue
        void = subprocess.DEVNULL
        if subprocess.call([name, "-c", ""], stdout=void, stderr=void) == 0:
            return name
    return "/path/to/python3.11"


if __name__ == "__main__":  # of an installed package, whose __main__.py this file is
    sys.exit(main())
