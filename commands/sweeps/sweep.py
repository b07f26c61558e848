"""Many runs from one file: images, scores, one page. A stopped sweep goes on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization_suite.commands.generate import generate
from memorization_suite.commands.generate_plan import SCRIPT, Generation, Plan, Request, plan
from memorization_suite.commands.settings import command_line
from memorization_suite.commands.sweeps.cluster import Cluster
from memorization_suite.commands.sweeps.driver import drive
from memorization_suite.commands.sweeps.file import Combination, read_sweep
from memorization_suite.commands.sweeps.launch import Launch
from memorization_suite.commands.sweeps.local import run_here
from memorization_suite.commands.sweeps.record import (
    Record,
    member_of,
    pieces_of,
    plugin_files,
    read_record,
)
from memorization_suite.commands.sweeps.status import Status, status_of
from memorization_suite.commands.sweeps.tasks import Tasks
from memorization_suite.runs.run_folder import RunFolder
from memorization_suite.runs.settings import flag_names

# General flags that may vary without a folder of their own: the run folder's name tells them, or
# they change no image.
NEED_NO_FOLDER = ("guidance_scale", "seed", "start", "end", "device", "output_path")
# What an identity has of the device, which another machine may not know yet.
OF_DEVICE = ("device", "dtype", "tf32", "derivatives")


@dataclass(frozen=True)
class Entry:
    """One run of a sweep."""

    # Its own settings, and common ones that vary.
    name: str
    plan: Plan

    @property
    def command(self) -> str:
        """What one would type to make the run alone."""
        return command_line(SCRIPT, self.plan.typed, Request)


# --- planning ---


def plan_sweep(file: Path | str, out: Path | str, /, **typed: Any) -> list[Entry]:
    """Every run, once, below `out`. No model is loaded.

    typed: flags of generate_images.py by name, which win over the file's. A run lies in
    <method>/<settings>_seed<seed>; a general flag that varies and is not told there (steps, model,
    prompt file, ...) is a folder above. Raises ValueError that says which run is wrong.
    """
    for name in ("output_path", "overwrite", "shard"):
        if name in typed:
            raise ValueError(f"--{name} is no flag of a sweep (--help lists all)")
    runs = read_sweep(Path(file), typed)
    varying = folder_flags(runs)
    entries: dict[Path, Entry] = {}
    for number, run in enumerate(runs, 1):
        parts = [folder_part(name, run) for name in varying]
        above = Path(out) / "_".join(parts)
        with error_of(f"{file}, run {number} of {len(runs)} ({run.label})"):
            planned = plan(**run.settings, **typed, output_path=str(above))
        entry = Entry(run.label, planned)
        twin = entries.setdefault(planned.folder, entry)
        if what_is_made(twin.plan) != what_is_made(planned):
            raise ValueError(
                f"{file}: '{twin.name}' and '{entry.name}' would share the folder "
                f"{planned.folder}, and are not the same"
            )
    return list(entries.values())


def folder_flags(runs: list[Combination]) -> list[str]:
    """General flags that vary, and that a run folder's name does not tell."""
    varying = []
    for name in sorted(set(flag_names(Generation)).difference(NEED_NO_FOLDER)):
        values = {repr(run.settings.get(name)) for run in runs}
        if len(values) > 1:
            varying.append(name)
    return varying


def folder_part(name: str, run: Combination) -> str:
    """A flag and its value as part of a folder's name: of a path the last part."""
    value = str(run.settings.get(name, "default"))
    last = value.rstrip("/").rsplit("/", 1)[-1]
    possible = re.sub(r"[^\w.-]", "-", last).lstrip(".")
    return name + (possible or "-")


def what_is_made(planned: Plan) -> tuple:
    """Images, everything that decides their bytes, and what is kept beside them."""
    settings = planned.settings
    kept = (settings.save_latents, settings.trace)
    return planned.identity, settings.start, settings.end, kept


