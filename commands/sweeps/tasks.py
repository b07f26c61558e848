"""A sweep as tasks, for as many processes as there are: images of a piece of a run, scores of a
run, and the page.

Whoever works takes a task that is ready under a claim (`runs.claims`), does it, and notes how it
ended. What is done is seen in the run folders, so that a claim that breaks costs time and no
result.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from memorization_suite.commands.generate_plan import Plan, plan
from memorization_suite.commands.sweeps.jobs import (
    DeviceLost,
    make_images,
    message_of,
    score_run,
    works,
    write_page,
)
from memorization_suite.commands.sweeps.record import FOLDER, Member, Record, read_record
from memorization_suite.commands.sweeps.task import Task, TaskState, scores_in, starts_of
from memorization_suite.runs.claims import Claim, Claims, State
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.plugins import load_plugin
from memorization_suite.runs.run_folder import Key, RunFolder
from memorization_suite.runs.shards import WHOLE, Shard
from memorization_suite.runs.text import is_full

# A task is given up when so many processes in a row ended in it without a new image.
MOST_STARTS = 3


class Tasks:
    """The tasks of a sweep."""

    def __init__(self, out: Path, record: Record):
        self.out = out
        self.record = record
        # Of claims, logs and what else processes tell each other.
        self.folder = (out / FOLDER).absolute()
        self.claims = Claims(self.folder / "claims")
        # Where this process runs, and where its output goes, for those who look.
        self.place = ""
        self.log = ""
        # The piece of every run that this process makes.
        self.shard = WHOLE
        # Runs that were planned, by place. Others are planned when they are worked on.
        self.plans: dict[int, Plan] = {}
        # What was said of scores in this process.
        self.said: set[str] = set()
        # What was seen to be done, and the number of its last claim then: it is not looked at again
        # before the next claim.
        self.done: dict[Task, int] = {}
        # Whether this process was told to end.
        self.is_ending = False

    @cached_property
    def tasks(self) -> list[Task]:
        """Every task: first all images, then all scores, then the page."""
        tasks = [task for pieces in self.pieces for task in pieces]
        if self.record.scores:
            for place, run in enumerate(self.record.runs):
                tasks.append(Task(f"scores_{run.stem}", "scores", place))
            tasks.append(Task("page", "page"))
        return tasks

    @cached_property
    def pieces(self) -> list[list[Task]]:
        """The tasks of each run's images."""
        runs = []
        for place, run in enumerate(self.record.runs):
            pieces = []
            for shard in Shard(count=run.pieces).siblings():
                piece = f"_{shard.number}of{shard.count}" if shard else ""
                pieces.append(Task(f"images_{run.stem}{piece}", "images", place, shard))
            runs.append(pieces)
        return runs

    def is_mine(self, task: Task) -> bool:
        """Whether this process may do it: with `shard` only its pieces."""
        return task.kind != "images" or not self.shard or task.shard == self.shard

    def label(self, task: Task) -> str:
        """What people call it: `[3/8] scores of gamma=3`, `[3/8] gamma=3, piece 1/4`."""
        if task.run is None:
            return "the page"
        of_scores = "scores of " if task.kind == "scores" else ""
        piece = f", piece {task.shard}" if task.shard else ""
        return self.run_label(task.run, of_scores) + piece

    def run_label(self, run: int, what: str = "") -> str:
        """What people call a run. what: the begin of its name."""
        runs = self.record.runs
        return f"[{run + 1}/{len(runs)}] {what}{runs[run].name}"

    def folder_of(self, run: int) -> RunFolder:
        """The folder of a run."""
        return RunFolder(self.out / self.record.runs[run].folder)

    def plan_of(self, run: int) -> Plan:
        """The checked run. Raises ValueError, for example when a prompt file is gone."""
        if run not in self.plans:
            member = self.record.runs[run]
            # Above the method and its settings.
            above = (self.out / member.folder).parents[1]
            self.plans[run] = plan(**{**member.typed, "output_path": str(above)})
        return self.plans[run]

    # --- where they stand ---

    def states(self) -> dict[Task, TaskState]:
        """Where every task stands; each folder is read once."""
        look = Look(self)
        return {task: look.state(task) for task in self.tasks}

    def state(self, task: Task) -> TaskState:
        """Where a task stands now."""
        return Look(self).state(task)

    def ask_again(self, *, rescore: bool = False) -> None:
        """What failed is to be tried again, the page to be written anew, and with `rescore` every
        run to be scored again. A new command calls it once. Raises OSError.
        """
        for task, state in self.states().items():
            ended = state.claim is not None and state.claim.over is not None
            again = state.kind == "failed" or task.kind == "page"
            again = again or (rescore and task.kind == "scores")
            if ended and again and self.is_mine(task):
                claim = self.claims.take(task.name)
                if claim:
                    claim.end(outcome="again")
                    self.done.pop(task, None)

    # --- work ---

    def do(self, task: Task, load: Callable | None = None) -> dict[str, Any] | None:
        """Does a task that is ready, and notes how it ended. Returns what was noted; None when it
        is not ready, for example since another process is at it.

        load: in the place of `load_pipeline`. An error of the task is noted as its failure; the
        others go on. Raises DeviceLost when the device is broken, OSError when nothing can be
        noted.
        """
        state = self.state(task)
        if state.kind != "ready":
            return None
        starts = starts_of(state)
        about = {"there": state.there, "starts": starts, "place": self.place, "log": self.log}
        claim = self.claims.take(task.name, **about)
        if claim is None or self.was_over(claim, state.claim):
            return None
        if starts > MOST_STARTS:
            last = state.claim.about if state.claim else {}
            what = f"its process ended {MOST_STARTS} times in a row without a new image"
            return self.note(claim, outcome="failed", message=what, log=last.get("log", ""))
        if task.run is not None:
            print(self.label(task), flush=True)
        return self.do_claimed(task, claim, load)

    def was_over(self, claim: Claim, seen: State | None) -> bool:
        """Whether the task came to an end between the look at it and the claim; then that stands.

        seen: its last claim at that look.
        """
        for before in self.claims.history(claim.name):
            is_new = seen is None or before.number > seen.number
            if before.number == claim.number - 1 and is_new and before.over is not None:
                claim.end(**before.over)
                return True
        return False

    def do_claimed(self, task: Task, claim: Claim, load: Callable | None) -> dict[str, Any]:
        """Does a task under its claim."""
        try:
            facts = self.work(task, claim, load)
        except BaseException as error:
            if self.is_ending or not isinstance(error, Exception):  # its time is over, or Ctrl-C
                on_purpose = isinstance(error, KeyboardInterrupt) and not self.is_ending
                self.note(claim, outcome="interrupted" if on_purpose else "stopped")
                raise
            if is_full(error):  # so it is for all other tasks
                with suppress(OSError):
                    self.note(claim, outcome="interrupted")
                raise
            if isinstance(error, (ValueError, OSError)):
                return self.note_failure(task, claim, error)
            device = self.device_of(task)
            if works(device):
                return self.note_failure(task, claim, error)
            self.note(claim, outcome="stopped", message=f"{device} failed")
            raise DeviceLost(f"{device} failed: {message_of(error)}") from error
        return self.note(claim, outcome="done", **facts)

    def work(self, task: Task, claim: Claim, load: Callable | None) -> dict[str, Any]:
        """What the task asks for. Returns what is to be noted."""
        if task.run is None:
            states = self.states()
            folders, failed = self.for_page(states)
            claim.check()
            facts = write_page(folders, self.out, self.record.title, failed)
            return {**facts, "shown": scores_in(states)}
        planned = self.plan_of(task.run)
        if task.kind == "scores":
            return score_run(planned, self.said)
        return make_images(planned.piece(task.shard), load)

    def for_page(
        self, states: Mapping[Task, TaskState]
    ) -> tuple[list[Path], list[tuple[str, str]]]:
        """(folders of the runs that are scored, names of the others and why they are not)."""
        folders = []
        failed = []
        for task, state in states.items():
            if task.kind == "scores" and task.run is not None:
                if state.kind == "done":
                    folders.append(self.folder_of(task.run).path)
                else:
                    failed.append((self.record.runs[task.run].name, state.message))
        return folders, failed

    def device_of(self, task: Task) -> str:
        """What a task runs on."""
        planned = None if task.run is None else self.plans.get(task.run)
        return planned.settings.device if planned else "cpu"

    def note(self, claim: Claim, **facts: Any) -> dict[str, Any]:
        """Ends a claim, and returns how. Raises OSError, and then nobody waits for this process."""
        try:
            claim.end(**facts)
        except OSError:
            claim.withdraw()
            raise
        return facts

    def note_failure(self, task: Task, claim: Claim, error: Exception) -> dict[str, Any]:
        """Notes why a task failed, with everything that is known in a file of its own."""
        message = message_of(error)
        log = self.folder / "logs" / f"{task.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(log, "".join(traceback.format_exception(error)).encode())
        print(f"{self.label(task)} failed: {message}", file=sys.stderr, flush=True)
        return self.note(claim, outcome="failed", message=message, log=str(log))


