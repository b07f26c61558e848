"""The paper's two methods beside delayed guidance alone, on equal noise: copies, subjects and
first-step magnitude by kind of memorization.

python -m benchmarks.initial_noise --model_id tiny        # prints the table; writes
tiny/evaluation/<model>_initial_noise.{json,md} Guidance alone starts at the batch-wise method's
step; per-sample targets are those of benchmarks/grids.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from memorization_suite.benchmarks.compare_methods import KINDS, markdown
from memorization_suite.benchmarks.evaluate_tiny import magnitudes
from memorization_suite.benchmarks.grids import grids
from memorization_suite.benchmarks.scored_run import ScoredRun, mean, scored_run
from memorization_suite.metrics.embedded import TINY, copied, read_captions
from memorization_suite.metrics.summary import table_text
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.pipelines.models import EMBEDDED, load_preset
from memorization_suite.runs.files import write_bytes, write_json


def settings(model_id: str, level: float) -> dict[str, list[str]]:
    """Title -> flags."""
    step = str(load_preset("auto", model_id)[1]["batch_wise"]["apply_cfg_step"])
    targets = [one["target_loss"] for one in grids(model_id, level)["per_sample"]]
    return {
        "no mitigation": [],
        f"guidance after step {step} alone": ["--method", "static_transition", "--cfg_step", step],
        "batch-wise": ["--method", "batch_wise"],
        **{
            f"per-sample, target {target:g}": [
                "--method",
                "per_sample",
                "--target_loss",
                str(target),
            ]
            for target in reversed(targets)
        },
    }


def line_of(title: str, run: ScoredRun, pipe) -> dict:
    """Figures of one run, whole and by kind: share of copies, share of images with their subject,
    mean magnitude where sampling started.
    """
    found = run.magnitudes(pipe)

    def figures(kind: str, group: str) -> dict[str, float | None]:
        keys = [
            key
            for key in run.rows
            if run.captions[key.prompt].kind.startswith(kind)
            and group in ("", run.captions[key.prompt].group)
        ]
        return {
            "copies": mean(copied(run.copy_score[key]) for key in keys),
            "subject shown": mean(run.subject_shown[key] for key in keys),
            "magnitude": mean(found[key] for key in keys),
        }

    return {
        "method": title,
        "UNet rows": run.column("unet_evals"),
        "all": figures("", ""),
        **{name: figures(kind, group) for name, (kind, group) in KINDS.items()},
    }


def shown(line: dict) -> dict[str, str]:
    """A line as text: copies / subject / magnitude."""

    def text(part: dict) -> str:
        return (
            "-"
            if part["copies"] is None
            else f"{100 * part['copies']:.0f} / {100 * part['subject shown']:.0f} / "
            f"{part['magnitude']:.2f}"
        )

    return {
        "copies % / subject % / magnitude": line["method"],
        **{name: text(line[name]) for name in ("all", *KINDS)},
        "rows": f"{line['UNet rows']:.0f}",
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_id", default="tiny", choices=list(EMBEDDED))
    parser.add_argument("--samples", type=int, default=2, help="images per prompt")
    parser.add_argument("--out", type=Path, default=Path("build/initial_noise"))
    args = parser.parse_args()
    pipe = load_pipeline(args.model_id)
    level = float(
        torch.mean(
            magnitudes(
                pipe, read_captions(TINY / "prompts" / f"{args.model_id}_ordinary_tuning.csv")
            )
        )
    )
    lines = [
        line_of(
            title,
            scored_run(
                args.model_id,
                "memorized_test",
                args.out,
                [*flags, "--save_latents", "--quiet"],
                samples=args.samples,
            ),
            pipe,
        )
        for title, flags in settings(args.model_id, level).items()
    ]
    table = [shown(line) for line in lines]
    print(table_text(table))
    write_json(TINY / "evaluation" / f"{args.model_id}_initial_noise.json", lines)
    write_bytes(TINY / "evaluation" / f"{args.model_id}_initial_noise.md", markdown(table).encode())


if __name__ == "__main__":
    main()
