"""The loop of whoever works on a sweep: take what is ready, until nothing is left to wait for."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from memorization_suite.commands.sweeps.task import Task, TaskState
from memorization_suite.commands.sweeps.tasks import Tasks
from memorization_suite.pipelines import loading
from memorization_suite.runs.progress import Progress

# Seconds between two looks while others work: at least, at most, and how many times as long as a
# look takes, which reads the rows of every run that is not done.
PAUSE = 2.0
LONGEST_PAUSE = 60.0
SHARE = 20
# After another process was faster, as one that has looked at the same may be.
SHORT_PAUSE = 0.1


def work(tasks: Tasks, load: Callable | None = None, progress: Progress | None = None) -> None:
    """Does every task that is ready and not taken, and waits for what others do.

    load: in the place of `load_pipeline`; else neighbors that share a model load it once. progress:
    of the images. Raises DeviceLost when the device is broken, OSError when nothing can be noted.
    """
    load = load or functools.lru_cache(maxsize=1)(loading.load_pipeline)
    is_said = False
    while True:
        states, taken = timed(tasks.states)
        task = first_ready(tasks, states)
        if task is None:
            held = worth_waiting(tasks, states)
            if not held:
                return
            if not is_said:
                say_held(tasks, held)
                is_said = True
            time.sleep(pause_after(taken, PAUSE))
            continue
        facts = tasks.do(task, load)
        if facts is None:
            time.sleep(max(SHORT_PAUSE, taken))
        elif progress is not None and facts.get("made"):
            progress.update(facts["made"])


def timed(look: Callable[[], Any]) -> tuple[Any, float]:
    """(what a look finds, the seconds that it took)."""
    start = time.monotonic()
    found = look()
    return found, time.monotonic() - start


def pause_after(taken: float, least: float) -> float:
    """Seconds until the next look, at least so many. taken: what the last one took."""
    return min(LONGEST_PAUSE, max(least, SHARE * taken))


def first_ready(tasks: Tasks, states: Mapping[Task, TaskState]) -> Task | None:
    """What this process does next, if there is something."""
    for task, state in states.items():
        if state.kind == "ready" and tasks.is_mine(task):
            return task
    return None


def worth_waiting(tasks: Tasks, states: Mapping[Task, TaskState]) -> dict[Task, TaskState]:
    """What others hold and this process waits for; with --shard only images of its own piece."""
    held = {}
    for task, state in states.items():
        own = tasks.is_mine(task) and (task.kind == "images" or not tasks.shard)
        if state.kind == "running" and own:
            held[task] = state
    return held


def say_held(tasks: Tasks, held: Mapping[Task, TaskState]) -> None:
    """Says who works on what is left, a line for each process."""
    by_holder: dict[str, list[Task]] = {}
    for task, state in held.items():
        by_holder.setdefault(place_of(state), []).append(task)
    for holder, theirs in by_holder.items():
        more = f" and {len(theirs) - 1} more" if len(theirs) > 1 else ""
        claim = held[theirs[0]].claim
        until = f"; {claim.until}" if claim else ""
        print(f"waiting for {holder}: {tasks.label(theirs[0])}{more}{until}", file=sys.stderr)
    sys.stderr.flush()


def place_of(state: TaskState) -> str:
    """Who holds a task, and on which device."""
    claim = state.claim
    holder = str(claim.holder) if claim and claim.holder else "another process"
    place = claim.about.get("place") if claim else ""
    return f"{place}, {holder}" if place else holder
