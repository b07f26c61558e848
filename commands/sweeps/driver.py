"""The driver of a sweep on a cluster: submits what is ready, and again what was lost.

One drives at a time, under a claim. Others watch, and take over when it is dead: all that a driver
knows lies in files and in the queue.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

from memorization_suite.commands.sweeps.cluster import (
    Cluster,
    Refused,
    array_of,
    log_of,
    submitted_jobs,
)
from memorization_suite.commands.sweeps.task import Task, TaskState, starts_of
from memorization_suite.commands.sweeps.tasks import MOST_STARTS, Tasks
from memorization_suite.commands.sweeps.watch import Watch
from memorization_suite.commands.sweeps.work import pause_after, timed
from memorization_suite.runs.claims import Claim

# The name of the claim.
DRIVER = "driver"
# Seconds between two looks: the first one while something happens, up to the last one.
PAUSES = (1.0, 15.0)
SILENT = "Slurm does not answer; trying again"


def drive(tasks: Tasks, cluster: Cluster, *, wait: bool = True, quiet: bool = False) -> None:
    """Has all tasks done, and returns when each is done or failed; with wait=False at once, when
    all are submitted.

    Raises ValueError when Slurm takes no job. Ctrl-C ends the driver and no job.
    """
    if wait:
        Driver(tasks, cluster, quiet).drive()
    else:
        submit_all(tasks, cluster)


class Driver:
    """One command that drives, or watches another that does."""

    def __init__(self, tasks: Tasks, cluster: Cluster, quiet: bool = False):
        self.tasks = tasks
        self.cluster = cluster
        self.quiet = quiet
        # Tasks that were ready and had lost their jobs at the last look. They are put back when the
        # next one finds the same: files of other machines may come late.
        self.lost: set[str] = set()
        # Task -> number of its last claim, 0 for none, when it was submitted.
        self.claimed: dict[str, int] = {}
        # Task -> its jobs in a row that ended before they took a claim.
        self.unborn: Counter[str] = Counter()
        # What was said: the same is said once.
        self.said: set[str] = set()

    def drive(self) -> None:
        """Looks and acts until nothing is left to do."""
        claim = None
        pause = PAUSES[0]
        try:
            with Watch(self.tasks, quiet=self.quiet) as watch:
                while True:
                    if claim is None or not claim.is_mine():
                        claim = self.take()
                    is_new, taken = timed(partial(self.look, watch, acts=claim is not None))
                    if all(state.is_over for state in watch.states.values()):
                        return
                    pause = PAUSES[0] if is_new else min(PAUSES[1], pause * 1.5)
                    time.sleep(pause_after(taken, pause))
        except KeyboardInterrupt:
            arrays = self.arrays()
            if arrays:
                self.say(f"the jobs go on; scancel {' '.join(arrays)} ends them")
            raise
        finally:
            if claim is not None and claim.is_mine():
                claim.release()

    def take(self) -> Claim | None:
        """The right to drive; None while another command has it."""
        claim = self.tasks.claims.take(DRIVER)
        if claim is None:
            other = self.tasks.claims.look(DRIVER)
            holder = (other and other.holder) or "another process"
            self.say(f"{holder} drives this sweep: watching", subject=DRIVER)
        elif DRIVER in self.said:
            self.said.discard(DRIVER)
            print("it has ended: this command drives the sweep now", file=sys.stderr, flush=True)
        return claim

    def look(self, watch: Watch, *, acts: bool) -> bool:
        """Looks once, and submits what is ready if this is the one that `acts`. Returns whether
        something is new.
        """
        # Before the files: who ended by then has written what it made.
        queued = self.cluster.queued()
        before = stands(watch.states)
        states = watch.look()
        is_new = stands(states) != before
        if queued is None:
            self.say(SILENT)
        else:
            self.said.discard(SILENT)
            if acts:
                is_new |= self.act(states, queued)
        return is_new

    def act(self, states: dict[Task, TaskState], queued: dict[str, str]) -> bool:
        """Submits what is ready and has no job. Returns whether there was something."""
        jobs = submitted_jobs(self.tasks.folder)
        ours = [job for several in jobs.values() for job in several if job in queued]
        waiting = {task for task, several in jobs.items() if queued.keys() & set(several)}
        ready = []
        lost = set()
        for task, state in states.items():
            if state.kind != "ready" or task.name in waiting:
                continue
            if task.name in jobs:
                lost.add(task.name)
                if task.name not in self.lost or self.give_up(task, state, jobs[task.name][-1]):
                    continue
            ready.append(task)
        self.lost = lost
        todo = ready[: self.room(len(ours))]
        if todo:
            self.submit(todo, states)
        return bool(todo)

    def room(self, queued: int) -> int | None:
        """How many more jobs there may be now; None for any number, as an array limits itself."""
        if not queued or self.cluster.jobs is None:
            return None
        return max(0, self.cluster.jobs - queued)

    def submit(self, todo: list[Task], states: dict[Task, TaskState]) -> None:
        """Submits tasks. Raises Refused when Slurm takes no job, and none of the sweep is in the
        queue: else it may take one later.
        """
        try:
            jobs = self.cluster.submit(todo)
        except Refused as error:
            if self.cluster.queued() is not None and not self.arrays():
                raise
            self.say(f"{error}; trying again")
            return
        for task in todo:
            self.claimed[task.name] = states[task].number
            self.lost.discard(task.name)
        self.say(f"submitted {ids(jobs.values())}")

    def give_up(self, task: Task, state: TaskState, job: str) -> bool:
        """Whether a task whose last job is gone fails, since it gets nowhere; notes so. job: its
        last one.
        """
        if task.name in self.claimed:
            if self.claimed.pop(task.name) == state.number:
                self.unborn[task.name] += 1
            else:
                self.unborn[task.name] = 0
        if self.unborn[task.name] >= MOST_STARTS:
            what = f"its job ended {MOST_STARTS} times in a row before it began"
        elif starts_of(state) > MOST_STARTS:
            what = f"its job ended {MOST_STARTS} times in a row without a new image"
        else:
            return False
        claim = self.tasks.claims.take(task.name)
        if claim is not None:
            log = log_of(self.tasks.folder, job)
            said = f"{what}; the end of its log: {last_line(log)}"
            claim.end(outcome="failed", message=said, log=str(log))
        return True

    # --- what people read

    def say(self, text: str, subject: str = "") -> None:
        """Says something once, or once of a subject."""
        if (subject or text) not in self.said:
            print(text, file=sys.stderr, flush=True)
        self.said.add(subject or text)

    def arrays(self) -> list[str]:
        """The arrays of the sweep that are in the queue."""
        queued = self.cluster.queued() or {}
        jobs = submitted_jobs(self.tasks.folder).values()
        return arrays_of(job for several in jobs for job in several if job in queued)


def submit_all(tasks: Tasks, cluster: Cluster) -> None:
    """Submits what is not done: images, then scores, then the page, each when the former ended.

    Raises ValueError while another command drives the sweep, or when Slurm takes no job or does not
    answer.
    """
    claim = tasks.claims.take(DRIVER)
    if claim is None:
        raise ValueError("another command drives this sweep: --status says how far it is")
    with claim:
        queued = cluster.queued()
        if queued is None:
            raise ValueError("Slurm does not answer (squeue): try again later")
        jobs = submitted_jobs(tasks.folder)
        states = tasks.states()
        after: list[str] = []
        for kind in ("images", "scores", "page"):
            todo = []
            there = []
            for task, state in states.items():
                if task.kind != kind or state.is_over:
                    continue
                waiting = [job for job in jobs.get(task.name, []) if job in queued]
                there += waiting
                if not waiting:
                    todo.append(task)
            submitted = cluster.submit(todo, after=after)
            if submitted:
                print(f"{kind}: submitted {ids(submitted.values())}")
            after = arrays_of([*there, *submitted.values()]) or after
    print("next: --status says how far they are; the same command without --no_wait goes on")


def stands(states: Mapping[Task, TaskState]) -> list[str]:
    """What is worth another look soon when it changes."""
    return [state.kind for state in states.values()]


def arrays_of(jobs: Iterable[str]) -> list[str]:
    """The arrays of jobs, each once."""
    return sorted({array_of(job) for job in jobs}, key=int)


def ids(jobs: Collection[str]) -> str:
    """Jobs for people: `8 jobs, array 12`."""
    count = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
    arrays = arrays_of(jobs)
    return f"{count}, {'array' if len(arrays) == 1 else 'arrays'} {', '.join(arrays)}"


def last_line(log: Path) -> str:
    """The last line of a log that says something; srun adds some on how the job ended."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        return f"none ({error.strerror})"
    said = [line.strip() for line in lines if line.strip()]
    own = [line for line in said if not line.startswith("srun: ")]
    return (own or said or ["empty"])[-1]
