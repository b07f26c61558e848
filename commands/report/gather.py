"""What a page tells of run folders: costs, scores with intervals, pictures on equal seeds."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.metrics.base import Quantity
from memorization_suite.metrics.runs import Run, open_run, unlike
from memorization_suite.metrics.summary import ALL, Line, summarize
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.table import Result, read_results

MANY = 10  # runs that take a while to read


@dataclass(frozen=True)
class Reported:
    """One run."""

    method: str
    # What tells it from others of its method.
    settings: str
    run: Run
    config: dict
    finished: bool
    # Rows of images.csv by image.
    costs: dict[Key, dict[str, str]]
    # The summary of results.csv.
    lines: list[Line]
    # Its rows.
    results: list[Result]

    @property
    def title(self) -> str:
        return f"{self.method} {self.settings}"

    def cost(self, column: str) -> float | None:
        """Mean of a column of images.csv over the images that have it."""
        values = [float(row[column]) for row in self.costs.values() if row.get(column)]
        return statistics.mean(values) if values else None

    def score(self, quantity: str) -> dict[Key, float]:
        """Value of each image; the first variant."""
        values: dict[Key, float] = {}
        for row in self.results:
            if row.quantity != quantity or row.prompt_index is None or row.sample_index is None:
                continue
            values.setdefault(Key(row.prompt_index, row.sample_index), row.value)
        return values

    def line(self, quantity: str, variant: str, split: str) -> Line | None:
        """The summary of a score in a split, if it has values."""
        for line in self.lines:
            if line.n and (line.quantity, line.variant, line.split) == (quantity, variant, split):
                return line
        return None


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Run folders of generate_images.py: each given one, or all below it, unmitigated first.

    Raises ValueError for a folder without any.
    """
    runs: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder")
        below = sorted(folder.rglob("manifest.json"), key=order)
        manifests = [path for path in [folder / "manifest.json", *below] if is_run(path)]
        if not manifests:
            raise ValueError(
                f"{folder} is no run folder, and there is none below it: nothing has a "
                "manifest.json and images img_PPPP_SS.png"
            )
        runs |= dict.fromkeys(path.parent.resolve() for path in manifests)
    return list(runs)


def order(manifest: Path) -> tuple:
    """Unmitigated runs first, then by name, numbers by their size."""
    words = re.split(r"(\d+)", str(manifest.parent))
    name = [int(word) if i % 2 else word for i, word in enumerate(words)]
    return manifest.parents[1].name != "no_mitigation", name


def is_run(manifest: Path) -> bool:
    """Whether this manifest is one of a run with images."""
    try:
        identity = json.loads(manifest.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if not isinstance(identity, dict) or "method" not in identity:
        return False
    return any(manifest.parent.glob("img_*.png"))


def gather(
    folders: list[Path], prompts: Path | None = None, *, quiet: bool = False
) -> list[Reported]:
    """Everything that the folders say. prompts: in the place of the file that a run names.

    quiet: of a few nothing is said anyway. Raises ValueError.
    """
    names = [(folder.parent.name, folder.name) for folder in folders]
    above = Path(os.path.commonpath([folder.parents[1] for folder in folders]))
    runs = []
    total = len(folders)
    quiet = quiet or total < MANY
    with Progress(f"a page of {total} runs", total, unit="run", quiet=quiet) as progress:
        for folder, (method, settings) in zip(folders, names):
            if names.count((method, settings)) > 1:
                settings += f" in {folder.parents[1].relative_to(above)}"
            runs.append(read(folder, method, settings, prompts))
            progress.update(1)
    return runs


def read(folder: Path, method: str, settings: str, prompts: Path | None) -> Reported:
    """Everything that a run folder says. Raises ValueError."""
    store = RunFolder(folder)
    return Reported(
        method=method,
        settings=settings,
        run=open_run(folder, prompts, incomplete=True, flag="the run folder"),
        config=store.config(),
        finished=store.is_finished(),
        costs=store.costs(),
        lines=summarize(folder),
        results=read_results(folder),
    )


def comparable(runs: list[Reported]) -> tuple[list[Reported], list[str]]:
    """Runs whose images stand on the first one's seeds and prompts, and why the others do not."""
    equal = []
    reasons = []
    for reported in runs:
        reason = unlike(runs[0].run.folder, reported.run.folder)
        if reason:
            reasons.append(reason)
        else:
            equal.append(reported)
    return equal, reasons


def columns(runs: list[Reported]) -> list[tuple[str, str]]:
    """(quantity, variant) of every score that a run has, in the order of first appearance."""
    lines = [line for reported in runs for line in reported.lines]
    return list(dict.fromkeys((line.quantity, line.variant) for line in lines))


def splits(runs: list[Reported]) -> list[str]:
    """`all`, then the types of prompts."""
    lines = [line for reported in runs for line in reported.lines]
    return list(dict.fromkeys(line.split for line in lines)) or [ALL]


def score_rows(reported: Reported) -> Iterator[dict]:
    """Lines for a file: every score of every split as on the page, with the share of copies by the
    strictest threshold; it is empty where the quantity has none.
    """
    for line in reported.lines:
        figures = dict(vars(line))
        del figures["shares"]
        share = line.copies
        yield {
            "folder": str(reported.run.folder),
            **figures,
            "copies": share.mean if share else "",
            "copies_low": share.low if share else "",
            "copies_high": share.high if share else "",
        }


def first_of(quantities: Iterable[Quantity], runs: list[Reported]) -> Quantity | None:
    """The first quantity that a run has for its images."""
    for quantity in quantities:
        if any(reported.score(quantity.name) for reported in runs):
            return quantity
    return None
