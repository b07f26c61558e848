"""Files of the localization: statistics of ordinary prompts, and the neurons of memorized ones."""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from memorization_suite.mitigation.nemo.search import PromptSearch, Statistics
from memorization_suite.runs.batches import Row
from memorization_suite.runs.elsewhere import free_place, suffix_of
from memorization_suite.runs.files import kind_of_place, write_bytes, write_json
from memorization_suite.runs.identity import differences, differing
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.store import Store
from memorization_suite.runs.tables import whole
from memorization_suite.runs.text import fault_of_reading

SCHEMA = 2  # of statistics
# Those of files that were made before, with thresholds of another similarity.
FORMER = (1,)
MAKE_STATISTICS = (
    "Make one: python mitigation/nemo/localize_neurons.py statistics --model_id MODEL "
    "--prompts ORDINARY --out FILE"
)
# Identity of a search, and caption -> what it found.
Stored = tuple[dict, dict[str, PromptSearch]]


# --- statistics ---


def write_statistics(path: Path, statistics: Statistics, settings: dict) -> None:
    """One .safetensors file: mean.<layer>, std.<layer>; settings and threshold in its metadata."""
    from safetensors.torch import save

    tensors = {f"mean.{name}": values for name, values in statistics.mean.items()}
    tensors |= {f"std.{name}": values for name, values in statistics.std.items()}
    stored = {"schema": SCHEMA, "threshold": statistics.threshold, **settings}
    write_bytes(path, save(tensors, {"settings": json.dumps(stored)}))


def read_statistics(path: Path) -> tuple[Statistics, dict]:
    """(statistics, settings). Raises ValueError for a file that is none of `write_statistics`."""
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    try:
        with safe_open(path, "pt") as file:
            settings = settings_in(file.metadata() or {})
            check_schema(path, settings)
            for name in list(file.keys()):
                kind, _, layer = name.partition(".")
                tensors[kind][layer] = file.get_tensor(name)
        threshold = float(settings.pop("threshold"))
    except OtherVersion:
        raise
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        fault = kind_of_place(path) or fault_of_reading(error)
        raise ValueError(
            f"{path} is no statistics file of localize_neurons.py ({fault}). {MAKE_STATISTICS}"
        ) from error
    return Statistics(tensors["mean"], tensors["std"], threshold), settings


class OtherVersion(ValueError):
    """A whole file that another version made; the message is for people."""


def settings_in(metadata: dict[str, str]) -> dict:
    """What a file of statistics was made with. Raises ValueError, KeyError."""
    settings = json_of(metadata["settings"])
    if not isinstance(settings, dict):
        raise ValueError("its settings are no table")
    return settings


def check_schema(path: Path, settings: dict) -> None:
    """Takes the schema out of the settings. Raises OtherVersion, KeyError."""
    schema = settings.pop("schema")
    if schema == SCHEMA:
        return
    if schema in FORMER:
        raise OtherVersion(
            f"{path} was made by an older version, whose threshold is of another similarity. "
            f"{MAKE_STATISTICS}"
        )
    raise OtherVersion(
        f"{path} was made by another version (schema {schema}; this one reads {SCHEMA}). "
        f"{MAKE_STATISTICS}"
    )


# --- neurons ---


def as_json(search: PromptSearch) -> dict[str, Any]:
    """Its fields by name; None for nan, which JSON lacks."""
    values = asdict(search)
    for name, value in values.items():
        if value != value:
            values[name] = None
    return values


def of_json(values: dict[str, Any]) -> PromptSearch:
    """The inverse of `as_json`. Raises KeyError for a field that is missing."""
    known: dict[str, Any] = {}
    for option in fields(PromptSearch):
        value = values[option.name]
        known[option.name] = math.nan if value is None else value
    return PromptSearch(**known)


def position(row: Row) -> int:
    """Which of the prompts a row is about."""
    return whole(row, "position")


