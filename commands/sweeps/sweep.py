"""Many runs from one file: images, scores, one page. A stopped sweep goes on."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memorization_suite.commands.generate import generate
from memorization_suite.commands.generate_plan import SCRIPT, Generation, Plan, Request, plan
from memorization_suite.commands.room import bytes_of_images, check_room
from memorization_suite.commands.settings import command_line
from memorization_suite.commands.sweeps.cluster import Cluster
from memorization_suite.commands.sweeps.driver import DRIVER, drive
from memorization_suite.commands.sweeps.file import Combination, count_runs, read_sweep
from memorization_suite.commands.sweeps.launch import Launch
from memorization_suite.commands.sweeps.local import run_here
from memorization_suite.commands.sweeps.record import (
    Member,
    Record,
    member_of,
    pieces_of,
    plugin_files,
    read_record,
    typed_anywhere,
)
from memorization_suite.commands.sweeps.status import Status, queued_tasks, status_of
from memorization_suite.commands.sweeps.tasks import Tasks
from memorization_suite.runs.places import check_place
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.run_folder import RunFolder
from memorization_suite.runs.settings import flag_names
from memorization_suite.runs.text import counted, fault_text
from memorization_suite.runs.whole import sizes_in

# General flags that may vary without a folder of their own: the run folder's name tells them, or
# they change no image.
NEED_NO_FOLDER = ("guidance_scale", "seed", "start", "end", "device", "output_path")
# Runs whose planning takes a while.
MANY = 500
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
    return planned_of(plan_runs(Path(file), Path(out), typed, begun=[]))


def plan_again(
    file: Path | str, out: Path | str, begun: Record, /, **typed: Any
) -> list[Entry | Member]:
    """The same of a sweep that was begun. A run that cannot be planned any more, as when its prompt
    file is gone, stays as it was begun, and fails where it is worked on.

    Raises ValueError for one that was not begun, and when no run can be planned.
    """
    return plan_runs(Path(file), Path(out), typed, begun=begun.runs)


def planned_of(runs: Iterable[Entry | Member]) -> list[Entry]:
    """Those that could be planned."""
    return [run for run in runs if isinstance(run, Entry)]


def plan_runs(
    file: Path, out: Path, typed: dict[str, Any], begun: Sequence[Member]
) -> list[Entry | Member]:
    """Every run; one that cannot be planned, as it was begun. Raises ValueError without that."""
    for name in ("output_path", "overwrite", "shard"):
        if name in typed:
            raise ValueError(f"--{name} is no flag of a sweep (--help lists all)")
    total = count_runs(file, typed)
    quiet = typed.get("quiet", False) or total < MANY
    with Progress(f"planning {total} runs", total, unit="run", quiet=quiet) as progress:
        return planned_one_by_one(file, out, typed, begun, progress)


def planned_one_by_one(
    file: Path,
    out: Path,
    typed: dict[str, Any],
    begun: Sequence[Member],
    progress: Progress,
) -> list[Entry | Member]:
    """`plan_runs`, which says how far it is."""
    runs = read_sweep(file, typed)
    entries: dict[Path, Entry | Member] = {}
    for number, (run, folder) in enumerate(zip(runs, folders_above(runs)), 1):
        above = out / folder
        progress.update(1)
        try:
            with error_of(f"{file}, run {number} of {len(runs)} ({run.label})"):
                planned = plan(**run.settings, **typed, output_path=str(above))
        except ValueError as error:
            same = Combination(run.label, {**run.settings, **typed})
            member = next((member for member in begun if is_same(member, same)), None)
            if member is None or (number == len(runs) and not planned_of(entries.values())):
                raise
            print(f"{error}; the other runs go on", file=sys.stderr)
            entries.setdefault(out / member.folder, member)
            continue
        entry = Entry(run.label, planned)
        twin = entries.setdefault(planned.folder, entry)
        if isinstance(twin, Entry) and what_is_made(twin.plan) != what_is_made(planned):
            raise ValueError(
                f"{file}: '{twin.name}' and '{entry.name}' would share the folder "
                f"{planned.folder}, and are not the same (of a number its name has six digits)"
            )
    return list(entries.values())


def is_same(member: Member, run: Combination) -> bool:
    """Whether a run was begun with the same flags."""
    return member.name == run.label and member.typed == typed_anywhere(run.settings)


def folder_flags(runs: list[Combination]) -> list[str]:
    """General flags that vary, and that a run folder's name does not tell."""
    varying = []
    for name in sorted(set(flag_names(Generation)).difference(NEED_NO_FOLDER)):
        values = {repr(run.settings.get(name)) for run in runs}
        if len(values) > 1:
            varying.append(name)
    return varying


def folders_above(runs: Sequence[Combination]) -> list[str]:
    """Of each run the folder above <method>/<settings>: the general flags that vary, and their
    values. Of a path that is its last part, or as many as tell the runs apart.
    """
    varying = folder_flags(list(runs))
    values = [tuple(str(run.settings.get(name, "default")) for name in varying) for run in runs]
    most = 1 + max((value.count("/") for each in values for value in each), default=0)
    found: dict[tuple[str, ...], str] = {}
    for length in range(1, most + 1):
        left = set(values) - found.keys()
        names = {each: folder_above(varying, each, length) for each in set(values)}
        shared = Counter(names.values())
        found |= {each: names[each] for each in left if shared[names[each]] == 1}
    return [found.get(each, folder_above(varying, each, 1)) for each in values]


def folder_above(names: Sequence[str], values: Sequence[str], length: int) -> str:
    """Flags and their values, of a path so many last parts, as a folder may be called."""
    parts = [name + last_parts(value, length) for name, value in zip(names, values)]
    return "_".join(parts)


