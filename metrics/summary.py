"""Means, intervals and shares of results.csv: per run, quantity, variant and split of the prompts.

A split is all prompts, or those of one type.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from memorization_suite.metrics.base import quantity_named
from memorization_suite.metrics.intervals import (
    Mean,
    average,
    mean_over_prompts,
    prompt_means,
    share_of_copies,
)
from memorization_suite.metrics.references import stored_rows
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.foreign import is_named_alone, method_of, unknown
from memorization_suite.runs.lazy import Lazy, np
from memorization_suite.runs.marks import Marks
from memorization_suite.runs.table import Result, read_results
from memorization_suite.runs.text import table_text

sparse = Lazy("scipy.sparse")

ALL = "all"


@dataclass(frozen=True)
class Line:
    """One line of a summary. Without a value (n = 0) the figures are nan, and no shares."""

    method: str
    run: str
    quantity: str
    variant: str
    # `all`, or a type of prompts.
    split: str
    # Over prompts, of their means.
    mean: float = math.nan
    # The mean's 95 % interval over prompts; nan where there is none, see `runs/spread.py`.
    low: float = math.nan
    high: float = math.nan
    # The mean with prompts that share their training images counted as one.
    distinct: float = math.nan
    # Of the images.
    percentile_95: float = math.nan
    # Threshold -> share of copies, the strictest last.
    shares: dict[float, Mean] = field(default_factory=dict)
    # How many values there are, of how many there could be.
    n: int = 0
    total: int = 0

    @property
    def copies(self) -> Mean | None:
        """Share of copies by the strictest threshold; None where the quantity has none."""
        return list(self.shares.values())[-1] if self.shares else None


@dataclass(frozen=True)
class Prompts:
    """What a run folder says of its prompts."""

    # Prompt -> how many images of it there are.
    images: Counter[int]
    # Prompt -> its type; empty when it has none.
    types: dict[int | None, str]
    # Prompt -> smallest prompt that it shares training images with.
    clusters: dict[int | None, int]

    @classmethod
    def of(cls, folder: Path, of_images: list[int]) -> Prompts:
        """Those of the folder's images. of_images: the prompt of each."""
        images = Counter(of_images)
        types: dict[int | None, str] = dict.fromkeys(images, "")
        hashes = {}
        for prompt, row in stored_rows(folder).items():
            hashes[prompt] = set(row["sha256"].split())
            if prompt in types:
                types[prompt] = row.get("type", "")
        return cls(images, types, clusters(hashes))

    def splits(self) -> list[str]:
        """All prompts first, then each type, if there are several."""
        types = set(self.types.values())
        return [ALL, *sorted(types - {""})] if len(types) > 1 else [ALL]

    def is_in(self, split: str, prompt: int | None) -> bool:
        """Whether the split has the prompt."""
        return split in (ALL, self.types.get(prompt, ""))

    def mean_of_clusters(self, means: dict[int | None, float]) -> float:
        """Mean over the clusters of their prompts' means."""
        of_clusters = []
        for prompt, mean in means.items():
            of_clusters.append((self.clusters.get(prompt, prompt), mean))
        return average(list(prompt_means(of_clusters).values()))

    def observations(self, prompts: Iterable[int | None]) -> int:
        """How many these prompts are, where those that share training images are one."""
        return len({self.clusters.get(prompt, prompt) for prompt in prompts})

    def possible(self, split: str, row: Result) -> int:
        """How many values like this one there could be in the split."""
        if row.prompt_index is None:
            return 1
        images = [count for prompt, count in self.images.items() if self.is_in(split, prompt)]
        return len(images) if row.sample_index is None else sum(images)


@dataclass(frozen=True)
class Seen:
    """The images of a run folder, which is listed once."""

    folder: Path
    # The prompt of each image.
    of_images: list[int]
    # Which images are not finite, or of one color.
    marks: Marks

    @classmethod
    def of(cls, folder: Path) -> Seen:
        """Raises ValueError."""
        store = RunFolder(folder)
        images = store.images()
        marks = Marks.of(store.costs(), images)
        return cls(folder, [key.prompt for key in images], marks)

    def results(self) -> list[Result]:
        """Rows of results.csv that count. Raises ValueError."""
        return counted(read_results(self.folder), self.marks.not_finite)

    def lines(self) -> list[Line]:
        """As of `summarize`."""
        not_finite = self.marks.not_finite
        return summarize(self.folder, of_images=self.of_images, not_finite=not_finite)

    def notes(self, title: str) -> list[str]:
        """What a reader of its numbers must know. title: what the run is called."""
        notes = self.marks.lines(title)
        store = RunFolder(self.folder)
        if store.is_foreign():
            notes.append(f"{title}: {unknown(store.config())}")
        without = self.marks.not_finite
        if without and any(key_of(row) in without for row in read_results(self.folder)):
            notes.append(
                f"scores of {title} are from before those images were left out: values of whole "
                "prompts may be of them, too; score it again"
            )
        return notes


