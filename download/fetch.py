"""Lists, fetches and checks what the suite does not ship. See --help, --list and
download/README.md.

python download/fetch.py sscd_disc_mixup memorized_laion_prompts
"""

import sys

from memorization_suite.download.command import main

if __name__ == "__main__":
    sys.exit(main())
