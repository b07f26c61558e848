"""`jobs/sweep.json`: what a process elsewhere needs to work on a sweep, or to say how far it is."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memorization_suite.commands.generate_plan import Plan
from memorization_suite.mitigation.registry import METHODS
from memorization_suite.pipelines.models import MODELS
from memorization_suite.prompts.sets import is_hub
from memorization_suite.runs.files import kind_of_place, write_json
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.places import is_of_path
from memorization_suite.runs.plugins import PLUGINS
from memorization_suite.runs.run_folder import Key
from memorization_suite.runs.settings import flag_owners
from memorization_suite.runs.shards import Shard
from memorization_suite.runs.text import said_by

# Below the folder of the sweep.
FOLDER = "jobs"
SCHEMA = 1
# Typed flags that say where a command stands and what it prints, and nothing of the run.
NOT_KEPT = ("output_path", "quiet")
# Of a run's folder, in names of files.
LONGEST = 80


@dataclass(frozen=True)
class Member:
    """A run of a sweep."""

    # Its own settings, and common ones that vary.
    name: str
    # Below the folder of the sweep.
    folder: str
    # Flags of generate_images.py, but for its folder; files by their whole paths.
    typed: dict[str, Any]
    # Rows of the prompt file: the first one, and the one after the last.
    start: int
    end: int
    # Images of a prompt.
    samples: int
    batch_size: int
    # What is kept beside an image.
    latents: bool
    trace: bool
    # How many pieces of batches it is made in.
    pieces: int

    def keys(self, shard: Shard) -> list[Key]:
        """The images of a piece."""
        rows = [row for row in range(self.start, self.end) if shard.has(row // self.batch_size)]
        return [Key(row, sample) for row in rows for sample in range(self.samples)]

    @property
    def stem(self) -> str:
        """A name for files, which tells the runs of a sweep apart and never changes."""
        readable = re.sub(r"[^A-Za-z0-9_.+-]", "-", self.folder)[:LONGEST]
        return f"{readable}_{hashlib.sha256(self.folder.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Record:
    """A sweep."""

    title: str
    # Whether the runs are scored and get a page.
    scores: bool
    # Files that are loaded first.
    plugins: list[str]
    runs: list[Member]

    def write(self, out: Path) -> None:
        """Keeps it below the folder of the sweep, if that has another one. Raises OSError."""
        if read_record(out) == self:
            return
        folder = out / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "sweep.json", {"schema": SCHEMA, **asdict(self)})


def read_record(out: Path) -> Record | None:
    """The sweep that was begun in a folder; None where none was. Raises ValueError."""
    file = out / FOLDER / "sweep.json"
    try:
        content = json_of(file.read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            raise ValueError(f"no sweep of schema {SCHEMA}")
        runs = [Member(**run) for run in content.pop("runs")]
        return Record(runs=runs, **content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if is_of_path(error):
            raise
        fault = kind_of_place(file) or said_by(error)
        raise ValueError(f"{file} is no record of a sweep ({fault}): move it away") from error


def member_of(name: str, plan: Plan, out: Path, pieces: int) -> Member:
    """What is kept of a planned run."""
    settings = plan.settings
    return Member(
        name,
        folder=plan.folder.relative_to(out).as_posix(),
        typed=typed_anywhere(plan.typed),
        start=plan.rows.start,
        end=plan.rows.stop,
        samples=settings.n_samples_per_prompt,
        batch_size=settings.batch_size,
        latents=settings.save_latents,
        trace=settings.trace,
        pieces=pieces,
    )


def typed_anywhere(typed: Mapping[str, Any]) -> dict[str, Any]:
    """Flags as they mean the same in every folder, for JSON."""
    kept = {}
    for name, value in typed.items():
        if name not in NOT_KEPT:
            plain = str(value) if isinstance(value, Path) else value
            kept[name] = os.path.abspath(plain) if names_file(name, plain) else plain
    return kept


def names_file(name: str, value: Any) -> bool:
    """Whether a flag's value is a path."""
    if name == "model_id":
        return value not in MODELS and Path(value).exists()
    if name == "tokenizer":
        return bool(value)
    if name == "preset":
        return value not in ("auto", "none")
    if name == "prompts":
        return bool(value) and not is_hub(value)
    owners = flag_owners(METHODS).get(name, [])
    return bool(value) and any(flag.metadata["file"] for _, flag in owners)


def pieces_of(plan: Plan, prompts_per_job: int | None) -> int:
    """Into how many pieces a run is divided that have at most so many prompts, or one batch."""
    if prompts_per_job is None:
        return 1
    rows = {key.prompt // plan.settings.batch_size for key in plan.wanted(plan.prompts)}
    batches_per_job = max(1, prompts_per_job // plan.settings.batch_size)
    return -(-len(rows) // batches_per_job)


def plugin_files() -> list[str]:
    """Files of the plugins that were loaded for this command."""
    loaded = [plugin.file for plugin in PLUGINS.values() if not plugin.installed]
    return [os.path.abspath(file) for file in loaded]
