"""The page itself: tables of texts, thumbnails as data URLs, one template. Nothing is loaded from
elsewhere.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import jinja2
from PIL import Image

from memorization_suite.metrics.command import training_images
from memorization_suite.metrics.pictures import Picture, Unreadable
from memorization_suite.metrics.plot_tradeoff import draw, points
from memorization_suite.metrics.references import References
from memorization_suite.metrics.summary import COPY_THRESHOLDS
from memorization_suite.reporting.gather import (
    ALIGNED,
    Reported,
    columns,
    comparable,
    first_of,
    share_of_copies,
    splits,
)
from memorization_suite.runs import Key

SIDE = 192  # of a thumbnail; smaller pictures stay as they are
WIDE = 400  # caption characters shown


@dataclass(frozen=True)
class Limits:
    """Of the gallery: how many prompts, runs, and images of each prompt and run."""

    prompts: int
    runs: int
    samples: int


def data_url(data: bytes, kind: str = "png") -> str:
    """A picture that stands in the page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def thumbnail(path: Path) -> str:
    """A small version of a picture file. Raises Unreadable."""
    image = Picture(path).image
    kind = "jpeg" if max(image.size) > SIDE else "png"
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, format=kind, quality=88)
    return data_url(data.getvalue(), kind)


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def between(low: float, high: float, digits: int = 3) -> str:
    """`[0.100, 0.200]`; empty where there is none."""
    return "" if math.isnan(low) else f"[{low:.{digits}f}, {high:.{digits}f}]"


def score_table(runs: list[Reported], split: str) -> dict:
    """Header and rows of one split: every score's mean, interval and n of N, and the shares of
    copies.
    """
    head, body = [{"name": "run"}], [[name_cell(one)] for one in runs]
    for quantity, variant in columns(runs):
        lines = [
            next(
                (
                    line
                    for line in one.lines
                    if (line.quantity, line.variant, line.split) == (quantity, variant, split)
                ),
                None,
            )
            for one in runs
        ]
        shares = [share_of_copies(one, quantity, variant, split) for one in runs]
        if any(shares):
            head.append(
                {"name": "copies, %", "variant": f"{quantity} > {COPY_THRESHOLDS[quantity][-1]:g}"}
            )
            for row, found in zip(body, shares):
                row.append(percent(found))
        if any(line and line.n for line in lines):
            head.append({"name": quantity, "variant": variant})
            for row, line in zip(body, lines):
                row.append(
                    {
                        "value": number(line.mean),
                        "interval": between(line.low, line.high),
                        "n": f"{line.n} of {line.total}",
                    }
                    if line and line.n
                    else {"value": "–"}
                )
    return {
        "title": "all prompts" if split == "all" else f"prompts of type {split}",
        "head": head,
        "body": body,
    }


def name_cell(one: Reported) -> dict:
    """Method, and below it what else names the run."""
    return {
        "value": one.method,
        "interval": one.settings + ("" if one.finished else " (not finished)"),
    }


def percent(share: tuple[float, float, float] | None) -> dict:
    """A cell with a share and its interval in percent."""
    if share is None:
        return {"value": "–"}
    return {
        "value": number(100 * share[0], 1),
        "interval": between(100 * share[1], 100 * share[2], 1),
    }


def cost_table(runs: list[Reported]) -> dict:
    """What each run is, and what it cost."""
    head = [
        {"name": name}
        for name in (
            "run",
            "model",
            "steps",
            "guidance",
            "seed",
            "prompt file",
            "prompts",
            "images",
            "UNet rows / image",
            "s / image",
        )
    ]
    body = []
    for one in runs:
        settings = [
            str(one.config.get(name, "–"))
            for name in ("model_id", "num_inference_steps", "guidance_scale", "seed")
        ]
        counts = [
            one.run.prompts_file.name,
            str(len(one.run.prompts_scored)),
            str(len(one.run.files)),
        ]
        costs = [number(one.cost("unet_evals"), 1), number(one.cost("seconds"), 2)]
        body.append([name_cell(one), *({"value": text} for text in [*settings, *counts, *costs])])
    return {"title": "runs", "head": head, "body": body}


