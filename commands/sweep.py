"""Many runs from one file: images, scores, one page. A stopped sweep goes on."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization_suite.commands.generate import generate
from memorization_suite.commands.generate_plan import SCRIPT, Generation, Plan, Request, plan
from memorization_suite.commands.report import Page, report
from memorization_suite.commands.score import score
from memorization_suite.commands.settings import command_line
from memorization_suite.commands.sweep_file import Combination, read_sweep
from memorization_suite.pipelines import loading
from memorization_suite.runs.files import write_json
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.run_folder import RunFolder
from memorization_suite.runs.settings import flag_names

# General flags that may vary without a folder of their own: the run folder's name tells them, or
# they change no image.
NEED_NO_FOLDER = ("guidance_scale", "seed", "start", "end", "device", "output_path")


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
    for name in ("output_path", "overwrite"):
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


def sweep(
    entries: list[Entry],
    out: Path | str,
    *,
    title: str = "",
    scores: bool = True,
    again: bool = False,
) -> Page | None:
    """Makes what is missing, scores it, and writes out/report.html; None without scores.

    title: of the page. again: score also what was scored before. Raises ValueError for what the
    user can mend, OSError when a run failed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "a sweep is one process; divide the images of one run over GPUs with `accelerate "
            "launch generate_images.py ...`"
        )
    make_images(entries)
    if not scores:
        return None
    out = Path(out)
    score_images(entries, out / "scored.json", again=again)
    folders = [entry.plan.folder for entry in entries]
    return report(folders, out / "report.html", title=title or f"Sweep {out.name}")


def make_images(entries: list[Entry]) -> None:
    """Makes what is missing; neighbors that share a model load it once."""
    load = functools.lru_cache(maxsize=1)(loading.load_pipeline)
    with progress_of(entries) as progress:
        for number, entry in enumerate(entries, 1):
            print(f"[{number}/{len(entries)}] {entry.name}", flush=True)
            with error_of(f"run {number} of {len(entries)} ({entry.name}) was not made"):
                run = generate(entry.plan, load=load)
            print(run.summary)
            if run.made:
                progress.update(len(run.made))


def progress_of(entries: list[Entry]) -> Progress:
    """Of the images of all runs; each run has its own bar."""
    plans = [entry.plan for entry in entries]
    total = sum(len(plan.wanted(plan.prompts)) for plan in plans)
    return Progress(
        f"{total} images in {len(plans)} runs",
        total,
        unit="image",
        there=total - sum(len(plan.missing()) for plan in plans),
        drawn=False,
        quiet=any(plan.settings.quiet for plan in plans),
    )


def score_images(entries: list[Entry], record: Path, *, again: bool) -> None:
    """Scores the runs whose images were not scored yet; says once what there is to note.

    record: a file that keeps, for each run, when the images were finished that were scored.
    """
    scored = {}
    if record.exists() and not again:
        scored = json.loads(record.read_text(encoding="utf-8"))
    said: set[str] = set()
    for number, entry in enumerate(entries, 1):
        folder = entry.plan.folder
        manifest = RunFolder(folder).manifest() or {}
        finished = manifest.get("finished")
        if scored.get(str(folder)) == finished and (folder / "results.csv").exists():
            continue
        print(f"[{number}/{len(entries)}] scores of {entry.name}", flush=True)
        settings = entry.plan.settings
        with error_of(f"{folder} was not scored"):
            table = score(
                folder, prompts=settings.prompts, device=settings.device, quiet=settings.quiet
            )
        for note in table.notes:
            if note not in said:
                print(note, file=sys.stderr)
            said.add(note)
        scored[str(folder)] = finished
        write_json(record, scored)
