"""One self-contained HTML page of run folders: tables, trade-offs, images on equal seeds. See
--help and the README.

python make_report.py generated_images --out report.html
"""

import sys

from memorization_suite.reporting.command import main

if __name__ == "__main__":
    sys.exit(main())
