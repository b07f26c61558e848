"""Chooses the embedded model's presets on its tuning split, by a fixed rule.

python -m experiments.tune_presets --model_id tiny

Prints every setting tried and writes presets.toml into the model's folder. Rule: the setting whose
share of images that show the caption's subject, less its share of copies, is largest; ties: the
first in experiments/grids.py. Targets are multiples of the ordinary captions' mean magnitude on the
tuning split.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

from memorization_suite import tiny
from memorization_suite.experiments.common import model_parser
from memorization_suite.experiments.evaluate_tiny import ordinary_magnitude
from memorization_suite.experiments.grids import grids
from memorization_suite.experiments.scored_run import load_once, scored_run
from memorization_suite.pipelines.models import load_preset
from memorization_suite.runs.files import write_bytes, write_json

# Tables that name a file; they are in the presets if it is there.
FILES = {
    "nemo": {"neurons": "./neurons.json"},
    "stability": {"statistics": "./stability_7.5.json"},
}


def is_file(value: Any) -> bool:
    """Whether a setting names a file in the model's folder."""
    return isinstance(value, str) and value.startswith("./")


def try_setting(args: argparse.Namespace, method: str, settings: dict[str, Any]) -> dict:
    """Copies and subjects over the tuning split. Files are named relative to the model's folder."""
    folder = tiny.MODELS[args.model_id]
    flags = {}
    for name, value in settings.items():
        flags[name] = str(folder / value) if is_file(value) else value
    general = load_preset("auto", args.model_id)[1]["generate"]
    run = scored_run(
        args, "memorized_tuning", preset="none", method=method, quiet=True, **general, **flags
    )
    return {
        "method": method,
        **settings,
        "copies": run.copies(),
        "subject shown": run.average("subject_shown"),
        "NFE": run.column("unet_evals"),
    }


def choose(tried: list[dict]) -> dict:
    """The rule of this file's docstring."""
    return max(tried, key=lambda line: line["subject shown"] - line["copies"])


# --- the preset file


def toml(tables: dict[str, dict]) -> str:
    """Tables of numbers and texts."""
    texts = []
    for name, table in tables.items():
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in table.items()]
        texts.append(f"[{name}]\n{''.join(lines)}")
    return "\n".join(texts)


def missing_file(model_id: str, settings: list[dict]) -> str | None:
    """The first file that the settings name and that is not there."""
    values = itertools.chain.from_iterable(table.values() for table in settings)
    for file in filter(is_file, values):
        if not (tiny.MODELS[model_id] / file).is_file():
            return file
    return None


def relative(table: dict, model_id: str) -> dict:
    """File names as they stand in a preset: relative to the model's folder."""
    folder = f"{tiny.MODELS[model_id]}/"
    made = {}
    for name, value in table.items():
        inside = isinstance(value, str) and value.startswith(folder)
        made[name] = value.replace(folder, "./", 1) if inside else value
    return made


def write_tables(model_id: str, tables: dict[str, dict]) -> None:
    """presets.toml of the model, also printed: `generate`, then the methods by name."""
    methods = {name: relative(table, model_id) for name, table in tables.items()}
    ordered = {"generate": methods.pop("generate"), **dict(sorted(methods.items()))}
    header = (
        "# Written by experiments/tune_guidance.py and tune_presets.py from the tuning split.\n"
    )
    text = toml(ordered)
    write_bytes(tiny.MODELS[model_id] / "presets.toml", (header + text).encode())
    print(text)


# --- trying


def try_all(args: argparse.Namespace, settings: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Method -> a line a setting, for the methods whose files are there."""
    tried = {"no_mitigation": [try_setting(args, "no_mitigation", {})]}
    for method, grid in settings.items():
        missing = missing_file(args.model_id, grid)
        if missing:
            print(f"{method}: left out, there is no {missing}")
            continue
        tried[method] = [try_setting(args, method, values) for values in grid]
        for line in tried[method]:
            print(line, flush=True)
    return tried


def write_tried(file: Path, tried: dict[str, list[dict]], *, more: bool) -> None:
    """What was tried, as JSON. more: beside what the file has of other methods."""
    file.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(file.read_text()) if more and file.exists() else {}
    write_json(file, before | tried)


def main() -> None:
    """The command line."""
    parser = model_parser(__doc__, samples=2, out="build/tuning")
    parser.add_argument(
        "--methods", nargs="+", help="only these; the other presets stay (default: all)"
    )
    args = parser.parse_args()
    level = ordinary_magnitude(load_once(args.model_id), args.model_id)
    settings = grids(level)
    names = args.methods or list(settings)
    settings = {name: grid for name, grid in settings.items() if name in names}
    tried = try_all(args, settings)
    write_tried(args.figures / f"{args.model_id}_tuning.json", tried, more=bool(args.methods))
    before = load_preset("auto", args.model_id)[1]
    chosen = {name: table for name, table in before.items() if name not in names}
    for method, grid in settings.items():
        if method in tried:
            best = choose(tried[method])
            chosen[method] = {name: best[name] for name in grid[0]}
    for name, table in FILES.items():
        if not missing_file(args.model_id, [table]):
            chosen[name] = table
    write_tables(args.model_id, chosen)


if __name__ == "__main__":
    main()
