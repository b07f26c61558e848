"""A task of a sweep, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memorization_suite.runs.claims import State
from memorization_suite.runs.shards import WHOLE, Shard


@dataclass(frozen=True)
class Task:
    """Something that one process does."""

    # For files: unique in the sweep, and the same in every command of the same runs.
    name: str
    # "images", "scores" or "page".
    kind: str
    # Place of its run in the sweep; None for the page.
    run: int | None = None
    # The piece of the run, of images.
    shard: Shard = WHOLE


@dataclass(frozen=True)
class TaskState:
    """Where a task stands."""

    # "done", "failed", "running", "ready", or "waiting" for other tasks.
    kind: str
    # Why it failed, and where there is more.
    message: str = ""
    log: str = ""
    # Images of the task that are there, and that there will be.
    there: int = 0
    wanted: int = 0
    # Its last claim; None when nobody took it.
    claim: State | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left for this command."""
        return self.kind in ("done", "failed")

    @property
    def number(self) -> int:
        """Of its last claim; 0 when nobody took it."""
        return self.claim.number if self.claim else 0


def scores_in(states: Mapping[Task, TaskState]) -> dict[str, int]:
    """The scores that a page can show: the claim of each that is done, which tells it from others
    of the same run.
    """
    return {
        task.name: state.number
        for task, state in states.items()
        if task.kind == "scores" and state.kind == "done"
    }


def starts_of(state: TaskState) -> int:
    """The how manieth start of a task this is, of those in a row that ended without a new image.

    After one that was interrupted on purpose, or asked for again, the count begins anew.
    """
    last = state.claim
    if last is None or last.about.get("there") != state.there:
        return 1
    outcome = "stopped" if last.over is None else last.over.get("outcome")
    # Images of a task that came to its end, and that nobody sees, are none.
    if outcome == "stopped" or (outcome == "done" and state.wanted):
        return last.about.get("starts", 0) + 1
    return 1
