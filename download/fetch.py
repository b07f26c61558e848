"""Lists, fetches and checks what the suite does not ship. See --help, --list and
download/README.md.

python download/fetch.py sscd_disc_mixup memorized_laion_prompts
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this checkout's suite, not another's
    from memorization_suite.commands.fetch import main

    sys.exit(main())
