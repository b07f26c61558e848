"""Reference values from ordinary prompts. `main(argv)` is the command line of calibrate.py."""

from memorization_suite import one_name
from memorization_suite.calibration.command import main

__all__ = ["main"]

one_name(__name__)
