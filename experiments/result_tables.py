"""The stored figures of the embedded models, tiny/evaluation/*.json, as tables.

The experiments that make the figures print the same tables. No heavy import.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from memorization_suite import tiny
from memorization_suite.detection.evaluation.summary import figure_text
from memorization_suite.experiments.reference_tables import Rows
from memorization_suite.metrics.embedded import read_captions
from memorization_suite.runs.text import markdown_table

# Kinds of memorized captions, as figures name them.
KINDS = ("VM A", "VM B", "TM", "LM")
# Experiment -> images of a caption, by default.
SAMPLES = {"evaluation": 10, "late_guidance": 4, "initial_noise": 2, "methods": 2, "detectors": 4}
# Layout of an ordinary caption -> what it asks for.
LAYOUTS = {
    "one": "one subject",
    "small": "a small one",
    "big": "a big one",
    "two": "two alike",
    "three": "three alike",
    "left": "one on the left",
    "right": "one on the right",
    "top": "one at the top",
    "bottom": "one at the bottom",
    "pair": "two different ones",
    "above": "one above another",
    "below": "one below another",
}
# Step in the name of a run's folder, and a target.
STEP = re.compile(r"_step(\d+)_")
TARGET = re.compile(r"_tl([0-9.]+)_")

# Of a mean with its interval.
ENDS = ("mean", "low", "high")

Line = dict[str, Any]


def figures(model: str, name: str = "") -> Any:
    """What an experiment stored of a model."""
    stem = f"{model}_{name}" if name else model
    return json.loads((tiny.EVALUATION / f"{stem}.json").read_text(encoding="utf-8"))


# --- text of numbers


def percent(value: float | None) -> str:
    """A share as a whole percentage, a half rounded up; `-` when there is none."""
    return "-" if value is None else str(math.floor(100 * value + 0.5 + 1e-9))


def decimals(value: float | None, digits: int) -> str:
    """A number; `-` when there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(values: dict[str, float] | None, digits: int = 2) -> str:
    """`0.12 [0.10, 0.14]`; `0.12` without an interval, `-` when there is nothing."""
    return interval_text(values, lambda value: f"{value:.{digits}f}")


def percent_with_interval(values: dict[str, float] | None) -> str:
    """The same of a share, in percent."""
    return interval_text(values, percent)


def interval_text(values: dict[str, float] | None, text: Callable[[float], str]) -> str:
    """The mean and its interval, if there is one, each as `text` has it."""
    if values is None:
        return "-"
    mean, low, high = (values[name] for name in ENDS)
    if math.isnan(low):
        return text(mean)
    return f"{text(mean)} [{text(low)}, {text(high)}]"


def as_code(rows: Rows) -> str:
    """A Markdown table with the names of the first column in the form of code."""
    marked = []
    for row in rows:
        title = next(iter(row))
        name, _, star = row[title].partition(" ")
        marked.append({**row, title: f"`{name}`" + (" \\*" if star else "")})
    return markdown_table(marked)


# --- every method


def method_lines(lines: list[Line]) -> list[tuple[str, Line]]:
    """(what to call it, figures): no mitigation, then by subject % minus copies %.

    A method is marked whose copies are not fewer than without any, beyond the interval.
    """
    plain = lines[0]
    others = sorted(lines[1:], key=lambda line: of_copies(line) - of_subject(line))
    named = [(plain["method"], plain)]
    for line in others:
        fewer = line["copies"]["high"] < plain["copies"]["low"]  # never without an interval
        named.append((line["method"] + ("" if fewer else " (*)"), line))
    return named


def of_copies(line: Line) -> float:
    """A method's share of copies."""
    return line["copies"]["mean"]


def of_subject(line: Line) -> float:
    """And of images that show their subject."""
    return (line["subject shown"] or {"mean": 0.0})["mean"]


def by_copies(lines: list[Line]) -> Rows:
    """What methods do, and what they cost."""
    rows = []
    for name, line in method_lines(lines):
        rows.append(
            {
                "method": name,
                "copies %": percent_with_interval(line["copies"]),
                "subject %": percent_with_interval(line["subject shown"]),
                **{kind: percent(line["copies by kind"][kind]) for kind in KINDS},
                "NFE": f"{line['NFE']:.0f}",
                "s": f"{line['seconds']:.1f}",
            }
        )
    return rows


