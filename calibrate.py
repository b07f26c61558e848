"""Reference values from ordinary prompts, for the methods that need them. See --help and the
README.

python calibrate.py stability --model_id tiny --prompts tiny/prompts/tiny_ordinary_tuning.csv --out
stability.json
"""

import sys

from memorization_suite.calibration import main

if __name__ == "__main__":
    sys.exit(main())