class Look:
    """One look at a sweep: each folder and each claim is read once."""

    def __init__(self, tasks: Tasks):
        self.tasks = tasks
        # Read before the images: whoever ended a claim has made its images by then.
        self.claims = tasks.claims.latest()
        self.found: dict[Task, TaskState] = {}
        self.complete: dict[int, set[Key]] = {}

    def state(self, task: Task) -> TaskState:
        """Where a task stands."""
        if task not in self.found:
            judge = {"images": self.images, "scores": self.scores, "page": self.page}
            try:
                state = judge[task.kind](task)
            except ValueError as error:  # a file in its folder is damaged
                state = TaskState("failed", str(error), claim=self.last(task))
            if state.kind == "done":
                self.tasks.done[task] = state.number
            self.found[task] = state
        return self.found[task]

    def images(self, task: Task) -> TaskState:
        """Of a piece of a run: done when no image of it is missing, and nobody is closing it."""
        assert task.run is not None
        run = self.tasks.record.runs[task.run]
        wanted = run.keys(task.shard)
        there = len(wanted)
        if task not in self.tasks.done:
            there = len(self.whole(task.run, run).intersection(wanted))
        last = self.last(task)
        state = self.claimed(task)
        if there == len(wanted) and not (last and last.is_held):
            state = TaskState("done", claim=last)
        return replace(state, there=there, wanted=len(wanted))

    def whole(self, place: int, run: Member) -> set[Key]:
        """The images of a run that are there."""
        if place not in self.complete:
            folder = self.tasks.folder_of(place)
            self.complete[place] = folder.complete(latents=run.latents, trace=run.trace)
        return self.complete[place]

    def scores(self, task: Task) -> TaskState:
        """Of a run: ready when its images are there."""
        assert task.run is not None
        pieces = [self.state(piece) for piece in self.tasks.pieces[task.run]]
        for piece in pieces:
            if piece.kind == "failed":
                return TaskState("failed", piece.message, piece.log)
        if any(piece.kind != "done" for piece in pieces):
            return TaskState("waiting", "its images")
        last = self.last(task)
        if self.tasks.done.get(task) == (last.number if last else 0):  # seen before
            return TaskState("done", claim=last)
        folder = self.tasks.folder_of(task.run)
        finished = (folder.manifest() or {}).get("finished")
        over = self.ending(task)
        same = over.get("outcome") == "done" and over.get("finished") == finished
        gone = over.get("table") and not (folder.path / "results.csv").exists()
        if same and not gone:
            return TaskState("done", claim=last)
        return self.claimed(task)

    def page(self, task: Task) -> TaskState:
        """Ready when all else is over; done when it shows the present scores."""
        others = {other: self.state(other) for other in self.tasks.tasks if other != task}
        if not all(state.is_over for state in others.values()):
            return TaskState("waiting", "the runs", claim=self.last(task))
        there = (self.tasks.out / "report.html").exists()
        over = self.ending(task)
        if there and over.get("outcome") == "done" and over.get("shown") == scores_in(others):
            return TaskState("done", claim=self.last(task))
        return self.claimed(task)

    def claimed(self, task: Task) -> TaskState:
        """Of a task that is not done what its last claim says."""
        last = self.last(task)
        if last is not None and last.is_held:
            return TaskState("running", claim=last)
        over = self.ending(task)
        if over.get("outcome") == "failed":
            return TaskState("failed", over["message"], over["log"], claim=last)
        return TaskState("ready", claim=last)

    def ending(self, task: Task) -> dict[str, Any]:
        """How the last claim of a task ended; nothing if it did not."""
        last = self.last(task)
        return (last.over if last else None) or {}

    def last(self, task: Task) -> State | None:
        """The last claim of a task."""
        return self.claims.get(task.name)


def open_tasks(out: Path) -> Tasks:
    """The tasks of the sweep that was begun in a folder, after its plugins were loaded.

    Raises ValueError when none was.
    """
    record = read_record(out)
    if record is None:
        raise ValueError(f"no sweep was begun in {out}: python sweep.py FILE.toml begins one")
    for file in record.plugins:
        load_plugin(file)
    return Tasks(out, record)
