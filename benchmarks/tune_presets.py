"""Chooses the embedded model's presets on its tuning split, by a fixed rule.

python -m benchmarks.tune_presets --model_id tiny        # prints every setting tried and writes
presets.toml into the model's folder

Rule: the setting whose share of images that show the caption's subject, less its share of copies,
is largest; ties: the first in benchmarks/grids.py. Targets are multiples of the ordinary captions'
mean magnitude on the tuning split.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from memorization_suite.benchmarks.evaluate_tiny import magnitudes
from memorization_suite.benchmarks.grids import grids
from memorization_suite.benchmarks.scored_run import scored_run
from memorization_suite.metrics.embedded import TINY, read_captions
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.pipelines.models import EMBEDDED, load_preset
from memorization_suite.runs.files import write_bytes, write_json

GENERAL = {"image_length": 32, "scheduler": "keep"}
FILES = {
    "nemo": {"neurons": "./neurons.json"},
    "stability": {"statistics": "./stability_7.5.json"},
}  # named if they are there


def try_setting(args, method: str, settings: dict) -> dict:
    """Copies and subjects over the tuning split. Files are named relative to the model's folder."""
    folder = EMBEDDED[args.model_id]
    values = {
        name: str(folder / value) if isinstance(value, str) and value.startswith("./") else value
        for name, value in settings.items()
    }
    typed = [
        text for name, value in (GENERAL | values).items() for text in (f"--{name}", str(value))
    ]
    run = scored_run(
        args.model_id,
        "memorized_tuning",
        args.out,
        ["--preset", "none", "--method", method, "--quiet", *typed],
        samples=args.samples,
    )
    return {
        "method": method,
        **settings,
        "copies": run.copies(),
        "subject shown": run.shown(),
        "UNet rows": run.column("unet_evals"),
    }


def choose(tried: list[dict]) -> dict:
    """The rule of this file's docstring."""
    return max(tried, key=lambda line: line["subject shown"] - line["copies"])


def toml(tables: dict[str, dict]) -> str:
    """Tables of numbers and texts."""

    def lines(table):
        return "".join(f"{key} = {value!r}\n".replace("'", '"') for key, value in table.items())

    return "\n".join(f"[{name}]\n{lines(table)}" for name, table in tables.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_id", default="tiny", choices=list(EMBEDDED))
    parser.add_argument("--samples", type=int, default=2, help="images per prompt")
    parser.add_argument(
        "--methods", nargs="+", help="only these; the other presets stay (default: all)"
    )
    parser.add_argument("--out", type=Path, default=Path("build/tuning"))
    args = parser.parse_args()
    pipe = load_pipeline(args.model_id)
    level = float(
        torch.mean(
            magnitudes(
                pipe, read_captions(TINY / "prompts" / f"{args.model_id}_ordinary_tuning.csv")
            )
        )
    )
    tried = {"no_mitigation": [try_setting(args, "no_mitigation", {})]}
    file = TINY / "evaluation" / f"{args.model_id}_tuning.json"
    names = args.methods or list(grids(args.model_id, level))
    chosen = {
        name: table
        for name, table in load_preset("auto", args.model_id)[1].items()
        if name not in names
    }
    for method, settings in grids(args.model_id, level).items():
        if method not in names:
            continue
        if missing := missing_file(args.model_id, settings):
            print(f"{method}: left out, there is no {missing}")
            continue
        tried[method] = [try_setting(args, method, one) for one in settings]
        best = choose(tried[method])
        chosen[method] = {name: best[name] for name in settings[0]}
        for line in tried[method]:
            print(line, flush=True)
    file.parent.mkdir(exist_ok=True)
    before = json.loads(file.read_text()) if file.exists() and args.methods else {}
    write_json(file, before | tried)
    header = (
        "# Written by benchmarks/tune_presets.py from the tuning split; ordinary captions "
        f"have a mean magnitude of {level:.3f}.\n"
    )
    chosen |= {
        name: table for name, table in FILES.items() if not missing_file(args.model_id, [table])
    }
    tables = {"generate": GENERAL} | {
        name: relative(table, args.model_id)
        for name, table in sorted(chosen.items())
        if name != "generate"
    }
    write_bytes(EMBEDDED[args.model_id] / "presets.toml", (header + toml(tables)).encode())
    print(toml(tables))


def missing_file(model_id: str, settings: list[dict]) -> str | None:
    """The first file that the settings name and that is not there."""
    names = [
        value
        for one in settings
        for value in one.values()
        if isinstance(value, str) and value.startswith("./")
    ]
    return next((name for name in names if not (EMBEDDED[model_id] / name).is_file()), None)


def relative(table: dict, model_id: str) -> dict:
    """File names as they stand in a preset: relative to the model's folder."""
    start = f"{EMBEDDED[model_id]}/"
    return {
        name: f"./{value.removeprefix(start)}"
        if isinstance(value, str) and value.startswith(start)
        else value
        for name, value in table.items()
    }


if __name__ == "__main__":
    main()
