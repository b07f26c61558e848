"""Tables of a page as texts: what runs cost, their scores, and how they were made."""

from __future__ import annotations

import math
from pathlib import Path

from memorization_suite.commands.report.details import Origin
from memorization_suite.commands.report.gather import Reported, columns
from memorization_suite.metrics.base import quantity_named
from memorization_suite.metrics.summary import ALL, Line
from memorization_suite.runs.marks import FLAT, NOT_FINITE, Marks
from memorization_suite.runs.text import counted

SETTINGS = ("model", "steps", "guidance", "seed", "prompt file")
RUN_COLUMNS = (
    "run",
    *SETTINGS,
    "prompts",
    "images",
    "NFE / image",
    "s / image",
)


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def between(low: float, high: float, digits: int = 3) -> str:
    """`[0.100, 0.200]`; empty where there is none."""
    return "" if math.isnan(low) else f"[{low:.{digits}f}, {high:.{digits}f}]"


def cost_table(runs: list[Reported]) -> dict:
    """What each run is, and what it cost."""
    body = []
    for reported in runs:
        run = reported.run
        names = ("model_id", "num_inference_steps", "guidance_scale", "seed")
        values = [reported.config.get(name, "–") for name in names]
        values += [run.prompts_file.name, reported.prompts]
        costs = reported.costs
        cells = [{"value": value} for value in values]
        cells.append({"value": reported.images, "interval": marks_text(reported.marks)})
        for figure in (number(costs.get("unet_evals"), 1), number(costs.get("seconds"), 2)):
            cells.append({"value": figure})
        body.append([name_cell(reported), *cells])
    table = {"title": "runs", "head": [{"name": name} for name in RUN_COLUMNS], "body": body}
    return table | {"alike": take_alike(table)}


def take_alike(table: dict) -> dict[str, object]:
    """Takes columns of settings that are the same for all runs out of the table: name -> value."""
    alike: dict[str, object] = {}
    for name in SETTINGS:
        place = [column["name"] for column in table["head"]].index(name)
        values = [row[place]["value"] for row in table["body"]]
        if all(value == values[0] for value in values):
            alike[name] = values[0]
            del table["head"][place]
            for row in table["body"]:
                del row[place]
    return alike


def words(runs: list[Reported]) -> list[dict[str, str]]:
    """What each score of the runs is, and which values one wants."""
    told = {}
    for name, _ in columns(runs):
        quantity = quantity_named(name)
        if quantity and quantity.what:
            wanted = f"{quantity.better} is better" if quantity.role else ""
            told[name] = {"name": name, "what": quantity.what, "wanted": wanted}
    return list(told.values())


def marks_text(marks: Marks) -> str:
    """How many images are not finite, or of one color; empty when none is."""
    counts = {NOT_FINITE: len(marks.not_finite), FLAT: len(marks.flat)}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def score_table(runs: list[Reported], split: str) -> dict:
    """Header and rows of one split: means, intervals, n of N, and the shares of copies."""
    head = [{"name": "run"}]
    body = [[name_cell(reported)] for reported in runs]
    for quantity, variant in columns(runs):
        lines = [reported.line(quantity, variant, split) for reported in runs]
        limits = {limit for line in lines if line for limit in line.shares}
        if limits:
            head.append({"name": "copies, %", "variant": f"{quantity} >= {max(limits):g}"})
            for cells, line in zip(body, lines):
                cells.append(percent(line))
        if any(lines):
            head.append({"name": quantity, "variant": variant})
            for cells, line in zip(body, lines):
                cells.append(mean(line))
    title = "all prompts" if split == ALL else f"prompts of type {split}"
    return {"title": title, "head": head, "body": body}


def name_cell(reported: Reported) -> dict:
    """Method, and below it what else names the run."""
    state = "" if reported.finished else "(not finished)"
    state = "(no manifest)" if reported.unknown else state
    return {"value": reported.method, "interval": f"{reported.settings} {state}".strip()}


def mean(line: Line | None) -> dict:
    """A cell with a mean, its interval and n of N."""
    if line is None:
        return {"value": "–"}
    return {
        "value": number(line.mean),
        "interval": between(line.low, line.high),
        "n": f"{line.n} of {line.total}",
    }


def percent(line: Line | None) -> dict:
    """A cell with the share of copies and its interval in percent; and of how many images it is,
    where some have no score.
    """
    share = line.copies if line else None
    if line is None or share is None:
        return {"value": "–"}
    return {
        "value": number(100 * share.mean, 1),
        "interval": between(100 * share.low, 100 * share.high, 1),
        "n": f"of {counted(line.n, 'image')}" if line.n < line.total else "",
    }


def origins(runs: list[Reported]) -> list[dict]:
    """How each run was made: names and texts."""
    return [
        {"run": name_cell(reported), "command": reported.origin.command, "facts": facts(reported)}
        for reported in runs
    ]


def facts(reported: Reported) -> dict[str, str]:
    """Name -> text; empty where it is not known."""
    origin = reported.origin
    lacking = "not known" if origin.missing is None else counted(origin.missing, "image")
    broken = counted(len(reported.marks.not_finite), "image")
    images = f"{reported.images}; missing: {lacking}; not finite: {broken}"
    return origin_facts(origin, images, reported.run.folder)


def origin_facts(origin: Origin, contents: str, folder: Path) -> dict[str, str]:
    """Name -> text. contents: what there is."""
    return {
        "model": f"{origin.model} ({origin.fingerprint})" if origin.fingerprint else origin.model,
        "started": origin.started,
        "finished": origin.finished or "not finished",
        "commit of the suite": ", ".join(filter(None, origin.commits)),
        "versions": "; ".join(origin.versions),
        "contents": contents,
        "folder": str(folder),
    }
