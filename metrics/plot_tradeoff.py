"""The trade-off of scored runs as a plot; see commands/tradeoff.py.

python metrics/plot_tradeoff.py RUN [RUN ...] --out tradeoff.png
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this checkout's suite comes first
    from memorization_suite.commands.tradeoff import main

    sys.exit(main())
