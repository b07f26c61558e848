"""What a page tells of run folders: their costs, their scores with intervals, their pictures on
equal seeds.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.metrics.intervals import interval
from memorization_suite.metrics.runs import Run, config_of, open_run, unlike
from memorization_suite.metrics.summary import COPY_THRESHOLDS, Line, prompt_means, summarise
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.files import read_csv
from memorization_suite.runs.table import Result, read_results

ALIGNED = (
    "clip_gen",
    "subject_shown",
)  # what is told below a picture beside its copy score, the first that is there


@dataclass(frozen=True)
class Reported:
    """One run. settings: what tells it from others of its method; costs: images.csv by image;
    lines: of results.csv; results: its rows.
    """

    method: str
    settings: str
    run: Run
    config: dict
    finished: bool
    costs: dict[Key, dict[str, str]]
    lines: list[Line]
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
        found: dict[Key, float] = {}
        for row in self.results:
            if (
                row.quantity == quantity
                and row.prompt_index is not None
                and row.sample_index is not None
            ):
                found.setdefault(Key(row.prompt_index, row.sample_index), row.value)
        return found


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Run folders of generate_images.py: each given one, or all below it, unmitigated first. Raises
    ValueError for a folder without any.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder")
        own = [
            path.parent
            for path in [
                folder / "manifest.json",
                *sorted(folder.rglob("manifest.json"), key=order),
            ]
            if is_run(path)
        ]
        if not own:
            raise ValueError(
                f"{folder} is no run folder, and there is none below it: nothing has a "
                "manifest.json and images img_PPPP_SS.png"
            )
        found |= dict.fromkeys(path.resolve() for path in own)
    return list(found)


def order(manifest: Path) -> tuple:
    """Unmitigated runs first, then by name, numbers by their size."""
    words = re.split(r"(\d+)", str(manifest.parent))
    return manifest.parents[1].name != "no_mitigation", [
        int(word) if i % 2 else word for i, word in enumerate(words)
    ]


def is_run(manifest: Path) -> bool:
    """Whether this manifest is one of a run with images."""
    try:
        identity = json.loads(manifest.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return (
        isinstance(identity, dict)
        and "method" in identity
        and any(manifest.parent.glob("img_*.png"))
    )


def gather(folders: list[Path], prompts: Path | None = None) -> list[Reported]:
    """Everything that the folders say. prompts: in the place of the file that a run names. Raises
    ValueError.
    """
    names = [(folder.parent.name, folder.name) for folder in folders]
    parents = [folder.parents[1] for folder in folders]
    above = Path(os.path.commonpath(parents))
    found = []
    for folder, parent, name in zip(folders, parents, names):
        run, rows = (
            open_run(folder, prompts, incomplete=True, flag="the run folder"),
            read_csv(folder / "images.csv"),
        )
        method, settings = name
        if names.count(name) > 1:
            settings += f" in {parent.relative_to(above)}"
        try:
            costs = {Key(int(row["prompt_index"]), int(row["sample_index"])): row for row in rows}
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{folder / 'images.csv'} is no table of a run's images ({error})"
            ) from error
        found.append(
            Reported(
                method,
                settings,
                run,
                config_of(folder),
                bool((RunFolder(folder).manifest() or {}).get("finished")),
                costs,
                summarise(folder),
                read_results(folder),
            )
        )
    return found


def comparable(runs: list[Reported]) -> tuple[list[Reported], list[str]]:
    """Runs whose images stand on the first one's seeds and prompts, and why the others do not."""
    reasons = [unlike(runs[0].run.folder, one.run.folder) for one in runs]
    return [one for one, reason in zip(runs, reasons) if not reason], [
        reason for reason in reasons if reason
    ]


def columns(runs: list[Reported]) -> list[tuple[str, str]]:
    """(quantity, variant) of every score that some run has, in the order of first appearance."""
    return list(dict.fromkeys((line.quantity, line.variant) for one in runs for line in one.lines))


def splits(runs: list[Reported]) -> list[str]:
    """`all`, then the types of prompts."""
    return list(dict.fromkeys(line.split for one in runs for line in one.lines)) or ["all"]


def share_of_copies(
    one: Reported, quantity: str, variant: str, split: str
) -> tuple[float, float, float] | None:
    """Share of images above the quantity's largest threshold, mean over prompts, with its 95 %
    interval; None where there are none.
    """
    if quantity not in COPY_THRESHOLDS:
        return None
    kinds = {prompt.row: prompt.type for prompt in one.run.prompts}
    rows = [
        row
        for row in one.results
        if (row.quantity, row.variant) == (quantity, variant)
        and row.prompt_index is not None
        and math.isfinite(row.value)
        and split in ("all", kinds.get(row.prompt_index, ""))
    ]
    limit = COPY_THRESHOLDS[quantity][-1]
    shares = list(
        prompt_means(
            Result(**{**vars(row), "value": float(row.value > limit)}) for row in rows
        ).values()
    )
    return (statistics.mean(shares), *interval(shares)) if shares else None


def score_rows(one: Reported) -> Iterator[dict]:
    """Lines for a file: every score of every split as on the page, and the share of copies where
    the quantity has one.
    """
    for line in one.lines:
        copies = share_of_copies(one, line.quantity, line.variant, line.split) or ("", "", "")
        yield {
            "folder": str(one.run.folder),
            **{name: value for name, value in vars(line).items() if name != "shares"},
            **dict(zip(("copies", "copies_low", "copies_high"), copies)),
        }


def first_of(
    names: Iterable[str], runs: list[Reported], score: Callable[[Reported, str], dict]
) -> str | None:
    """The first quantity that some run has for its images."""
    return next((name for name in names if any(score(one, name) for one in runs)), None)
