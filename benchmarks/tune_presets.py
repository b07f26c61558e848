"""Chooses the embedded model's presets on its tuning split, by a fixed rule.

python -m benchmarks.tune_presets --model_id tiny        # prints every setting tried and writes presets.toml into the model's folder

Rule: of the settings that show the caption's subject at least as often as no mitigation does, less five points, the one with
the fewest copies; ties: the one that shows the subject more often. Targets of the per-sample method are multiples of the
ordinary captions' mean magnitude on the tuning split.
"""
from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch

from benchmarks.evaluate_tiny import magnitudes
from benchmarks.scored_run import scored_run
from metrics.embedded import TINY, read_captions
from pipelines.loading import load_pipeline
from pipelines.models import EMBEDDED
from results.files import write_bytes, write_json

GENERAL = {"image_length": 32, "scheduler": "keep"}
LOSS_OF_SUBJECT = 0.05


def grids(ordinary_magnitude: float) -> dict[str, list[dict]]:
    """Settings to try for every method."""
    batch = [{"rho": rho, "gamma": gamma, "adj_iters": 4, "apply_cfg_step": 4}
             for rho, gamma in itertools.product((2.5, 5.0, 10.0), (1.0, 3.0, 5.0))]
    sample = [{"lr": 0.05, "target_loss": round(factor * ordinary_magnitude, 2), "optim_iters": 100}
              for factor in (1.0, 1.1, 1.25, 1.5, 1.75, 2.0)]
    return {"batch_wise": batch, "per_sample": sample}


def try_setting(args, method: str, settings: dict) -> dict:
    """Copies and subjects over the tuning split."""
    typed = [text for name, value in (GENERAL | settings).items() for text in (f"--{name}", str(value))]
    run = scored_run(args.model_id, "memorized_tuning", args.out, ["--preset", "none", "--method", method, "--quiet", *typed], samples=args.samples)
    return {"method": method, **settings, "copies": run.copies(), "subject shown": run.shown()}


def choose(tried: list[dict], plain: dict) -> dict:
    """The rule of this file's docstring."""
    good = [line for line in tried if line["subject shown"] >= plain["subject shown"] - LOSS_OF_SUBJECT] or tried
    return min(good, key=lambda line: (line["copies"], -line["subject shown"]))


def toml(tables: dict[str, dict]) -> str:
    """Tables of numbers and texts."""
    def lines(table):
        return "".join(f"{key} = {value!r}\n".replace("'", '"') for key, value in table.items())

    return "\n".join(f"[{name}]\n{lines(table)}" for name, table in tables.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_id", default="tiny", choices=list(EMBEDDED))
    parser.add_argument("--samples", type=int, default=4, help="images per prompt")
    parser.add_argument("--out", type=Path, default=Path("build/tuning"))
    args = parser.parse_args()
    pipe = load_pipeline(args.model_id)
    level = float(torch.mean(magnitudes(pipe, read_captions(TINY / "prompts" / f"{args.model_id}_ordinary_tuning.csv"))))
    plain = try_setting(args, "no_mitigation", {})
    lines, chosen = [plain], {"generate": GENERAL}
    for method, settings in grids(level).items():
        tried = [try_setting(args, method, one) for one in settings]
        lines += tried
        best = choose(tried, plain)
        chosen[method] = {name: best[name] for name in settings[0]}
    for line in lines:
        print(line)
    header = f"# Written by benchmarks/tune_presets.py from the tuning split; ordinary captions have a mean magnitude of {level:.3f}.\n"
    write_bytes(EMBEDDED[args.model_id] / "presets.toml", (header + toml(chosen)).encode())
    (TINY / "evaluation").mkdir(exist_ok=True)
    write_json(TINY / "evaluation" / f"{args.model_id}_tuning.json", lines)
    print(toml(chosen))


if __name__ == "__main__":
    main()
