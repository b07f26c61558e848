"""The former name of `detect_memorization.py calibrate`; it works for one more release."""

import shlex
import sys

from memorization_suite import detect_memorization


def main(argv: list[str] | None = None) -> int:
    """Says what the command is now, and does its work. Returns the exit code."""
    argv = ["calibrate", *(sys.argv[1:] if argv is None else argv)]
    now = shlex.join(["python", detect_memorization.SCRIPT, *argv])
    print(f"calibrate.py goes with the next release; now it is: {now}", file=sys.stderr)
    return detect_memorization.main(argv)


if __name__ == "__main__":
    sys.exit(main())
