"""What Slurm says of the user's jobs, and which of them this process is. Without submitit."""

from __future__ import annotations

import os
import subprocess

# A line a job, also of each in an array: `12_3 RUNNING`.
ASK = ("squeue", "--me", "--noheader", "--array", "--format=%i %T")
# Seconds. A busy controller is no reason to stop a sweep.
TIMEOUT = 60.0


def queued_jobs() -> dict[str, str] | None:
    """Job id -> state of the user's jobs that wait, run or end; None when Slurm cannot be asked.

    An id is `12`, or `12_3` in an array, as `my_job` gives it.
    """
    # With SQUEUE_PARTITION and the like squeue would leave jobs out.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        done = subprocess.run(
            ASK, capture_output=True, text=True, check=True, timeout=TIMEOUT, env=plain
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return read_queue(done.stdout)


def read_queue(text: str) -> dict[str, str]:
    """Job id -> state of the lines of squeue."""
    jobs = {}
    for line in text.splitlines():
        job, _, state = line.strip().partition(" ")
        if job:
            jobs[job] = state.strip()
    return jobs


def my_job() -> str:
    """Id of the Slurm job that this process belongs to; empty outside Slurm."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID", "")


def my_restarts() -> int:
    """How often Slurm put the job of this process back before it started now; 0 outside Slurm."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)
