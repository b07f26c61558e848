"""What the template needs of detectors: tables as texts, charts, masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memorization_suite.commands.report.detection_charts import histogram, roc_chart
from memorization_suite.commands.report.detections import (
    Detection,
    Mistake,
    mistakes,
    remarks_on,
)
from memorization_suite.commands.report.figures import tidy
from memorization_suite.commands.report.masks import masks_of, without_masks
from memorization_suite.commands.report.overview import kind_title
from memorization_suite.commands.report.pictures import Pictures
from memorization_suite.commands.report.tables import number, origin_facts
from memorization_suite.commands.scored import other_prompts, other_settings
from memorization_suite.detection.evaluation.summary import RATES, percent, tpr_name
from memorization_suite.runs.text import counted


def of_detections(detections: Sequence[Detection], pictures: Pictures) -> dict[str, Any]:
    """Everything, of one detector or more."""
    judged = [detection for detection in detections if detection.has_both]
    wrong = mistakes(detections)
    bars = [histogram(detection) for detection in detections]
    return {
        "best": best_of(judged),
        "table": figures_table(detections),
        "roc": roc_chart(detections),
        "histograms": [each for each in bars if each],
        "judged": [detection.name for detection in judged],
        "no_ordinary": [each.name for each in detections if not each.scored.ordinary],
        "sets": sets_of(detections),
        "mistakes": mistakes_table(judged, wrong) if judged else None,
        "remarks": remarks_on(detections),
        "masks": [
            masks_of(detection, pictures, f"masks{i}")
            for i, detection in enumerate(detections)
            if detection.overlays
        ],
        "without_masks": without_masks(detections),
        "origins": [origin_of(alike) for alike in by_command(detections)],
    }


def best_of(judged: Sequence[Detection]) -> dict[str, str] | None:
    """The detector with the largest AUC of two or more, and its AUC; None where two have it, or
    where the figures are not comparable.
    """
    known = [each for each in judged if each.rows[0]["auc"] is not None]
    aucs = sorted(each.rows[0]["auc"] for each in known)
    if len(known) < 2 or aucs[-1] == aucs[-2]:
        return None
    scored = [each.scored for each in known]
    if other_prompts(scored) or other_settings(scored):
        return None
    best = max(known, key=lambda each: each.rows[0]["auc"])
    return {"name": best.name, "auc": figure_cell(best.rows[0], "auc")["value"]}


def sets_of(detections: Sequence[Detection]) -> list[str]:
    """Which sets of prompts were scored, in the order of the colors: the ordinary first."""
    is_there = {"ordinary": False, "memorized": False}
    for detection in detections:
        is_there["ordinary"] |= bool(detection.scored.ordinary)
        is_there["memorized"] |= bool(detection.scored.memorized)
    return [name for name, there in is_there.items() if there]


def figures_table(detections: Sequence[Detection]) -> dict[str, Any]:
    """A row a detector and kind of memorized prompts. One without both sets has nothing to tell of
    kinds; columns that no detector has figures for are left out.
    """
    names = ("auc", *map(tpr_name, RATES), "accuracy")
    titles = ("AUC", *map(percent, RATES), "accuracy")
    figures = {}
    for name, title in zip(names, titles):
        if any(row[name] is not None for each in detections for row in each.rows):
            figures[name] = title
    has_ordinary = any(each.scored.ordinary for each in detections)
    head = ["detector", "memorized prompts", "number"]
    head += ["ordinary prompts"] * has_ordinary
    head += [*figures.values(), "NFE / image"]
    body = []
    for detection in detections:
        for row in detection.rows if detection.has_both else detection.rows[:1]:
            kind = kind_title(row["type"]) if row["type"] else "all"
            texts = [detection.name, kind, row["positives"]]
            texts += [row["negatives"]] * has_ordinary
            cells: list[dict[str, Any]] = [{"value": text} for text in texts]
            cells += [figure_cell(row, name) for name in figures]
            cells.append({"value": number(detection.nfe, 1)})
            body.append(cells)
    return {"head": [{"name": name} for name in head], "body": body, "figures": list(figures)}


def figure_cell(row: dict, name: str) -> dict[str, str]:
    """A figure with its interval, if it has them."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = "" if low is None else f"[{low:.3f}, {high:.3f}]"
    return {"value": number(row[name]), "interval": interval}


def mistakes_table(judged: Sequence[Detection], wrong: Sequence[Mistake]) -> dict[str, Any]:
    """A row a prompt, with every detector's score."""
    head: list[dict[str, str]] = [{"name": name} for name in ("prompt", "it is", "kind")]
    for detection in judged:
        head.append(
            {"name": detection.name, "variant": f"threshold {tidy(f'{detection.threshold:.4g}')}"}
        )
    body = []
    for mistake in wrong:
        cells: list[dict[str, Any]] = [
            {"value": mistake.caption, "interval": f"row {mistake.row}"},
            {"value": mistake.kind},
            {"value": kind_title(mistake.type) if mistake.type else "–"},
        ]
        body.append([*cells, *({"value": f"{score:.4g}"} for score in mistake.scores)])
    return {"head": head, "body": body}


def by_command(detections: Sequence[Detection]) -> list[list[Detection]]:
    """The detectors of each command; those whose command is not known by themselves."""
    groups: dict[tuple, list[Detection]] = {}
    for i, detection in enumerate(detections):
        origin = detection.origin
        own = (origin.command, origin.model, origin.fingerprint) if origin.command else (i,)
        groups.setdefault((*own, detection.folder.parent), []).append(detection)
    return list(groups.values())


def origin_of(alike: Sequence[Detection]) -> dict[str, Any]:
    """How the scores of a command's detectors were made; what differs is told one by one."""
    facts: dict[str, list[str]] = {}
    for detection in alike:
        scored = detection.scored
        counts = (
            f"{counted(len(scored.memorized), 'prompt')} memorized, {len(scored.ordinary)} ordinary"
        )
        for name, text in origin_facts(detection.origin, counts, detection.folder).items():
            facts.setdefault(name, []).append(text)
    return {
        "run": {
            "value": "detector" if len(alike) == 1 else "detectors",
            "interval": ", ".join(detection.name for detection in alike),
        },
        "command": alike[0].origin.command,
        "facts": {name: "; ".join(dict.fromkeys(texts)) for name, texts in facts.items()},
    }
