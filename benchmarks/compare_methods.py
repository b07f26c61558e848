"""The paper's methods against none and against late guidance alone, on an embedded model's verbatim test prompts, at equal seeds.

python benchmarks/compare_methods.py --model_id tiny        # prints the table, writes tiny/evaluation/<model>_methods.json
"""
from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

from benchmarks.scored_run import mean, scored_run
from examples.demo import print_table
from metrics.embedded import TINY, read_captions
from pipelines.loading import load_pipeline
from pipelines.models import EMBEDDED
from results.files import write_json

FACTORS = (1.5, 1.0, 0.8)                  # per-sample targets, relative to the preset's


def methods(model_id: str) -> dict[str, list[str]]:
    """Heading -> flags."""
    preset = tomllib.loads((EMBEDDED[model_id] / "presets.toml").read_text())
    last_off, target = preset["batch_wise"]["apply_cfg_step"], preset["per_sample"]["target_loss"]
    targets = [f"{factor * target:.3g}" for factor in FACTORS]
    per_sample = {f"per-sample, target {value}": ["--method", "per_sample", "--target_loss", value] for value in targets}
    return {"none": [], f"guidance from step {last_off + 1}": ["--method", "static_transition", "--cfg_step", str(last_off)],
            "batch-wise": ["--method", "batch_wise"], **per_sample}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_id", default="tiny", choices=list(EMBEDDED))
    parser.add_argument("--samples", type=int, default=4, help="images per prompt")
    parser.add_argument("--out", type=Path, default=Path("build/comparison"))
    args = parser.parse_args()
    pipe, lines = load_pipeline(args.model_id), []
    verbatim = [caption.row for caption in read_captions(TINY / "prompts" / f"{args.model_id}_memorized_test.csv") if caption.kind == "VM"]
    for title, flags in methods(args.model_id).items():
        run = scored_run(args.model_id, "memorized_test", args.out, [*flags, "--save_latents"], samples=args.samples,
                         start=min(verbatim), end=max(verbatim) + 1)
        magnitude = run.magnitudes(pipe)
        for group in ("A", "B"):
            def wanted(caption, group=group):
                return caption.kind == "VM" and caption.group == group

            lines.append({"method": title, "group": group, "copies": run.copies(wanted),
                          "score above 0.5": mean(score > 0.5 for key, score in run.copy_score.items() if wanted(run.captions[key.prompt])),
                          "subject shown": run.shown(wanted),
                          "magnitude": mean(value for key, value in magnitude.items() if wanted(run.captions[key.prompt])),
                          "UNet rows": run.column("unet_evals", wanted)})
    write_json(TINY / "evaluation" / f"{args.model_id}_methods.json", lines)
    print_table([{name: value if isinstance(value, str) else f"{value:.3g}" for name, value in line.items()} for line in lines])


if __name__ == "__main__":
    main()
