"""How far a sweep is: a line a run, from what lies in its folder. No model is loaded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from memorization_suite.commands.sweeps.cluster import submitted_jobs
from memorization_suite.commands.sweeps.record import read_record
from memorization_suite.commands.sweeps.task import Task, TaskState
from memorization_suite.commands.sweeps.tasks import Tasks
from memorization_suite.commands.sweeps.watch import images_there
from memorization_suite.commands.sweeps.work import place_of
from memorization_suite.runs import slurm
from memorization_suite.runs.claims import BEAT, State
from memorization_suite.runs.marks import Marks
from memorization_suite.runs.progress import duration_text
from memorization_suite.runs.text import counted, table_text

# Seconds without a sign of a holder after which one is told when it is taken for dead.
LONG = 3 * BEAT
# Holders of a run that are named one by one.
NAMED = 3


@dataclass(frozen=True)
class Status:
    """Where a sweep stands."""

    # Columns of each run.
    rows: list[dict[str, str]]
    # A line for all of them.
    summary: str
    # How many runs failed; the page counts as one.
    failed: int

    def __str__(self) -> str:
        return f"{table_text(self.rows)}\n{self.summary}"


def status_of(tasks: Tasks, states: Mapping[Task, TaskState] | None = None) -> Status:
    """Where every run stands. states: if they are known already."""
    states = states or tasks.states()
    queue = queued_tasks(tasks.folder)
    rows = []
    not_finite = 0
    for place, run in enumerate(tasks.record.runs):
        own = {task: state for task, state in states.items() if task.run == place}
        marks = marks_there(tasks, place)
        rows.append({"run": run.name, **columns(own, queue), "to know": "; ".join(marks.texts)})
        not_finite += len(marks.not_finite)
    page = {task: state for task, state in states.items() if task.kind == "page"}
    for state in page.values():
        if state.kind in ("failed", "running"):
            rows.append({"run": "the page", **columns(page, queue), "to know": ""})
    failed = sum(row["state"] == "failed" for row in rows)
    done = sum(row["state"] == "done" for row in rows)
    wanted = sum(state.wanted for state in states.values())
    summary = (
        f"{done} of {len(tasks.record.runs)} runs done, {images_there(states)} of {wanted} images "
        f"there, {failed} failed"
    )
    if not_finite:
        summary += f", {counted(not_finite, 'image')} not finite"
    return Status(rows, summary, failed)


def marks_there(tasks: Tasks, place: int) -> Marks:
    """Which images of a run are not finite, or of one color, of those that have their rows."""
    try:
        rows = tasks.folder_of(place).costs()
    except ValueError:  # a broken table, which fails where it is worked on
        return Marks()
    return Marks.of(rows, rows)


def read_status(out: Path) -> Status | None:
    """Where the sweep of a folder stands; None when none was begun there. Raises ValueError."""
    record = read_record(out)
    return None if record is None else status_of(Tasks(out, record))


# --- a run ---


def columns(states: Mapping[Task, TaskState], queue: Mapping[str, str]) -> dict[str, str]:
    """State, images, message and log of a run, of its tasks.

    queue: task name -> the job that waits for its turn.
    """
    there = images_there(states)
    wanted = sum(state.wanted for state in states.values())
    text, message, log = said_of(states, queue)
    return {
        "state": text,
        "images": f"{there} of {wanted}" if wanted else "",
        "message": message,
        "log": log,
    }


def said_of(states: Mapping[Task, TaskState], queue: Mapping[str, str]) -> tuple[str, str, str]:
    """(state, message, log) of a run."""
    for state in states.values():
        if state.kind == "failed":
            return "failed", state.message, state.log
    running = {task: state for task, state in states.items() if state.kind == "running"}
    if running:
        scored = next(iter(running)).kind == "scores"
        what = "being scored" if scored else "running"
        return what, holders_text(list(running.values())), log_of_holder(running)
    left = [task.name for task, state in states.items() if not state.is_over]
    waiting = [queue[name] for name in left if name in queue]
    if waiting:
        more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        return "in the queue", f"job {waiting[0]}{more}", ""
    if all(state.kind == "done" for state in states.values()):
        return "done", "", ""
    return left_alone(states)


def left_alone(states: Mapping[Task, TaskState]) -> tuple[str, str, str]:
    """The same of a run that is not done, and that nobody works on."""
    for state in states.values():
        if state.claim and state.claim.is_dead:
            who = state.claim.holder or "its process"
            log = state.claim.about.get("log", "")
            return "stopped", f"{who} is gone; the next worker takes it over", log
    images = [state for state in states.values() if state.wanted]
    if images and all(state.kind == "done" for state in images):
        return "not scored", "", ""
    missing = [
        str(task.shard)
        for task, state in states.items()
        if task.kind == "images" and state.kind != "done"
    ]
    begun = [state for state in images if state.kind != "done" and (state.claim or state.there)]
    if images_there(states) and not begun:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return "waiting", f"for piece {missing[0]}{more}, which nobody began", ""
    return ("stopped" if images_there(states) else "not begun"), "", ""


def log_of_holder(running: Mapping[Task, TaskState]) -> str:
    """Where the first of those who work writes what it has to say."""
    for state in running.values():
        if state.claim and state.claim.about.get("log"):
            return str(state.claim.about["log"])
    return ""


def holders_text(running: list[TaskState]) -> str:
    """Who works on a run, how long it still takes, and when they were heard of."""
    named = "; ".join(holder_text(state) for state in running[:NAMED])
    more = len(running) - NAMED
    return f"{named}; and {more} more" if more > 0 else named


def holder_text(state: TaskState) -> str:
    """`process 12 on host, about 4 min left, heard of 12 s ago`."""
    parts = [place_of(state)]
    if state.claim:
        left = seconds_left(state, state.claim)
        if left is not None:
            parts.append(f"about {duration_text(left)} left")
        parts.append(f"heard of {duration_text(state.claim.silent)} ago")
        if state.claim.silent > LONG and not state.claim.is_near:
            rest = duration_text(max(0.0, state.claim.patience - state.claim.silent))
            parts.append(f"taken for dead in {rest}")
    return ", ".join(parts)


def seconds_left(state: TaskState, claim: State) -> float | None:
    """How long a task still takes, by its pace since it was taken; None before its first image."""
    made = state.there - int(claim.about.get("there", 0))
    if made <= 0 or not claim.since:
        return None
    begun = datetime.fromisoformat(claim.since).astimezone(UTC).timestamp()
    # Clocks of two machines differ.
    passed = max(1.0, time.time() - begun)
    return (state.wanted - state.there) * passed / made


# --- jobs of Slurm ---


def queued_tasks(folder: Path) -> dict[str, str]:
    """Task name -> its job that waits or begins. folder: of the tasks."""
    submitted = submitted_jobs(folder)
    queued = (slurm.queued_jobs() if submitted else None) or {}
    waiting = {}
    for task, jobs in submitted.items():
        for job in jobs:
            if job in queued:
                waiting[task] = f"{job} ({queued[job].lower()})"
    return waiting
