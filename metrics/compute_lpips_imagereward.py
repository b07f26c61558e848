"""Diversity among a prompt's images (LPIPS) and preference (ImageReward) of a run.

With their counterparts that need no download.

python metrics/compute_lpips_imagereward.py --gen_folder DIR [--prompts CSV] [--num_samples 10]
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this checkout's suite comes first
    from memorization_suite.commands.score_scripts import run_script
    from memorization_suite.metrics.scripts import PREFERENCE

    sys.exit(run_script(PREFERENCE))