class SearchFolder(Store):
    """What a running search has so far: a row a prompt, values as JSON."""

    tables = {"prompts": position}
    what = "search"

    def add_searches(self, first: int, searches: Iterable[tuple[str, PromptSearch]]) -> None:
        """Keeps prompts' searches, on disk at once. first: the position of the first of them."""
        rows = []
        for i, (caption, search) in enumerate(searches, first):
            cells = {name: json.dumps(value) for name, value in as_json(search).items()}
            rows.append({"position": i, "caption": caption, **cells})
        self.add(f"{first:06d}", prompts=rows)

    def searches(self) -> dict[str, PromptSearch]:
        """Caption -> search, in the order in which they were added. Raises as `of_json`."""
        by_caption = {}
        for row in self.rows("prompts"):
            values = {option.name: json_of(row[option.name]) for option in fields(PromptSearch)}
            by_caption[row["caption"]] = of_json(values)
        return by_caption


class NeuronFile:
    """The file of neurons, and beside it, while a search runs, the folder `.NAME.work`.

    A stopped search goes on from the folder. Prompts that the file has already stay in it, so that
    a search can be widened.
    """

    def __init__(self, path: Path, model: str, settings: dict):
        self.path = path
        self.model = model
        # Everything that decides what is found.
        self.settings = settings
        # Caption -> search, of all prompts so far.
        self.searches: dict[str, PromptSearch] = {}
        self.folder = SearchFolder(self.work_of(path))
        self.goes_on = False

    @staticmethod
    def work_of(path: Path) -> Path:
        """The folder of a running search beside its file."""
        return path.with_name(f".{path.name}.work")

    @property
    def identity(self) -> dict:
        """What makes two searches the same."""
        return {**self.settings, "model": self.model}

    def open(self, *, overwrite: bool) -> None:
        """Reads what is there. Raises ValueError when that is of another search, or is no search.

        A running search counts more than the finished file, which it has taken in.
        """
        if overwrite:
            return
        running = self.read(self.folder.path, self.read_folder)
        self.goes_on = bool(running)
        self.searches = running or self.read(self.path, self.read_file)

    def read(self, path: Path, reader: Callable[[], Stored]) -> dict[str, PromptSearch]:
        """The searches at a path; none if nothing is there. Raises ValueError."""
        if not path.exists():
            return {}
        try:
            identity, searches = reader()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            fault = kind_of_place(path) if path == self.path else ""
            fault = fault or fault_of_reading(error)
            raise ValueError(
                f"{path} is no neuron file of localize_neurons.py ({fault}). Give another --out, "
                "or --overwrite."
            ) from error
        config = self.folder.readable_config()
        changed = differing(identity, self.identity, config)
        if changed:
            told = "; ".join(differences(identity, self.identity, config))
            place = free_place(
                self.path, suffix_of(changed, config), lambda file: not file.exists()
            )
            raise ValueError(
                f"{path} holds another search ({told}). Give this one a file of its own with "
                f"--out {place}, or --overwrite to start over."
            )
        return searches

    def read_folder(self) -> Stored:
        """Of a search that was stopped; one that had found nothing is as good as none."""
        searches = self.folder.searches()
        if not searches:
            return self.identity, {}
        return (self.folder.manifest() or {})["identity"], searches

    def read_file(self) -> Stored:
        """Of the finished file."""
        whole = json_of(self.path.read_text(encoding="utf-8"))
        searches = {}
        for caption, neurons in whole["prompts"].items():
            searches[caption] = of_json({"neurons": neurons, **whole["figures"][caption]})
        return {**whole["settings"], "model": whole["model"]}, searches

    def start(self, config: dict) -> None:
        """Begins the folder, or goes on in it. config: all arguments, for people."""
        self.folder.path.mkdir(exist_ok=True)
        self.folder.start(self.identity, config=config, overwrite=not self.goes_on)
        if self.searches and not self.goes_on:
            self.folder.add_searches(0, self.searches.items())

    def add(self, caption: str, search: PromptSearch) -> None:
        """Keeps one prompt's search, on disk at once."""
        self.folder.add_searches(len(self.searches), [(caption, search)])
        self.searches[caption] = search

    def finish(self) -> None:
        """Writes the whole file, and removes the folder."""
        prompts = {}
        figures = {}
        for caption, search in self.searches.items():
            values = as_json(search)
            prompts[caption] = values.pop("neurons")
            figures[caption] = values
        whole = {"model": self.model, "settings": self.settings}
        write_json(self.path, {**whole, "prompts": prompts, "figures": figures})
        shutil.rmtree(self.folder.path)