def gallery(equal: list[Reported], references: References, limits: Limits) -> dict:
    """A line a prompt of the first run: its training image, then each run's images on equal seeds,
    with copy score and alignment.
    """
    runs = equal[: limits.runs]
    samples = min(limits.samples, 1 + max(key.sample for one in runs for key in one.run.files))
    copy = first_of(COPY_THRESHOLDS, runs, Reported.score)
    aligned = first_of(ALIGNED, runs, Reported.score)
    scores = [
        (one.score(copy) if copy else {}, one.score(aligned) if aligned else {}) for one in runs
    ]
    rows = sorted(runs[0].run.prompts_scored)
    lines = [
        gallery_line(runs, scores, references, row, samples=samples, copy=copy, aligned=aligned)
        for row in rows[: limits.prompts]
    ]
    return {
        "runs": [name_cell(one) for one in runs],
        "lines": lines,
        "of": len(rows),
        "copy_score": copy,
        "aligned": aligned,
        "samples": samples,
        "of_runs": len(equal),
        "limit": COPY_THRESHOLDS[copy][-1] if copy else None,
    }


def gallery_line(
    runs: list[Reported],
    scores: list[tuple[dict, dict]],
    references: References,
    row: int,
    *,
    samples: int,
    copy: str | None,
    aligned: str | None,
) -> dict:
    """One prompt. An image's frame: copy, free, or unknown without a score; a missing or broken
    file says so in its place.
    """
    prompt = runs[0].run.prompts[row]
    cells = []
    for one, (copies, alignment) in zip(runs, scores):
        keys = [Key(row, k) for k in range(samples)]
        cells.append(
            [
                picture(
                    one.run.files.get(key),
                    copies.get(key),
                    alignment.get(key),
                    copy=copy,
                    aligned=aligned,
                )
                for key in keys
            ]
        )
    found = references.files(prompt.index)
    return {
        "row": row,
        "kind": prompt.type,
        "caption": prompt.caption[:WIDE] + ("…" if len(prompt.caption) > WIDE else ""),
        "reference": picture(found[0], None, None, copy=None, aligned=None) if found else None,
        "references": len(found),
        "cells": cells,
    }


def picture(
    path: Path | None,
    score: float | None,
    alignment: float | None,
    *,
    copy: str | None,
    aligned: str | None,
) -> dict:
    """What the template needs to show one image."""
    state = (
        "unknown"
        if score is None or math.isnan(score) or not copy
        else "copy"
        if score > COPY_THRESHOLDS[copy][-1]
        else "free"
    )
    mark = (
        ""
        if alignment is None
        else (" ✓" if alignment else "")
        if aligned == "subject_shown"
        else f" · {alignment:.2f}"
    )
    note = ("" if score is None else f"{score:.2f}") + mark
    if path is None:
        return {"missing": "no image", "state": state, "note": note}
    try:
        return {"url": thumbnail(path), "state": state, "note": note}
    except Unreadable:
        return {"missing": "unreadable", "state": state, "note": note}


def tradeoff(runs: list[Reported]) -> tuple[str, str]:
    """(the plot as a data URL, why there is none)."""
    scored = [one.run.folder for one in runs if one.lines]
    try:
        return (
            (data_url(draw(*points(scored, None, None))), "")
            if len(scored) > 1
            else ("", "it takes two scored runs")
        )
    except ValueError as error:
        return "", str(error)


def render(runs: list[Reported], *, title: str, gt_folder: Path | None, limits: Limits) -> str:
    """The page's HTML; everything from files is escaped."""
    equal, notes = comparable(runs)
    embedded, models = (
        {one.run.model_id for one in runs if one.run.embedded or every} for every in (False, True)
    )
    plot, no_plot = tradeoff(equal)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        embedded=sorted(embedded),
        models=sorted(name or "unknown" for name in models),
        costs=cost_table(runs),
        plot=plot,
        no_plot=no_plot,
        tables=[score_table(runs, split) for split in splits(runs)],
        unscored=[one.title for one in runs if not one.lines],
        gallery=gallery(
            equal, References(gt_folder or training_images(runs[0].run), decode=False), limits
        ),
        notes=notes,
    )
