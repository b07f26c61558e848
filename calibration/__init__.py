"""Reference values from ordinary prompts. `main(argv)` is the command line of calibrate.py."""

from calibration.command import main

__all__ = ["main"]
