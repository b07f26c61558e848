"""Chooses an embedded model's guidance scale on its tuning split, by a fixed rule, before all else.

python -m experiments.tune_guidance --model_id tiny

Guidance is there to make images show what their caption says. Rule: the scale with which the most
images of ordinary captions show all their subjects; ties: the largest. Prints every scale tried,
writes tiny/evaluation/<model>_guidance.json, and begins presets.toml in the model's folder.
"""

from __future__ import annotations

import argparse

from memorization_suite import tiny
from memorization_suite.experiments.common import model_parser
from memorization_suite.experiments.evaluate_tiny import by_number
from memorization_suite.experiments.scored_run import scored_run
from memorization_suite.experiments.tune_presets import write_tables
from memorization_suite.pipelines.models import load_preset
from memorization_suite.runs.files import write_json

SCALES = (7.0, 4.5, 3.0, 2.0, 1.5)
GENERAL = {"image_length": tiny.pixels(), "scheduler": "keep"}


def try_scale(args: argparse.Namespace, scale: float) -> dict:
    """Shares of the tuning split's ordinary images that show all their subjects."""
    flags = {"preset": "none", "quiet": True, **GENERAL, "guidance_scale": scale}
    run = scored_run(args, "ordinary_tuning", **flags)
    shown = by_number(run)
    two = sum(len(run.captions[key.prompt].subjects) == 2 for key in run.rows) / len(run.rows)
    return {
        "guidance_scale": scale,
        "all subjects shown": round((1 - two) * shown["one"] + two * shown["two"], 3),
        **{f"captions of {number}": share for number, share in shown.items()},
    }


def main() -> None:
    """The command line."""
    args = model_parser(__doc__, samples=4, out="build/tuning").parse_args()
    tried = []
    for scale in SCALES:
        tried.append(try_scale(args, scale))
        print(tried[-1], flush=True)
    args.figures.mkdir(parents=True, exist_ok=True)
    write_json(args.figures / f"{args.model_id}_guidance.json", tried)
    best = max(tried, key=lambda line: line["all subjects shown"])
    general = {**GENERAL, "guidance_scale": best["guidance_scale"]}
    _, before = load_preset("auto", args.model_id)
    write_tables(args.model_id, {**before, "generate": general})


if __name__ == "__main__":
    main()
