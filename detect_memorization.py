"""Memorization scores for the prompts of a file. See --help, --list_detectors and the README.

python detect_memorization.py --model_id tiny --detector noise_norm
python detect_memorization.py evaluate detections/*
"""

import sys

from memorization_suite.screening.command import main

if __name__ == "__main__":
    sys.exit(main())
