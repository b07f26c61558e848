"""Every method on an embedded model's test split, on equal seeds, with the model's presets.

python -m experiments.compare_methods --model_id tiny

Prints the tables of docs/RESULTS.md and writes tiny/evaluation/<model>_methods.json: share of
copies, also by kind of memorization, copy score, subject shown (alignment), diversity and realism
(quality), each with its 95 % interval over prompts; NFE and seconds per image. Interrupted runs
resume: rerun the command.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from memorization_suite.commands.generate_plan import plan
from memorization_suite.experiments.common import model_parser, positive
from memorization_suite.experiments.result_tables import KINDS, SAMPLES, by_copies, by_quality
from memorization_suite.experiments.scored_run import ScoredRun, is_kind, scored_run
from memorization_suite.mitigation import METHODS
from memorization_suite.pipelines.models import load_preset
from memorization_suite.runs.files import write_json
from memorization_suite.runs.text import table_text

METRICS = ("copy", "alignment", "diversity", "quality")
QUANTITIES = {
    "copy score": "copy_score",
    "subject shown": "subject_shown",
    "diversity": "feature_diversity",
    "realism": "realism",
}


def flags_of(model_id: str, name: str) -> dict[str, Any]:
    """Flags that a method needs beside the preset: guidance alone gets the batch-wise step."""
    preset = load_preset("auto", model_id)[1]
    if name == "static_transition" and name not in preset:
        return {"cfg_step": preset["batch_wise"]["apply_cfg_step"]}
    return {}


def cannot_run(model_id: str, name: str) -> str:
    """Why the method cannot run with the preset, e.g. for want of a file; empty if it can."""
    try:
        plan(model_id=model_id, method=name, **flags_of(model_id, name))
    except ValueError as error:
        return str(error)
    return ""


def line_of(name: str, run: ScoredRun) -> dict:
    """One method's figures."""
    figures = {"copies": run.share_of_copies()}
    for title, quantity in QUANTITIES.items():
        figures[title] = run.mean(quantity)
    parts = {kind: run.only(is_kind(kind)) for kind in KINDS}
    return {
        "method": name,
        "folder": run.folder.path.name,
        **{title: value and asdict(value) for title, value in figures.items()},
        "copies by kind": {kind: part.copies() for kind, part in parts.items()},
        "subject by kind": {kind: part.average("subject_shown") for kind, part in parts.items()},
        "NFE": run.column("unet_evals"),
        "seconds": run.column("seconds"),
    }


def main() -> None:
    """The command line."""
    parser = model_parser(__doc__, samples=SAMPLES["methods"], out="build/comparison")
    parser.add_argument(
        "--methods", nargs="+", help="only these, beside no_mitigation (default: all)"
    )
    parser.add_argument("--end", type=positive, help="row after the last prompt (default: all)")
    args = parser.parse_args()
    lines = []
    for name in dict.fromkeys(["no_mitigation", *(args.methods or METHODS)]):
        problem = cannot_run(args.model_id, name)
        if problem:
            print(f"left out: {name}: {problem}")
            continue
        run = scored_run(
            args,
            "memorized_test",
            metrics=METRICS,
            method=name,
            end=args.end,
            quiet=True,
            **flags_of(args.model_id, name),
        )
        lines.append(line_of(name, run))
    print(table_text(by_copies(lines)))
    print("(*) copies not fewer than without a mitigation: the 95 % intervals overlap")
    print(table_text(by_quality(lines)))
    args.figures.mkdir(parents=True, exist_ok=True)
    write_json(args.figures / f"{args.model_id}_methods.json", lines)


if __name__ == "__main__":
    main()
