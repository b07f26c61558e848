"""What changes in a sweep while other processes work on it, said by the one that watches."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from memorization_suite.commands.sweeps.task import Task, TaskState
from memorization_suite.commands.sweeps.tasks import Tasks
from memorization_suite.commands.sweeps.work import place_of
from memorization_suite.runs import notices
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.text import counted


class Watch:
    """Looks at a sweep now and then.

    with Watch(tasks, quiet=False) as watch:
        states = watch.look()
    """

    def __init__(self, tasks: Tasks, *, quiet: bool):
        self.tasks = tasks
        self.states = tasks.states()
        self.relay = notices.Relay(tasks.folder / notices.FILE)
        self.progress = progress_of(tasks, self.states, quiet=quiet)

    def __enter__(self) -> Watch:
        self.progress.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.progress.__exit__(*error)

    def look(self) -> dict[Task, TaskState]:
        """Says what is new, and returns where every task stands."""
        self.relay.say()
        before = self.states
        self.states = self.tasks.states()
        for task, state in self.states.items():
            if state.kind != before[task].kind:
                self.say(task, state)
        made = images_there(self.states) - images_there(before)
        if made > 0:
            self.progress.update(made)
        return self.states

    def say(self, task: Task, state: TaskState) -> None:
        """A line for a task that was begun, that is done, or that failed."""
        label = self.tasks.label(task)
        if state.kind == "running" and state.claim:
            print(f"{label}: {place_of(state)}", flush=True)
        elif state.kind == "done":
            images = f", {counted(state.wanted, 'image')}" if task.kind == "images" else ""
            print(f"{label}: done{images}", flush=True)
        elif state.kind == "failed" and state.claim:
            where = f" ({state.log})" if state.log else ""
            print(f"{label} failed: {state.message}{where}", file=sys.stderr, flush=True)


def progress_of(tasks: Tasks, states: Mapping[Task, TaskState], *, quiet: bool) -> Progress:
    """Of the images of all runs."""
    total = sum(state.wanted for state in states.values())
    return Progress(
        f"{counted(total, 'image')} in {counted(len(tasks.record.runs), 'run')}",
        total,
        unit="image",
        there=images_there(states),
        drawn=False,
        quiet=quiet,
    )


def images_there(states: Mapping[Task, TaskState]) -> int:
    """How many images of the sweep there are."""
    return sum(state.there for state in states.values())
