"""What Slurm starts in the place of `python -m submitit.core._submit FOLDER`, as a script."""

import sys

from submitit.core.submission import process_job

process_job(sys.argv[-1])
