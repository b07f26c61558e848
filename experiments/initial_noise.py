"""The paper's two methods beside delayed guidance alone, on equal noise: copies, subjects and
first-step magnitude by kind of memorization.

python -m experiments.initial_noise --model_id tiny

Prints the table of docs/RESULTS.md and writes tiny/evaluation/<model>_initial_noise.json. Guidance
alone starts at the batch-wise method's step; per-sample targets are those of experiments/grids.py.
"""

from __future__ import annotations

from typing import Any

from memorization_suite.experiments.common import model_parser
from memorization_suite.experiments.evaluate_tiny import ordinary_magnitude
from memorization_suite.experiments.grids import grids
from memorization_suite.experiments.result_tables import KINDS, SAMPLES, initial_noise
from memorization_suite.experiments.scored_run import ScoredRun, is_kind, load_once, scored_run
from memorization_suite.pipelines.models import load_preset
from memorization_suite.runs.files import write_json
from memorization_suite.runs.text import table_text


def settings(model_id: str, level: float) -> dict[str, dict[str, Any]]:
    """Title -> flags. level: mean magnitude of ordinary captions."""
    step = load_preset("auto", model_id)[1]["batch_wise"]["apply_cfg_step"]
    found: dict[str, dict[str, Any]] = {
        "no mitigation": {},
        f"guidance after step {step} alone": {"method": "static_transition", "cfg_step": step},
        "batch-wise": {"method": "batch_wise"},
    }
    for values in reversed(grids(level)["per_sample"]):
        target = values["target_loss"]
        found[f"per-sample, target {target:g}"] = {"method": "per_sample", "target_loss": target}
    return found


def line_of(title: str, run: ScoredRun, pipe) -> dict:
    """Figures of one run, whole and by kind."""
    run.add_magnitudes(pipe)
    line = {"method": title, "NFE": run.column("unet_evals")}
    for name in ("all", *KINDS):
        part = run if name == "all" else run.only(is_kind(name))
        line[name] = {
            "copies": part.copies(),
            "subject shown": part.average("subject_shown"),
            "magnitude": part.average("magnitude"),
        }
    return line


def main() -> None:
    """The command line."""
    parser = model_parser(__doc__, samples=SAMPLES["initial_noise"], out="build/initial_noise")
    args = parser.parse_args()
    pipe = load_once(args.model_id)
    level = ordinary_magnitude(pipe, args.model_id)
    lines = []
    for title, flags in settings(args.model_id, level).items():
        run = scored_run(args, "memorized_test", save_latents=True, quiet=True, **flags)
        lines.append(line_of(title, run, pipe))
    print(table_text(initial_noise(lines)))
    args.figures.mkdir(parents=True, exist_ok=True)
    write_json(args.figures / f"{args.model_id}_initial_noise.json", lines)


if __name__ == "__main__":
    main()
