"""Every method on an embedded model's test split, on equal seeds, with the model's presets.

python -m experiments.compare_methods --model_id tiny

Prints one table and writes tiny/evaluation/<model>_methods.{json,md}. Columns: share of copies and
copy score, subject shown (alignment), diversity and realism (quality), each with its 95 % interval
over prompts; share of copies by kind of memorization; NFE and seconds per image. Goes on
where it stopped.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from memorization_suite.commands.generate_plan import plan
from memorization_suite.experiments.common import interval_text, model_parser, write_figures
from memorization_suite.experiments.scored_run import ScoredRun, is_kind, scored_run
from memorization_suite.mitigation import METHODS
from memorization_suite.pipelines.models import load_preset
from memorization_suite.runs.text import table_text

KINDS = ("VM A", "VM B", "TM", "LM")
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


def shown(line: dict, plain: dict) -> dict[str, str]:
    """A line as text.

    A method is marked whose copies are not fewer than without any, beyond the interval.
    """

    def text(title: str, scale: float = 1.0, form: str = ".2f") -> str:
        values = line[title]
        if values is None:
            return "-"
        scaled = {name: scale * value for name, value in values.items()}
        return interval_text(**scaled, form=form)

    no_effect = line is not plain and line["copies"]["high"] >= plain["copies"]["low"]
    by_kind = {}
    for kind, value in line["copies by kind"].items():
        by_kind[kind] = "-" if value is None else f"{100 * value:.0f}"
    return {
        "method": line["method"] + (" (*)" if no_effect else ""),
        "copies %": text("copies", 100, ".0f"),
        **by_kind,
        "copy score": text("copy score"),
        "subject %": text("subject shown", 100, ".0f"),
        "diversity": text("diversity"),
        "realism": text("realism"),
        "NFE": f"{line['NFE']:.0f}",
        "s": f"{line['seconds']:.2f}",
    }


def main() -> None:
    """The command line."""
    parser = model_parser(__doc__, samples=2, out="build/comparison")
    parser.add_argument(
        "--methods", nargs="+", help="only these, beside no_mitigation (default: all)"
    )
    parser.add_argument("--end", type=int, help="row after the last prompt (default: all)")
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
    table = [shown(line, lines[0]) for line in lines]
    print(table_text(table))
    print("(*) copies not fewer than without a mitigation: the 95 % intervals overlap")
    write_figures(args, "methods", lines, table)


if __name__ == "__main__":
    main()
