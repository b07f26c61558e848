"""Copy similarity to the training images (SSCD) and text alignment (CLIP) of a run.

With their counterparts that need no download.

python metrics/compute_sscd_orig_clip_score.py --gen_folder DIR [--prompts CSV] [--num_samples 10]
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this checkout's suite comes first
    from memorization_suite.commands.score_scripts import run_script
    from memorization_suite.metrics.scripts import COPIES

    sys.exit(run_script(COPIES))
