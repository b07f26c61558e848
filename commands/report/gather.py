"""What a page tells of run folders: costs, scores with intervals, pictures on equal seeds."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from memorization_suite.commands.report.details import Details, Origin
from memorization_suite.metrics.base import Quantity, quantities_of
from memorization_suite.metrics.comparison import (
    differences_of,
    is_unmitigated,
    references_of,
    titles_of,
)
from memorization_suite.metrics.runs import Run, open_run, unlike
from memorization_suite.metrics.summary import ALL, Line, counted, summarize
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.foreign import (
    holds_images,
    is_called_unmitigated,
    method_of,
    unknown,
)
from memorization_suite.runs.marks import Marks
from memorization_suite.runs.nobodys import owned
from memorization_suite.runs.notices import say
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.table import Result, read_results
from memorization_suite.runs.text import first_of

MANY = 10  # runs that take a while to read
# Columns of images.csv that a page has the means of.
COSTS = ("unet_evals", "seconds")
# Roles of the quantities by which runs are compared image by image.
COMPARED = ("copy", "alignment", "quality")
# Folders of a store in which no other one lies.
WITHIN = (".parts", ".claims", "latents")
# Generated pictures of a gallery whose prompts nobody limits: more would make a slow page.
MOST_PICTURES = 10_000


@dataclass(frozen=True)
class Limits:
    """Of the gallery."""

    # None: all, or as many as make MOST_PICTURES.
    prompts: int | None = None
    # None: all.
    runs: int | None = None
    # Images of each prompt and run.
    samples: int | None = None


@dataclass(frozen=True)
class Reported:
    """One run. Of each image nothing is kept that the gallery does not show."""

    method: str
    # What tells it from others of its method.
    settings: str
    # Its files are those of the gallery.
    run: Run
    # How many there are.
    prompts: int
    images: int
    config: dict
    finished: bool
    # Column of images.csv -> its mean over the images that have it.
    costs: dict[str, float]
    # Prompt -> the NFE of its images, as far as they are known.
    evals: dict[int, list[float]]
    # The summary of results.csv.
    lines: list[Line]
    # Quantity -> value of each image of the gallery; the first variant.
    scores: dict[str, dict[Key, float]]
    # Prompts of the gallery.
    rows: list[int]
    # Which images are not finite, or of one color.
    marks: Marks = Marks()
    # What is not known, of a folder without a manifest; empty of a run.
    unknown: str = ""
    # Of the images of the gallery.
    details: Details = Details()
    origin: Origin = Origin()
    # Values of images that say how well it did: those that `COMPARED` are roles of.
    results: list[Result] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.method} {self.settings}".strip()

    def line(self, quantity: str, variant: str, split: str) -> Line | None:
        """The summary of a score in a split, if it has values."""
        for line in self.lines:
            if line.n and (line.quantity, line.variant, line.split) == (quantity, variant, split):
                return line
        return None


class Listings:
    """What lies in folders, each of which is listed once."""

    def __init__(self) -> None:
        # A resolved folder -> names of its files, and folders in it.
        self.known: dict[Path, tuple[list[str], list[Path]]] = {}

    def of(self, folder: Path) -> tuple[list[str], list[Path]]:
        """Names of the files, and the folders; a link to a folder is neither."""
        if folder not in self.known:
            _, folders, files = next(os.walk(folder), ("", [], []))
            places = [folder / name for name in owned(folders)]
            below = [place for place in places if not place.is_symlink()]
            self.known[folder] = (owned(files), below)
        return self.known[folder]

    def stores(self, folder: Path) -> Iterator[Path]:
        """The folder and every one below it that has a manifest.json, or images without one."""
        files, folders = self.of(folder)
        has_manifest = "manifest.json" in files
        if has_manifest or holds_images(files):
            yield folder
        for below in folders:
            if not (has_manifest and below.name in WITHIN):
                yield from self.stores(below)


def find_runs(
    folders: Iterable[Path],
    *,
    foreign: bool = False,
    listings: Listings | None = None,
    others_in: Collection[Path] = (),
) -> dict[Path, list[str]]:
    """Folders of images: each given one, or all below it, unmitigated first. Names of their files
    go with them.

    listings: what was listed already. others_in: folders that have something else to show, and so
    need no run. foreign: whether those without a manifest count in any case, since their prompts
    are known. Else they do where there is no run, and beside runs they are left out, which is said.
    Raises ValueError for a folder without any.
    """
    listings = listings or Listings()
    runs: dict[Path, list[str]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder")
        own = folder.resolve()
        made = []
        others = []
        for place in listings.stores(own):
            names, _ = listings.of(place)
            if "manifest.json" not in names:
                others.append(place)
            elif is_run(place / "manifest.json", names):
                made.append(place)
        if others and made and not foreign:
            say(
                f"{first_of(list(map(str, others)), 2)}: images without a manifest.json, left out; "
                "--prompts FILE shows them, too"
            )
            others = []
        found = [*made, *others]
        if not found and folder not in others_in:
            raise ValueError(
                f"{folder} is no run folder, and there is none below it: nothing has images "
                "img_PPPP_SS.png, or scores of a detector"
            )
        for path in sorted(found, key=lambda path: (path != own, order(path / "manifest.json"))):
            runs.setdefault(path, listings.of(path)[0])
    return runs


def reference_first(
    runs: Mapping[Path, list[str]], named: Path | None = None, *, foreign: bool = False
) -> dict[Path, list[str]]:
    """The runs, with the one first that the others are shown beside: the named one, else the first
    without a mitigation. foreign: as of `find_runs`. Raises ValueError for a name that is no run.
    """
    if named is None:
        first = next(filter(is_unmitigated, runs), next(iter(runs)))
        return {first: runs[first], **runs}
    own = named.resolve()
    found = find_runs([named], foreign=foreign)
    if list(found) != [own]:
        raise ValueError(f"--reference {named} is a folder of runs: name one of them")
    return {**found, **runs}


def order(manifest: Path) -> tuple:
    """Unmitigated runs first, then by name, numbers by their size."""
    folder = manifest.parent
    words = re.split(r"(\d+)", str(folder))
    name = [int(word) if i % 2 else word for i, word in enumerate(words)]
    return not is_called_unmitigated(folder), name


def is_run(manifest: Path, names: Iterable[str]) -> bool:
    """Whether this manifest is one of a run with images. names: of the files beside it."""
    try:
        identity = json_of(manifest.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if not isinstance(identity, dict) or "method" not in identity:
        return False
    return any(name.startswith("img_") and name.endswith(".png") for name in names)


def gather(
    folders: Mapping[Path, Collection[str]],
    prompts: Path | None = None,
    *,
    column: str = "",
    limits: Limits = Limits(),
    quiet: bool = False,
) -> list[Reported]:
    """Everything that the folders say, and what the gallery may show.

    folders: with the names of their files. prompts: in the place of the file that a run names.
    column: of its captions.
    quiet: of a few nothing is said anyway. Raises ValueError.
    """
    titles = titles_of(list(folders))
    runs: list[Reported] = []
    shown: set[Key] = set()
    total = len(folders)
    quiet = quiet or total < MANY
    with Progress(f"a page of {total} runs", total, unit="run", quiet=quiet) as progress:
        for folder, names in folders.items():
            method = method_of(folder)
            settings = titles[folder].removeprefix(method).strip(" /")
            run = open_run(
                folder,
                prompts,
                column=column,
                incomplete=True,
                flag="the run folder",
                names=names,
            )
            shown = shown or in_gallery(run, limits, min(total, limits.runs or total))
            runs.append(read(run, method, settings, shown))
            progress.update(1)
    return runs


def in_gallery(first: Run, limits: Limits, runs: int = 1) -> set[Key]:
    """The images that are shown of each run, if it has them: of the first run's first prompts.

    runs: how many are shown.
    """
    every = max(key.sample for key in first.files) + 1
    samples = range(every if limits.samples is None else limits.samples)
    most = limits.prompts or max(1, MOST_PICTURES // (runs * len(samples)))
    rows = set(sorted(first.prompts_scored)[:most])
    return {Key(row, sample) for row in rows for sample in samples}


def read(run: Run, method: str, settings: str, shown: set[Key]) -> Reported:
    """Everything that a run folder says. shown: images of the gallery. Raises ValueError."""
    store = RunFolder(run.folder)
    rows = store.costs()
    marks = Marks.of(rows, run.files)
    results = counted(read_results(run.folder), marks.not_finite)
    files = {key: path for key, path in run.files.items() if key in shown}
    config = store.config()
    names = {quantity.name for role in COMPARED for quantity in quantities_of(role)}
    return Reported(
        method=method,
        settings=settings,
        run=replace(run, files=files, of_images=[]),
        prompts=len(run.prompts_scored),
        images=len(run.files),
        config=config,
        finished=store.is_finished(),
        costs=mean_costs(rows.values()),
        evals=evals_of(rows),
        lines=summarize(
            run.folder, of_images=run.of_images, results=results, not_finite=marks.not_finite
        ),
        scores=shown_scores(results, shown),
        rows=sorted({key.prompt for key in shown}),
        marks=marks,
        unknown=unknown(config) if store.is_foreign() else "",
        details=Details.of(store, rows, files.keys()),
        origin=Origin.of(store, config, run.files),
        results=[row for row in results if row.quantity in names],
    )


def mean_costs(rows: Collection[Mapping[str, str]]) -> dict[str, float]:
    """Column of images.csv -> its mean over the images that have it. rows: of that table."""
    means = {}
    for column in COSTS:
        values = [float(row[column]) for row in rows if row.get(column)]
        if values:
            means[column] = statistics.fmean(values)
    return means


def evals_of(rows: Mapping[Key, Mapping[str, str]]) -> dict[int, list[float]]:
    """Prompt -> the NFE of its images. rows: of images.csv."""
    evals: dict[int, list[float]] = {}
    for key, row in rows.items():
        if row.get("unet_evals"):
            evals.setdefault(key.prompt, []).append(float(row["unet_evals"]))
    return evals


def shown_scores(results: Iterable[Result], shown: set[Key]) -> dict[str, dict[Key, float]]:
    """Quantity -> value of each of the images that are shown; the first variant.

    A quantity that only other images have is there, too.
    """
    scores: dict[str, dict[Key, float]] = {}
    for row in results:
        if row.prompt_index is None or row.sample_index is None:
            continue
        values = scores.setdefault(row.quantity, {})
        key = Key(row.prompt_index, row.sample_index)
        if key in shown:
            values.setdefault(key, row.value)
    return scores


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


def differences_told(runs: list[Reported], named: Path | None = None) -> list[str]:
    """What differs beside the method between runs of equal seeds and what they compare with, a line
    for all of which it is the same. named: what all compare with.
    """
    titles = {reported.run.folder: reported.title for reported in runs}
    lines: dict[tuple[str, str], list[str]] = {}
    for run, other in references_of(list(titles), named and named.resolve()).items():
        differing = ", ".join(differences_of(run, other))
        if differing:
            lines.setdefault((titles[other], differing), []).append(titles[run])
    return [
        f"{first_of(alike)} beside {reference}: {differing}"
        for (reference, differing), alike in lines.items()
    ]


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


def of_copies() -> list[Quantity]:
    """The quantities that tell copies, in the order of preference."""
    return [quantity for quantity in quantities_of("copy") if quantity.thresholds]


def of_alignment() -> list[Quantity]:
    """The official ones, then those that say yes or no, then others."""
    return sorted(quantities_of("alignment"), key=lambda q: (not q.title, not q.yes))


def first_quantity(quantities: Iterable[Quantity], runs: list[Reported]) -> Quantity | None:
    """The first quantity that a run has for its images."""
    for quantity in quantities:
        if any(quantity.name in reported.scores for reported in runs):
            return quantity
    return None