def last_parts(path: str, length: int) -> str:
    """The last parts of a path as a folder may be called."""
    last = "-".join(path.rstrip("/").split("/")[-length:])
    return re.sub(r"[^\w.-]", "-", last).lstrip(".") or "-"


def what_is_made(planned: Plan) -> tuple:
    """Images, everything that decides their bytes, and what is kept beside them."""
    settings = planned.settings
    kept = (settings.save_latents, settings.trace)
    return planned.identity, planned.rows, kept


@contextmanager
def error_of(what: str) -> Iterator[None]:
    """Says of an error what it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    except OSError as error:
        named = OSError(f"{what}: {fault_text(error)}")
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
    runs: Sequence[Entry | Member],
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
    entries = planned_of(runs)
    check_place(out, "--output_path")
    check_folders(runs, out, elsewhere=launch.is_slurm)
    tasks = begin(runs, out, title or f"Sweep {out.name}", scores=scores, launch=launch)
    tasks.ask_again(rescore=again)
    quiet = any(entry.plan.settings.quiet for entry in entries)
    if cluster is not None:
        drive(tasks, cluster, wait=not launch.no_wait, quiet=quiet)
    else:
        say_there(tasks)
        devices = {entry.plan.settings.device for entry in entries}
        run_here(tasks, devices, launch.jobs, quiet=quiet)
    if not launch.no_wait:
        close_whole(tasks)
    return outcome_of(tasks)


def check_folders(runs: Sequence[Entry | Member], out: Path, *, elsewhere: bool) -> None:
    """Raises ValueError when a run's folder holds another run.

    elsewhere: whether the work is done on other machines, whose devices this one does not know.
    """
    for number, entry in enumerate(runs, 1):
        if isinstance(entry, Member):
            continue
        folder = RunFolder(entry.plan.folder)
        with error_of(f"run {number} of {len(runs)} ({entry.name})"):
            manifest = folder.manifest()
            if manifest is None:
                continue
            identity = dict(entry.plan.identity)
            if elsewhere:
                there = manifest["identity"]
                identity |= {name: there[name] for name in OF_DEVICE if name in there}
            folder.check_identity(manifest, identity, base=out)


def begin(
    runs: Sequence[Entry | Member], out: Path, title: str, *, scores: bool, launch: Launch
) -> Tasks:
    """The tasks of the sweep, which other processes find below its folder. Raises ValueError while
    others work on something else there.
    """
    members = []
    plans = {}
    for place, run in enumerate(runs):
        if isinstance(run, Member):
            members.append(replace(run, pieces=launch.piece.count) if launch.piece else run)
        else:
            pieces = max(launch.piece.count, pieces_of(run.plan, launch.prompts_per_job))
            members.append(member_of(run.name, run.plan, out, pieces))
            plans[place] = run.plan
    tasks = Tasks(out, Record(title, scores=scores, plugins=plugin_files(), runs=members))
    tasks.plans = plans
    tasks.shard = launch.piece
    check_others(tasks)
    check_room_of_runs(tasks)
    tasks.record.write(out)
    return tasks


def check_room_of_runs(tasks: Tasks) -> None:
    """Raises ValueError when the images that are missing have no room."""
    missing: Counter[int] = Counter()
    for task, state in tasks.states().items():
        if task.kind == "images" and task.run in tasks.plans and tasks.is_mine(task):
            missing[task.run] += state.wanted - state.there
    size = 0.0
    for place, images in missing.items():
        # Pictures without their rows are replaced, and need no more room.
        pictures = sizes_in(tasks.plans[place].folder, ".png") if images else {}
        whole = tasks.folder_of(place).done("images") if pictures else set()
        missing[place] = max(0, images - max(0, len(pictures) - len(whole)))
        size += bytes_of_images(tasks.plans[place], missing[place])
    check_room(tasks.out, size, counted(missing.total(), "image"))


def check_others(tasks: Tasks) -> None:
    """Raises ValueError while other processes work on tasks that this sweep does not have, or
    another command drives it as something else.
    """
    before = read_record(tasks.out)
    if before is None or before == tasks.record:
        return
    instead = "Wait for its end, or give another --output_path"
    driver = tasks.claims.look(DRIVER)
    if driver and driver.is_held:
        holder = driver.holder or "another process"
        raise ValueError(
            f"{holder} drives the sweep in {tasks.out} with other runs, pieces or flags. {instead}"
        )
    own = {task.name for task in tasks.tasks}
    others = [task.name for task in Tasks(tasks.out, before).tasks if task.name not in own]
    claims = tasks.claims.latest()
    waiting = queued_tasks(tasks.folder) if others else {}
    for name in others:
        last = claims.get(name)
        holders = [str(last.holder or "another process")] if last and last.is_held else []
        if name in waiting:
            holders.append(f"job {waiting[name]}")
        if holders:
            raise ValueError(
                f"{holders[0]} works on {tasks.out} with other runs or other pieces of them "
                f"({name}). {instead}"
            )


def say_there(tasks: Tasks) -> None:
    """Says which runs are there, or which pieces of them with --shard; and where their files lie
    now, which may have moved.
    """
    states = tasks.states()
    for place, planned in tasks.plans.items():
        own = [states[task] for task in tasks.pieces[place] if tasks.is_mine(task)]
        if all(state.kind == "done" for state in own) and any(state.wanted for state in own):
            print(tasks.run_label(place), flush=True)
            print(generate(planned.piece(tasks.shard)).summary)


def close_whole(tasks: Tasks) -> None:
    """Closes the runs whose images are all there, where the last process died before it did so.

    Raises OSError.
    """
    states = tasks.states()
    for place, pieces in enumerate(tasks.pieces):
        if all(states[task].kind == "done" for task in pieces):
            tasks.folder_of(place).close_if_whole()


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