@contextmanager
def error_of(what: str) -> Iterator[None]:
    """Says of an error what it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    except OSError as error:
        named = OSError(f"{what}: {error}")
        for note in getattr(error, "__notes__", []):
            named.add_note(note)
        raise named from error


# --- work ---


@dataclass(frozen=True)
class Outcome:
    """A sweep at the end of its command."""

    status: Status
    # The line of the page that was written, and where it is; None without one.
    summary: str | None
    page: Path | None
    # Images that other pieces lack, with --shard.
    lacking: int = 0


def sweep(
    entries: list[Entry],
    out: Path | str,
    *,
    title: str = "",
    scores: bool = True,
    again: bool = False,
    launch: Launch | None = None,
) -> Outcome:
    """Makes what is missing, scores it, and writes out/report.html. A run that fails does not end
    the others.

    title: of the page. scores: without them there is no page. again: score also what was scored
    before. launch: where the work is done. Raises ValueError for what the user can mend, OSError
    when nothing can be done any more.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "a sweep is one process, which starts others itself (--jobs); divide the images of one "
            "run over GPUs with `accelerate launch generate_images.py ...`"
        )
    launch = launch or Launch()
    launch.check()
    out = Path(out)
    cluster = Cluster(out, launch.slurm, launch.jobs) if launch.is_slurm else None
    check_folders(entries, elsewhere=launch.is_slurm)
    tasks = begin(entries, out, title or f"Sweep {out.name}", scores=scores, launch=launch)
    tasks.ask_again(rescore=again)
    quiet = any(entry.plan.settings.quiet for entry in entries)
    if cluster is not None:
        drive(tasks, cluster, wait=not launch.no_wait, quiet=quiet)
    else:
        say_there(tasks, entries)
        devices = {entry.plan.settings.device for entry in entries}
        run_here(tasks, devices, launch.jobs, quiet=quiet)
    return outcome_of(tasks)


def check_folders(entries: list[Entry], *, elsewhere: bool) -> None:
    """Raises ValueError when a run's folder holds another run.

    elsewhere: whether the work is done on other machines, whose devices this one does not know.
    """
    for number, entry in enumerate(entries, 1):
        folder = RunFolder(entry.plan.folder)
        with error_of(f"run {number} of {len(entries)} ({entry.name})"):
            manifest = folder.manifest()
            if manifest is None:
                continue
            identity = dict(entry.plan.identity)
            if elsewhere:
                there = manifest["identity"]
                identity |= {name: there[name] for name in OF_DEVICE if name in there}
            folder.check_identity(manifest, identity)


def begin(entries: list[Entry], out: Path, title: str, *, scores: bool, launch: Launch) -> Tasks:
    """The tasks of the sweep, which other processes find below its folder. Raises ValueError while
    others work on something else there.
    """
    runs = []
    for entry in entries:
        pieces = max(launch.piece.count, pieces_of(entry.plan, launch.prompts_per_job))
        runs.append(member_of(entry.name, entry.plan, out, pieces))
    tasks = Tasks(out, Record(title, scores=scores, plugins=plugin_files(), runs=runs))
    tasks.plans = {place: entry.plan for place, entry in enumerate(entries)}
    tasks.shard = launch.piece
    check_others(tasks)
    tasks.record.write(out)
    return tasks


def check_others(tasks: Tasks) -> None:
    """Raises ValueError while other processes work on tasks that this sweep does not have."""
    own = {task.name for task in tasks.all()}
    before = read_record(tasks.out)
    others = Tasks(tasks.out, before).all() if before else []
    claims = tasks.claims.every()
    for task in others:
        for state in claims.get(task.name, []):
            if task.name not in own and state.is_held:
                raise ValueError(
                    f"{state.holder} works on {tasks.out} with other runs or other pieces of them "
                    f"({task.name}). Wait for its end, or give another --output_path"
                )


def say_there(tasks: Tasks, entries: list[Entry]) -> None:
    """Says which runs are there, or which pieces of them with --shard; and where their files lie
    now, which may have moved.
    """
    states = tasks.states()
    for place, entry in enumerate(entries):
        own = [states[task] for task in tasks.pieces[place] if tasks.is_mine(task)]
        if all(state.kind == "done" for state in own) and any(state.wanted for state in own):
            print(tasks.run_label(place), flush=True)
            print(generate(entry.plan.piece(tasks.shard)).summary)


def outcome_of(tasks: Tasks) -> Outcome:
    """What came of a sweep."""
    states = tasks.states()
    summary = None
    lacking = 0
    for task, state in states.items():
        if task.kind == "page" and state.kind == "done" and state.claim and state.claim.over:
            summary = state.claim.over["summary"]
        if not tasks.is_mine(task):
            lacking += state.wanted - state.there
    return Outcome(
        status_of(tasks, states),
        summary,
        page=tasks.out / "report.html" if summary else None,
        lacking=lacking,
    )
