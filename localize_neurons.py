"""The former place of mitigation/nemo/localize_neurons.py; it works for one more release."""

import shlex
import sys

from memorization_suite.commands import neurons


def main(argv: list[str] | None = None) -> int:
    """Says where the command is now, and does its work. Returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    now = shlex.join(["python", neurons.SCRIPT, *argv])
    print(f"localize_neurons.py goes with the next release; now it is: {now}", file=sys.stderr)
    return neurons.main(argv)


if __name__ == "__main__":
    sys.exit(main())
