"""Means, intervals and shares of results.csv: per run, quantity, variant and split of the
prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memorization_suite.metrics.copy_score import THRESHOLD
from memorization_suite.metrics.intervals import interval
from memorization_suite.metrics.runs import keys_of
from memorization_suite.runs.files import read_csv
from memorization_suite.runs.table import Result, read_results

COPY_THRESHOLDS = {
    "sscd": (0.5, 0.7),
    "copy_score": (THRESHOLD,),
}  # above which an image counts as a copy


@dataclass(frozen=True)
class Line:
    """One line of a summary. mean: over prompts of their means; low, high: 95 % interval over
    prompts; distinct: the mean with prompts that share their training images counted as one;
    shares: threshold -> share of images above; n of total: values.
    Without a value (n = 0) the figures are nan and there are no shares."""

    method: str
    run: str
    quantity: str
    variant: str
    split: str
    mean: float
    low: float
    high: float
    distinct: float
    percentile_95: float
    shares: dict[float, float]
    n: int
    total: int


def summarise(folder: Path, only: set[tuple[str, str]] | None = None) -> list[Line]:
    """Lines of a run folder, in the order of its results; the whole first, then each type of
    prompts, also one of which nothing was scored.

    A value of the whole run has no types. only: (quantity, variant).
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for row in read_results(folder):
        if only is None or (row.quantity, row.variant) in only:
            groups.setdefault((row.quantity, row.variant), []).append(row)
    references: dict[int | None, dict[str, str]] = {
        int(row["prompt_index"]): row for row in read_csv(folder / "references.csv")
    }
    prompts = [key.prompt for key in keys_of(folder)]
    types = {prompt: references.get(prompt, {}).get("type", "") for prompt in prompts}
    cluster = clusters(
        {
            prompt: set(row["sha256"].split())
            for prompt, row in references.items()
            if prompt is not None
        }
    )
    splits = (
        ["all", *sorted(set(types.values()) - {""})] if len(set(types.values())) > 1 else ["all"]
    )
    lines = []
    for rows in groups.values():
        for split in splits if rows[0].prompt_index is not None else ["all"]:
            chosen = [
                row for row in rows if split == "all" or split == types.get(row.prompt_index, "")
            ]
            of = [prompt for prompt in prompts if split in ("all", types[prompt])]
            lines.append(line(rows[0], chosen, split, number_of(rows[0], of), cluster))
    return lines


def clusters(hashes: dict[int, set[str]]) -> dict[int | None, int]:
    """Prompt -> smallest prompt that it shares a training image with, be it through others; a
    prompt without any is alone.
    """
    found: dict[int | None, int] = {}
    owner: dict[str, int] = {}
    for prompt, images in sorted(hashes.items()):
        joined = {owner[image] for image in images if image in owner} | {prompt}
        found[prompt] = min(joined)
        for other, first in found.items():
            found[other] = min(joined) if first in joined else first
        owner.update(
            {image: min(joined) for image in images}
            | {image: min(joined) for image, first in owner.items() if first in joined}
        )
    return found


def number_of(row: Result, prompts: list[int]) -> int:
    """How many values of this kind there could be. prompts: that of every image."""
    if row.prompt_index is None:
        return 1
    return len(set(prompts)) if row.sample_index is None else len(prompts)


def line(
    first: Result, rows: list[Result], split: str, total: int, cluster: dict[int | None, int]
) -> Line:
    """The summary of values of one quantity and variant, those of `first`, in one split."""
    names = (first.method, first.run, first.quantity, first.variant, split)
    if not rows:
        return Line(*names, *[math.nan] * 5, {}, 0, total)
    values, means = np.array([row.value for row in rows]), prompt_means(rows)
    low, high = interval(list(means.values()))
    grouped: dict[int | None, list[float]] = {}
    for prompt, value in means.items():
        grouped.setdefault(cluster.get(prompt, prompt), []).append(value)
    return Line(
        *names,
        float(np.mean(list(means.values()))),
        low,
        high,
        float(np.mean([np.mean(some) for some in grouped.values()])),
        float(np.percentile(values, 95)),
        {
            limit: float(np.mean(values > limit))
            for limit in COPY_THRESHOLDS.get(first.quantity, ())
        },
        len(rows),
        total,
    )


def prompt_means(rows: Iterable[Result]) -> dict[int | None, float]:
    """Mean of each prompt's values."""
    found: dict[int | None, list[float]] = {}
    for row in rows:
        found.setdefault(row.prompt_index, []).append(row.value)
    return {prompt: float(np.mean(values)) for prompt, values in found.items()}


def text_of(lines: list[Line]) -> str:
    """A table for people."""
    rows = [
        {
            "method": x.method,
            "run": x.run,
            "quantity": x.quantity,
            "variant": x.variant,
            "prompts": x.split,
            "mean": number_text(x.mean),
            "95 % interval": interval_text(x.low, x.high),
            "distinct": number_text(x.distinct),
            "p95": f"{x.percentile_95:.4f}" if x.shares else "",
            "copies": ", ".join(f">{limit:g}: {part:.1%}" for limit, part in x.shares.items()),
            "n of N": f"{x.n} of {x.total}",
        }
        for x in lines
    ]
    return table_text(rows) if rows else "no results"


def number_text(value: float) -> str:
    """`0.1000`; a dash for nan."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def interval_text(low: float, high: float, sign: str = "") -> str:
    """`[0.1000, 0.2000]`; a dash where there is none."""
    return "-" if math.isnan(low) else f"[{low:{sign}.4f}, {high:{sign}.4f}]"


def table_text(rows: list[dict[str, str]]) -> str:
    """Columns of equal width under their names; an empty column is left out."""
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    kept = [name for name in widths if any(row[name] for row in rows)]
    return "\n".join(
        "  ".join(row[name].ljust(widths[name]) for name in kept).rstrip()
        for row in [{name: name for name in widths}, *rows]
    )