def by_quality(lines: list[Line]) -> Rows:
    """The other metrics."""
    rows = []
    for name, line in method_lines(lines):
        rows.append(
            {
                "method": name,
                "copy score": with_interval(line["copy score"]),
                "diversity": with_interval(line["diversity"]),
                "realism": with_interval(line["realism"]),
            }
        )
    return rows


def in_short() -> str:
    """The README's table: the paper's methods and late guidance alone on captions of type B."""
    lines = {line["method"]: line for line in figures("tiny", "methods")}
    step = int(found(STEP, lines["static_transition"])) + 1
    target = found(TARGET, lines["per_sample"])
    titles = {
        "no_mitigation": "no mitigation",
        "static_transition": f"guidance from step {step} alone",
        "batch_wise": "batch-wise",
        "per_sample": f"per-sample, target {target}",
    }
    rows = []
    for name, title in titles.items():
        line = lines[name]
        rows.append(
            {
                "": title,
                "copies of the training image": f"{percent(line['copies by kind']['VM B'])} %",
                "subject shown": f"{percent(line['subject by kind']['VM B'])} %",
                "NFE per image": f"{line['NFE']:.0f}",
            }
        )
    return markdown_table(rows)


def found(pattern: re.Pattern, line: Line) -> str:
    """A setting in the name of the run's folder. Raises ValueError when it is not there."""
    match = pattern.search(line["folder"])
    if match is None:
        raise ValueError(f"{line['folder']} does not say {pattern.pattern}")
    return match[1]


def all_initial_noise(model: str) -> str:
    """The paper's methods and late guidance on one embedded model."""
    return markdown_table(initial_noise(figures(model, "initial_noise")))


def all_methods(model: str) -> str:
    """Both tables of a model's methods, and what they are of."""
    lines = figures(model, "methods")
    captions = len(read_captions(tiny.prompts(model)))
    return (
        f"{captions} captions, {SAMPLES['methods']} images each.\n\n"
        f"{as_code(by_copies(lines))}\n{as_code(by_quality(lines))}"
    )


# --- the paper's methods beside late guidance alone


def initial_noise(lines: list[Line]) -> Rows:
    """Copies, subjects and magnitudes by kind."""

    def text(part: Line) -> str:
        if part["copies"] is None:
            return "-"
        shares = f"{percent(part['copies'])} / {percent(part['subject shown'])}"
        return f"{shares} / {part['magnitude']:.2f}"

    rows = []
    for line in lines:
        parts = {name: text(line[name]) for name in ("all", *KINDS)}
        rows.append({"": line["method"], **parts, "NFE": f"{line['NFE']:.0f}"})
    return rows


# --- without a mitigation


def evaluation(model: str) -> str:
    """Copies, magnitudes and subjects of a model's captions, by kind."""
    stored = figures(model)
    captions = read_captions(tiny.prompts(model))
    ordinary = stored["ordinary"]
    magnitudes = stored["first-step magnitude"]
    counts = dict.fromkeys(KINDS, 0)
    for caption in captions:
        counts[f"VM {caption.group}" if caption.kind == "VM" else caption.kind] += 1
    shown = f"{100 * ordinary['subject shown']:.1f}"
    rows = [
        {
            "": "captions",
            **{kind: str(count) for kind, count in counts.items()},
            "ordinary": str(len(read_captions(tiny.prompts(model, "ordinary_test")))),
        },
        {
            "": "copies of a training image, %",
            **{kind: f"{100 * stored['copies'][kind]:.1f}" for kind in KINDS},
            "ordinary": f"{100 * ordinary['share of copies']:.1f}",
        },
        {
            "": "magnitude, mean of 16 noises",
            **{kind: f"{magnitudes[kind]['mean']:.2f}" for kind in KINDS},
            "ordinary": f"{magnitudes['ordinary']['mean']:.2f}",
        },
        {
            "": "its AUC against ordinary captions",
            **{kind: f"{magnitudes[kind]['AUC']:.3f}" for kind in KINDS},
            "ordinary": "",
        },
        {"": "subject shown, %", **dict.fromkeys(KINDS, ""), "ordinary": shown},
    ]
    layouts = []
    by_layout = ordinary["subject shown by layout"]
    for layout, title in LAYOUTS.items():
        if layout in by_layout:
            share = percent(by_layout[layout])
            layouts.append({"ordinary captions": title, "subject shown, %": share})
    nearest = (
        "Score of ordinary images against the nearest verbatim training image: median "
        f"{ordinary['nearest, median']:.2f}, largest {ordinary['nearest, largest']:.2f}."
    )
    return f"{markdown_table(rows)}\n{nearest}\n\n{markdown_table(layouts)}"


