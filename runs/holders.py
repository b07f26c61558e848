"""Who holds a claim, and whether that process is still at work.

What is concluded of a holder:
- on this machine, of the same user: its process decides;
- of a Slurm job of the same user that is not at work by the queue: dead (one folder belongs to one
  cluster);
- else it is not known, and its silence decides (`runs/claims.py`).
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

from memorization_suite.runs import slurm
from memorization_suite.runs.processes import began, this_machine

QUEUE_PAUSE = 5.0  # seconds between two questions to Slurm
# Slurm's states of jobs whose process has ended; empty: the queue does not have it. One that waits
# was put back.
NOT_AT_WORK = ("", "PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


@dataclass(frozen=True)
class Holder:
    """A process that holds a claim."""

    host: str
    # What tells machines, and containers on one, apart.
    machine: str
    user: int
    pid: int
    # When the process began, by its machine: ids are used again.
    born: float
    # Its Slurm job, and how often that began before; empty and 0 outside of one.
    job: str = ""
    restarts: int = 0

    @classmethod
    def me(cls) -> Holder:
        """This process."""
        return cls(
            host=socket.gethostname(),
            machine=this_machine(),
            user=my_user(),
            pid=os.getpid(),
            born=began(os.getpid()),
            job=slurm.my_job(),
            restarts=slurm.my_restarts(),
        )

    def __str__(self) -> str:
        if self.job:
            return f"job {self.job} on {self.host}"
        return f"process {self.pid} on {self.host}"

    def lives(self, seen: float) -> bool | None:
        """Whether it is at work; None where that cannot be known.

        seen: when its claim was read, by time.monotonic.
        """
        if self.user != my_user():
            return None
        if self.machine == this_machine():
            return abs(began(self.pid) - self.born) < 1
        if not self.job:
            return None
        if self.job == slurm.my_job():
            return self.restarts == slurm.my_restarts()
        return QUEUE.says(self, seen)


class Queue:
    """What Slurm's queue says of holders."""

    def __init__(self) -> None:
        # When it was asked last, and the answer: job -> state.
        self.asked = float("-inf")
        self.jobs: dict[str, str] | None = None
        # Those that were found not to be at work. None comes back: a job that is put back starts
        # as another holder.
        self.gone: set[Holder] = set()

    def says(self, holder: Holder, seen: float) -> bool | None:
        """Whether the holder of a job is at work; None where that is not known.

        seen: when its claim was read; the answer must be later.
        """
        if holder in self.gone:
            return False
        jobs = self.since(seen)
        if jobs is None:
            return None
        state = jobs.get(holder.job, "")
        if state in NOT_AT_WORK:
            self.gone.add(holder)
            return False
        # The process of a job that runs may have ended.
        return True if state == "SUSPENDED" else None

    def since(self, moment: float) -> dict[str, str] | None:
        """Job -> state, asked later than the moment; one answer serves for all that was read before
        it. None where that is not known, such as shortly after the last answer.
        """
        if self.asked <= moment:
            if time.monotonic() - self.asked < QUEUE_PAUSE:
                return None
            self.asked = time.monotonic()
            self.jobs = slurm.queued_jobs()
        return self.jobs


QUEUE = Queue()


def my_user() -> int:
    """The user's number, which also one without a name has."""
    return os.getuid() if hasattr(os, "getuid") else 0
