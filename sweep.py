"""Runs a list or grid of settings from one TOML file. See --help and the README.

python sweep.py sweeps/example.toml
"""

import sys

from memorization_suite.sweeping.command import main

if __name__ == "__main__":
    sys.exit(main())
