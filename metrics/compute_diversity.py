"""How much a mitigation changed the images of equal seeds, and how alike a prompt's images are.

As NeMo reports it; see metrics/same_seed.py.

python metrics/compute_diversity.py --gen_folder DIR --unmitigated DIR [--num_samples 10]
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this checkout's suite comes first
    from memorization_suite.commands.score_scripts import run_script
    from memorization_suite.metrics.scripts import CHANGE

    sys.exit(run_script(CHANGE))