def summarize(
    folder: Path,
    only: Collection[tuple[str, str]] | None = None,
    *,
    of_images: list[int] | None = None,
    results: Iterable[Result] | None = None,
    not_finite: Collection[Key] | None = None,
) -> list[Line]:
    """Lines of a run folder, in the order of its results.

    The whole first, then each type of prompts, also one of which nothing was scored. A value of the
    whole run has no types. only: (quantity, variant), default all. of_images, results, not_finite:
    the prompt of each image, the rows of results.csv, and the images that are not finite, where
    they are known. Values that are not finite, or of such an image, do not count.
    """
    if of_images is None or not_finite is None:
        seen = Seen.of(folder)
        of_images, not_finite = seen.of_images, seen.marks.not_finite
    groups: dict[tuple[str, str], list[Result]] = {}
    for row in read_results(folder) if results is None else results:
        name = (row.quantity, row.variant)
        if only is None or name in only:
            groups.setdefault(name, []).append(row)
    prompts = Prompts.of(folder, of_images)
    lines = []
    for first, *others in groups.values():
        rows = counted([first, *others], not_finite)
        splits = [ALL] if first.prompt_index is None else prompts.splits()
        lines += [line(first, rows, split, prompts) for split in splits]
    if is_named_alone(folder):  # older rows have the name of the folder above
        lines = [replace(each, method=method_of(folder)) for each in lines]
    return lines


def counted(rows: Iterable[Result], not_finite: Collection[Key]) -> list[Result]:
    """The values that are numbers, and of no image that is not finite."""
    return [row for row in rows if math.isfinite(row.value) and key_of(row) not in not_finite]


def key_of(row: Result) -> Key | None:
    """The image that a value is of; None for one of a whole prompt or run."""
    if row.prompt_index is None or row.sample_index is None:
        return None
    return Key(row.prompt_index, row.sample_index)


def clusters(hashes: dict[int, set[str]]) -> dict[int | None, int]:
    """Prompt -> smallest prompt that it shares a training image with, be it through others.

    A prompt without any is alone. hashes: prompt -> hashes of its training images.
    """
    prompts = sorted(hashes)
    size = len(prompts)
    first_with: dict[str, int] = {}  # an image -> place of the first prompt that has it
    links = sparse.lil_array((size, size), dtype=bool)
    for i, prompt in enumerate(prompts):
        for image in hashes[prompt]:
            links[i, first_with.setdefault(image, i)] = True
    _, labels = sparse.csgraph.connected_components(links, directed=False)
    _, first = np.unique(labels, return_index=True)
    return {prompt: prompts[first[label]] for prompt, label in zip(prompts, labels)}


def line(first: Result, rows: list[Result], split: str, prompts: Prompts) -> Line:
    """The summary of one quantity and variant in one split.

    first: says which. rows: those of the whole run that count.
    """
    names = (first.method, first.run, first.quantity, first.variant, split)
    total = prompts.possible(split, first)
    chosen = [row for row in rows if prompts.is_in(split, row.prompt_index)]
    if not chosen:
        return Line(*names, total=total)
    values = values_of(chosen)
    quantity = quantity_named(first.quantity)
    n = prompts.observations(row.prompt_index for row in chosen)
    mean = mean_over_prompts(values, share=bool(quantity and quantity.yes), observations=n)
    thresholds = quantity.thresholds if quantity else ()
    shares = {}
    for threshold in thresholds:
        share = share_of_copies(values, threshold, observations=n)
        if share:
            shares[threshold] = share
    return Line(
        *names,
        **vars(mean),
        distinct=prompts.mean_of_clusters(prompt_means(values)),
        percentile_95=float(np.percentile([row.value for row in chosen], 95)),
        shares=shares,
        n=len(chosen),
        total=total,
    )


def values_of(rows: Iterable[Result]) -> list[tuple[int | None, float]]:
    """Prompt and value of each row."""
    return [(row.prompt_index, row.value) for row in rows]


def text_of(lines: list[Line]) -> str:
    """A table for people."""
    return table_text([cells(line) for line in lines]) if lines else "no results"


def cells(line: Line) -> dict[str, str]:
    """Column -> text."""
    copies = [f">={limit:g}: {share.mean:.1%}" for limit, share in line.shares.items()]
    if copies and line.n < line.total:
        copies[-1] += f" (of {line.n} images)"
    return {
        "method": line.method,
        "run": line.run,
        "quantity": line.quantity,
        "variant": line.variant,
        "prompts": line.split,
        "mean": number_text(line.mean),
        "95 % interval": interval_text(line.low, line.high),
        "distinct": number_text(line.distinct),
        "p95": f"{line.percentile_95:.4f}" if copies else "",
        "copies": ", ".join(copies),
        "n of N": f"{line.n} of {line.total}",
    }


def number_text(value: float) -> str:
    """`0.1000`; a dash for nan."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def interval_text(low: float, high: float, sign: str = "") -> str:
    """`[0.1000, 0.2000]`; a dash where there is none."""
    return "-" if math.isnan(low) else f"[{low:{sign}.4f}, {high:{sign}.4f}]"
