"""FID, KID and CLIP-FID of a folder of images against real ones; see commands/distances.py.

python metrics/compute_fid.py --gen_folder DIR --real_folder DIR
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this checkout's suite comes first
    from memorization_suite.commands.distances import main

    sys.exit(main())
