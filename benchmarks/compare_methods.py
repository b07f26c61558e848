"""Every method on an embedded model's test split, on equal seeds, with the model's presets: one
table.

python -m benchmarks.compare_methods --model_id tiny        # prints the table; writes
tiny/evaluation/<model>_methods.{json,md}
Columns: share of copies and copy score, subject shown (alignment), diversity and realism (quality),
each with its 95 % interval over prompts; share of copies by kind of memorization; UNet rows and
seconds per image. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import memorization_suite.generation
from memorization_suite.benchmarks.scored_run import ScoredRun, mean, scored_run
from memorization_suite.metrics.embedded import TINY, copied, read_captions, score_all
from memorization_suite.metrics.intervals import interval
from memorization_suite.metrics.summary import table_text
from memorization_suite.mitigation import methods
from memorization_suite.pipelines.models import EMBEDDED, load_preset
from memorization_suite.runs import Key
from memorization_suite.runs.files import write_bytes, write_json

KINDS = {"VM A": ("VM", "A"), "VM B": ("VM", "B"), "TM": ("TM", ""), "LM": ("LM", "")}
QUANTITIES = {
    "copy score": "copy_score",
    "subject shown": "subject_shown",
    "diversity": "feature_diversity",
    "realism": "realism",
}


@dataclass
class Figure:
    """Mean over prompts of their means, with its 95 % interval over prompts."""

    mean: float
    low: float
    high: float


def figure(values: dict[Key, float]) -> Figure | None:
    """Of one value an image; None without any."""
    prompts: dict[int, list[float]] = {}
    for key, value in values.items():
        prompts.setdefault(key.prompt, []).append(value)
    means = [sum(some) / len(some) for some in prompts.values()]
    return Figure(sum(means) / len(means), *interval(means)) if means else None


def settings_of(model_id: str, name: str) -> list[str]:
    """Flags of a method that the command needs beside the preset; guidance alone gets the
    batch-wise method's step.
    """
    preset = load_preset("auto", model_id)[1]
    if name == "static_transition" and name not in preset:
        return ["--cfg_step", str(preset["batch_wise"]["apply_cfg_step"])]
    return []


def cannot_run(model_id: str, name: str) -> str:
    """Why the method cannot run with the model's preset, for example for want of a file; empty when
    it can.
    """
    try:
        memorization_suite.generation.plan_of(
            ["--model_id", model_id, "--method", name, *settings_of(model_id, name)]
        )
    except ValueError as error:
        return str(error)
    return ""


def line_of(name: str, run: ScoredRun, values: dict[str, dict[Key, float]]) -> dict:
    """One method's figures."""
    copies = {key: float(copied(score)) for key, score in values["copy_score"].items()}

    def by_kind(found: dict[Key, float]) -> dict[str, float | None]:
        captions = run.captions
        return {
            name: mean(
                value
                for key, value in found.items()
                if captions[key.prompt].kind == kind and group in ("", captions[key.prompt].group)
            )
            for name, (kind, group) in KINDS.items()
        }

    figures = {
        "copies": figure(copies),
        **{title: figure(values.get(quantity, {})) for title, quantity in QUANTITIES.items()},
    }
    return {
        "method": name,
        "folder": run.folder.path.name,
        **{title: vars(found) if found else None for title, found in figures.items()},
        "copies by kind": by_kind(copies),
        "subject by kind": by_kind(values["subject_shown"]),
        "UNet rows": run.column("unet_evals"),
        "seconds": run.column("seconds"),
    }


def shown(line: dict, plain: dict) -> dict[str, str]:
    """A line as text; a method whose copies are not fewer than without any, beyond the interval, is
    marked.
    """

    def text(title: str, scale: float = 1.0, form: str = ".2f") -> str:
        found = line[title]
        return (
            "-"
            if found is None
            else f"{scale * found['mean']:{form}} [{scale * found['low']:{form}}, "
            f"{scale * found['high']:{form}}]"
        )

    no_effect = line is not plain and line["copies"]["high"] >= plain["copies"]["low"]
    by_kind = {
        kind: "-" if value is None else f"{100 * value:.0f}"
        for kind, value in line["copies by kind"].items()
    }
    return {
        "method": line["method"] + (" (*)" if no_effect else ""),
        "copies %": text("copies", 100, ".0f"),
        **by_kind,
        "copy score": text("copy score"),
        "subject %": text("subject shown", 100, ".0f"),
        "diversity": text("diversity"),
        "realism": text("realism"),
        "rows": f"{line['UNet rows']:.0f}",
        "s": f"{line['seconds']:.2f}",
    }


def markdown(rows: list[dict[str, str]]) -> str:
    """A table for the README and the model card."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(row.values()) + " |" for row in rows]) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_id", default="tiny", choices=list(EMBEDDED))
    parser.add_argument(
        "--methods", nargs="+", help="only these, beside no_mitigation (default: all)"
    )
    parser.add_argument("--samples", type=int, default=2, help="images per prompt")
    parser.add_argument("--end", type=int, help="row after the last prompt (default: all)")
    parser.add_argument("--out", type=Path, default=Path("build/comparison"))
    args = parser.parse_args()
    prompts = TINY / "prompts" / f"{args.model_id}_memorized_test.csv"
    names, lines = (
        ["no_mitigation", *(name for name in args.methods or methods() if name != "no_mitigation")],
        [],
    )
    for name in names:
        if problem := cannot_run(args.model_id, name):
            print(f"left out: {name}: {problem}")
            continue
        run = scored_run(
            args.model_id,
            "memorized_test",
            args.out,
            ["--method", name, "--quiet", *settings_of(args.model_id, name)],
            samples=args.samples,
            end=args.end or len(read_captions(prompts)),
        )
        lines.append(line_of(name, run, score_all(run.folder.path, prompts, args.samples)))
    table = [shown(line, lines[0]) for line in lines]
    print(table_text(table))
    print("(*) copies not fewer than without a mitigation: the 95 % intervals overlap")
    write_json(TINY / "evaluation" / f"{args.model_id}_methods.json", lines)
    write_bytes(TINY / "evaluation" / f"{args.model_id}_methods.md", markdown(table).encode())


if __name__ == "__main__":
    main()
