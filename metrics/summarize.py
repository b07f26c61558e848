"""Tables of finished scores, with differences on equal seeds; see commands/summarize.py.

Mean, 95 % interval over prompts and n of N, per quantity, variant and split.

python metrics/summarize.py RUN [RUN ...]
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this checkout's suite comes first
    from memorization_suite.commands.summarize import main

    sys.exit(main())
