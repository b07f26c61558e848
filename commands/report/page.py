"""The page itself: tables of texts, thumbnails as data URLs, one template.

Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from memorization_suite.commands.report.gather import (
    Limits,
    Reported,
    columns,
    comparable,
    differences_told,
    first_quantity,
    splits,
)
from memorization_suite.metrics.base import Quantity, quantities_of
from memorization_suite.metrics.intervals import is_copy
from memorization_suite.metrics.pictures import Unreadable, read_picture
from memorization_suite.metrics.references import References
from memorization_suite.metrics.summary import ALL, Line
from memorization_suite.metrics.tradeoff import draw, points
from memorization_suite.runs import Key
from memorization_suite.runs.lazy import Image, Lazy
from memorization_suite.runs.marks import FLAT, NOT_FINITE, Marks
from memorization_suite.runs.text import counted

jinja2 = Lazy("jinja2")

SIDE = 192  # of a thumbnail; smaller pictures stay as they are
WIDE = 400  # caption characters shown
RUN_COLUMNS = (
    "run",
    "model",
    "steps",
    "guidance",
    "seed",
    "prompt file",
    "prompts",
    "images",
    "NFE / image",
    "s / image",
)


def render(
    runs: list[Reported],
    *,
    title: str,
    gt_folder: Path | None,
    limits: Limits,
    failed: Sequence[tuple[str, str]] = (),
    reference: Path | None = None,
) -> str:
    """The page's HTML; everything from files is escaped. failed: names of runs, and why.

    runs: the first is the one that others are shown beside. reference: the same, if it was named.
    """
    equal, notes = comparable(runs)
    plot, no_plot = tradeoff(equal)
    references = References(gt_folder or runs[0].run.gt_folder, decode=False)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        embedded=sorted({reported.run.model_id for reported in runs if reported.run.embedded}),
        models=sorted({reported.run.model_id or "unknown" for reported in runs}),
        costs=cost_table(runs),
        plot=plot,
        no_plot=no_plot,
        tables=[score_table(runs, split) for split in splits(runs)],
        failed=failed,
        unscored=[reported.title for reported in runs if not reported.lines],
        gallery=Gallery(equal, references, limits).content(),
        marks=[line for reported in runs for line in reported.marks.lines(reported.title)],
        notes=notes,
        unknown=[f"{each.title}: {each.unknown}" for each in runs if each.unknown],
        is_sure=not any(each.unknown for each in equal) or len(equal) == 1,
        remarks=differences_told(equal, reference),
    )


def tradeoff(runs: list[Reported]) -> tuple[str, str]:
    """(the plot as a data URL, why there is none)."""
    scored = {reported.run.folder: reported.lines for reported in runs if reported.lines}
    if len(scored) < 2:
        return "", "it takes two scored runs"
    try:
        return data_url(draw(points(scored))), ""
    except ValueError as error:
        return "", str(error)


# --- tables ---


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
    head = [{"name": name} for name in RUN_COLUMNS]
    return {"title": "runs", "head": head, "body": body}


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


# --- pictures ---


def data_url(data: bytes, kind: str = "png") -> str:
    """A picture that stands in the page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def thumbnail(path: Path) -> str:
    """A small version of a picture file. Raises Unreadable."""
    image = read_picture(path)
    kind = "jpeg" if max(image.size) > SIDE else "png"
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, format=kind, quality=88)
    return data_url(data.getvalue(), kind)


def shown(path: Path | None, state: str = "unknown", note: str = "") -> dict:
    """What the template needs to show one image.

    state: of its frame: copy, free, or unknown without a score. A missing or broken file says so in
    its place; on stderr what to do about it.
    """
    image = {"state": state, "note": note}
    if path is None:
        return {"missing": "no image", **image}
    try:
        return {"url": thumbnail(path), **image}
    except Unreadable as error:
        print(error, file=sys.stderr)
        return {"missing": "unreadable", **image}


class Gallery:
    """A line a prompt of the first run: its training image, then each run's images on equal seeds.

    With copy score and alignment.
    """

    def __init__(self, equal: list[Reported], references: References, limits: Limits):
        self.equal = equal
        self.runs = equal[: limits.runs]
        self.references = references
        # As many as a run has; files are of no more than the limit.
        samples = [key.sample for run in self.runs for key in run.run.files]
        self.samples = 1 + max(samples, default=0)
        # An official alignment, else a yes or no, else another.
        alignments = sorted(quantities_of("alignment"), key=lambda q: (not q.title, not q.yes))
        # The quantities below a picture, and their values by image for each run.
        with_threshold = [quantity for quantity in quantities_of("copy") if quantity.thresholds]
        self.copy = first_quantity(with_threshold, self.runs)
        self.aligned = first_quantity(alignments, self.runs)
        self.copies = self.values(self.copy)
        self.alignments = self.values(self.aligned)

    def values(self, quantity: Quantity | None) -> list[dict[Key, float]]:
        """For each run the values of its images."""
        name = quantity.name if quantity else ""
        return [reported.scores.get(name, {}) for reported in self.runs]

    def content(self) -> dict:
        """What the template needs."""
        return {
            "runs": [name_cell(reported) for reported in self.runs],
            "lines": [self.line(row) for row in self.runs[0].rows],
            "of": self.runs[0].prompts,
            "copy_score": self.copy,
            "aligned": self.aligned,
            "samples": self.samples,
            "of_runs": len(self.equal),
        }

    def line(self, row: int) -> dict:
        """One prompt."""
        prompt = self.runs[0].run.prompts[row]
        files = self.references.files(prompt.index)
        keys = [Key(row, sample) for sample in range(self.samples)]
        return {
            "row": row,
            "kind": prompt.type,
            "caption": prompt.caption[:WIDE] + ("…" if len(prompt.caption) > WIDE else ""),
            "reference": shown(files[0]) if files else None,
            "references": len(files),
            "cells": [[self.image(i, key) for key in keys] for i in range(len(self.runs))],
        }

    def image(self, i: int, key: Key) -> dict:
        """An image of the run at position i."""
        state = "unknown"
        note = ""
        score = self.copies[i].get(key)
        if self.copy and score is not None:
            note = f"{score:.2f}"
            if not math.isnan(score):
                state = "copy" if is_copy(score, self.copy.thresholds[-1]) else "free"
        note += self.mark(self.alignments[i].get(key))
        marks = self.runs[i].marks
        if key in marks.not_finite:
            note = NOT_FINITE
        elif key in marks.flat:
            note = f"{note} · {FLAT}" if note else FLAT
        return shown(self.runs[i].run.files.get(key), state, note)

    def mark(self, alignment: float | None) -> str:
        """The end of the text below a picture."""
        if self.aligned is None or alignment is None:
            return ""
        if self.aligned.yes:
            return " ✓" if alignment else ""
        return f" · {alignment:.2f}"