def transitions(model: str) -> str:
    """What becomes of captions of type B when guidance starts late."""
    stored = figures(model, "late_guidance")
    escapes = stored["images by step of escape"]
    never = escapes["None"]
    total = sum(escapes.values())
    shares = {"copies, %": "share of copies", "subject shown, %": "subject shown"}
    rows = []
    for title, name in shares.items():
        cells = {step: percent(share) for step, share in stored[name].items()}
        rows.append({"first guided step": title, **cells})
    steps = {step: str(count) for step, count in escapes.items() if step != "None"}
    rows.append({"first guided step": "images free from here on", **steps})
    differing = percent(stored["prompts whose noises escape at different steps"])
    return (
        f"{total} images, {SAMPLES['late_guidance']} noises a caption.\n\n{markdown_table(rows)}\n"
        f"{never} of the {total} images are still copies at the last start. For {differing} % of "
        "the captions,\nthe noises differ in the step of escape.\n"
    )


# --- detectors


def detector_lines(stored: Line) -> list[Line]:
    """Detectors, the largest AUC first."""
    return sorted(stored["detectors"], key=lambda line: -line["auc"])


def by_auc(stored: Line) -> Rows:
    """AUC, TPR and cost of every detector."""
    rows = []
    for line in detector_lines(stored):
        rows.append(
            {
                "detector": line["detector"],
                "AUC": figure_text(line, "auc"),
                "TPR@1%FPR": figure_text(line, "tpr_at_0.01"),
                "TPR@3%FPR": figure_text(line, "tpr_at_0.03"),
                "NFE": f"{line['rows per prompt']:.0f}",
                "s": f"{line['seconds per prompt']:.2f}",
            }
        )
    return rows


def by_kind(stored: Line) -> Rows:
    """AUC and TPR by kind of memorization."""
    rows = []
    for line in detector_lines(stored):
        kinds = line["by kind"]
        rows.append(
            {
                "detector": line["detector"],
                **{f"AUC {kind}": f"{kinds[kind]['auc']:.3f}" for kind in kinds},
                **{f"TPR@1%FPR {kind}": f"{kinds[kind]['tpr_at_0.01']:.2f}" for kind in kinds},
            }
        )
    return rows


def masks(stored: Line) -> Rows:
    """How well masks find the planted region."""
    rows = []
    for name, quantities in stored["local masks"].items():
        texts = {title: with_interval(values) for title, values in quantities.items()}
        rows.append({"masks of": name, **texts})
    return rows


def one_pass(stored: Line) -> str:
    """What all detectors cost together, and one after the other."""
    together = stored["all in one pass"]
    nfe = sum(line["rows per prompt"] for line in stored["detectors"])
    seconds = sum(line["seconds per prompt"] for line in stored["detectors"])
    return (
        f"All in one pass: {together['pass_unet_rows']:.0f} NFE and {together['pass_seconds']:.1f} "
        f"s a prompt; one after the other: {nfe:.0f} NFE and {seconds:.1f} s."
    )


def all_detectors(model: str) -> str:
    """Both tables of a model's detectors, and what they are of."""
    stored = figures(model, "detectors")
    first = stored["detectors"][0]
    about = (
        f"{first['positives']} memorized and {first['negatives']} ordinary prompts, "
        f"{SAMPLES['detectors']} images each. NFE and seconds are those of a prompt."
    )
    tables = [as_code(by_auc(stored)), f"{one_pass(stored)}\n", as_code(by_kind(stored))]
    return "\n".join([f"{about}\n", *tables])


# --- parts


def parts_of(model: str) -> dict[str, Callable[[], str]]:
    """The parts of one model."""
    return {
        f"{model}_evaluation": partial(evaluation, model),
        f"{model}_transitions": partial(transitions, model),
        f"{model}_initial_noise": partial(all_initial_noise, model),
        f"{model}_methods": partial(all_methods, model),
        f"{model}_detectors": partial(all_detectors, model),
        f"{model}_masks": lambda: as_code(masks(figures(model, "detectors"))),
    }


RESULT_PARTS: dict[str, Callable[[], str]] = {"readme_results": in_short}
for name in tiny.MODELS:
    RESULT_PARTS |= parts_of(name)
