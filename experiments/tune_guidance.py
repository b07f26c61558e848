"""Chooses an embedded model's guidance scale on its tuning split, by a fixed rule, before all else.

python -m experiments.tune_guidance --model_id tiny

Guidance makes images show what their caption says, and their colors too strong. Rule: the scale
that meets most of the three goals of the model card that depend on it; ties: the largest. Prints
every scale tried, writes tiny/evaluation/<model>_guidance.json, and begins presets.toml in the
model's folder.
"""

from __future__ import annotations

import argparse

from memorization_suite import tiny
from memorization_suite.experiments.common import model_parser
from memorization_suite.experiments.evaluate_tiny import by_number, distances_of_copies
from memorization_suite.experiments.scored_run import scored_run
from memorization_suite.experiments.tune_presets import write_tables
from memorization_suite.pipelines.models import load_preset
from memorization_suite.runs.files import write_json

SCALES = (7.0, 4.5, 3.0, 2.0, 1.5)
GENERAL = {"image_length": tiny.pixels(), "scheduler": "keep"}
# The goals: shares of ordinary images that show the one subject, and both of two; RMSE of copies.
ONE, TWO, DISTANCE = 0.85, 0.7, 0.08


def try_scale(args: argparse.Namespace, scale: float) -> dict:
    """What the goals are about, on the tuning split."""
    flags = {"preset": "none", "quiet": True, **GENERAL, "guidance_scale": scale}
    ordinary = scored_run(args, "ordinary_tuning", **flags)
    memorized = scored_run(args, "memorized_tuning", **flags)
    return {
        "guidance_scale": scale,
        **by_number(ordinary),
        "copies": memorized.copies(),
        "distance of copies": distances_of_copies(memorized)["all"],
    }


def goals_met(line: dict) -> int:
    """How many of the three."""
    distance = line["distance of copies"]
    met = [line["one"] >= ONE, line["two"] >= TWO, distance is not None and distance <= DISTANCE]
    return sum(met)


def choose(tried: list[dict]) -> float:
    """The rule of this file's docstring. tried: the largest scale first."""
    return max(tried, key=goals_met)["guidance_scale"]


def main() -> None:
    """The command line."""
    args = model_parser(__doc__, samples=4, out="build/tuning").parse_args()
    tried = []
    for scale in SCALES:
        tried.append(try_scale(args, scale))
        print(tried[-1], flush=True)
    args.figures.mkdir(parents=True, exist_ok=True)
    write_json(args.figures / f"{args.model_id}_guidance.json", tried)
    general = {**GENERAL, "guidance_scale": choose(tried)}
    _, before = load_preset("auto", args.model_id)
    write_tables(args.model_id, {**before, "generate": general})


if __name__ == "__main__":
    main()
