"""Files of the localization: statistics of ordinary prompts, and neurons found so far."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from memorization_suite.localization.search import Found, Statistics
from memorization_suite.runs.files import write_bytes, write_json

SCHEMA = 1


def write_statistics(path: Path, statistics: Statistics, settings: dict) -> None:
    """One .safetensors file: mean.<layer>, std.<layer>; settings (JSON) and the threshold in its
    metadata.
    """
    from safetensors.torch import save

    tensors = {
        f"{kind}.{name}": values
        for kind in ("mean", "std")
        for name, values in getattr(statistics, kind).items()
    }
    write_bytes(
        path,
        save(
            tensors,
            {
                "settings": json.dumps(
                    {"schema": SCHEMA, "threshold": statistics.threshold, **settings}
                )
            },
        ),
    )


def read_statistics(path: Path) -> tuple[Statistics, dict]:
    """(statistics, settings). Raises ValueError for a file that is none of `write_statistics`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            settings = json.loads(file.metadata()["settings"])
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
        if settings.pop("schema") != SCHEMA:
            raise ValueError(f"not of schema {SCHEMA}")
        threshold = float(settings.pop("threshold"))
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is no statistics file of localize_neurons.py ({type(error).__name__}: {error})"
        ) from error
    parts = {
        kind: {
            name.removeprefix(f"{kind}."): values
            for name, values in tensors.items()
            if name.startswith(f"{kind}.")
        }
        for kind in ("mean", "std")
    }
    return Statistics(parts["mean"], parts["std"], threshold), settings


def line(value: dict) -> str:
    """One line of JSON."""
    return json.dumps(value, ensure_ascii=False) + "\n"


class NeuronFile:
    """The file of neurons, and beside it, while the search runs, NAME.part.jsonl with a line a
    prompt: a stopped search goes on.

    settings: everything that decides what is found. Prompts that the file has already are kept, so
    that a search can be widened.
    """

    def __init__(self, path: Path, model: str, settings: dict):
        self.path, self.part = path, path.with_name(f"{path.name}.part.jsonl")
        self.head = json.loads(json.dumps({"model": model, "settings": settings}))
        self.found: dict[str, dict] = {}
        self.running = False

    def open(self, *, overwrite: bool) -> None:
        """Reads what is there. Raises ValueError when that is of another search, or nothing can be
        written there.
        """
        if not self.path.parent.is_dir() or self.path.is_dir():
            raise ValueError(f"--out {self.path} is no file name in a folder that exists")
        path, read = (
            (self.part, self.read_part) if self.part.exists() else (self.path, self.read_whole)
        )
        if overwrite or not path.exists():
            return
        try:
            head, found = read()
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(
                f"{path} is no neuron file of localize_neurons.py. Give another --out, or "
                "--overwrite."
            ) from error
        self.check(path, head)
        self.found = found

    def check(self, path: Path, head: dict) -> None:
        """Raises ValueError that names what differs."""
        before, after = (
            {**head["settings"], "model": head["model"]},
            {**self.head["settings"], "model": self.head["model"]},
        )
        names = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
        changed = [f"{name}: {before.get(name)!r} there, {after.get(name)!r} now" for name in names]
        if changed:
            raise ValueError(
                f"{path} holds another search ({'; '.join(changed)}). Give another --out, or "
                "--overwrite to start over."
            )

    def read_whole(self) -> tuple[dict, dict[str, dict]]:
        """(head, caption -> entry) of the finished file."""
        whole = json.loads(self.path.read_text(encoding="utf-8"))
        return whole, {
            caption: {"neurons": neurons, **whole["figures"][caption]}
            for caption, neurons in whole["prompts"].items()
        }

    def read_part(self) -> tuple[dict, dict[str, dict]]:
        """(head, caption -> entry) of the running file; a last line that was cut off is passed
        over.
        """
        lines = self.part.read_text(encoding="utf-8").split("\n")[:-1]
        return json.loads(lines[0]), {
            entry.pop("caption"): entry for entry in map(json.loads, lines[1:])
        }

    def add(self, caption: str, found: Found) -> None:
        """Keeps one prompt's neurons, on disk at once."""
        entry = {
            name: None if value != value else value for name, value in asdict(found).items()
        }  # JSON has no nan
        if not self.running:
            lines = [
                self.head,
                *({"caption": before, **kept} for before, kept in self.found.items()),
            ]
            write_bytes(
                self.part, "".join(map(line, lines)).encode()
            )  # anew, without a last line that was cut off
            self.running = True
        with open(self.part, "a", encoding="utf-8") as file:
            file.write(line({"caption": caption, **entry}))
            file.flush()
            os.fsync(file.fileno())
        self.found[caption] = entry

    def finish(self) -> None:
        """Writes the whole file and removes the running one."""
        prompts = {caption: entry["neurons"] for caption, entry in self.found.items()}
        figures = {
            caption: {name: value for name, value in entry.items() if name != "neurons"}
            for caption, entry in self.found.items()
        }
        write_json(self.path, {**self.head, "prompts": prompts, "figures": figures})
        self.part.unlink(missing_ok=True)
