"""One HTML page of runs, sweeps and detections."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memorization_suite.commands.report.detections import find_detections, read_detections
from memorization_suite.commands.report.gather import (
    MOST_PICTURES,
    Limits,
    Listings,
    find_runs,
    gather,
    reference_first,
    score_rows,
)
from memorization_suite.commands.report.page import Contents, render
from memorization_suite.commands.report.pictures import MOST, folder_of, remove_folder
from memorization_suite.commands.settings import command_words, split
from memorization_suite.commands.sweeps.record import read_record
from memorization_suite.metrics.checkpoints import existing
from memorization_suite.prompts.flags import caption_column
from memorization_suite.prompts.sets import is_hub
from memorization_suite.runs.files import write_bytes, write_csv
from memorization_suite.runs.marks import FLAT, NOT_FINITE
from memorization_suite.runs.notebook import link_html
from memorization_suite.runs.places import check_file
from memorization_suite.runs.settings import Settings, flag, frozen_settings
from memorization_suite.runs.text import counted


@frozen_settings
class Reporting(Settings):
    """The flags of make_report.py."""

    title: str = flag("Memorization report", "heading of the page", metavar="TEXT")
    prompts: Path | None = flag(
        None,
        "prompt file of the runs (default: the one that each run names)",
        alias="-p",
        metavar="FILE",
    )
    caption_column: str = caption_column()
    gt_folder: Path | None = flag(
        None,
        "training images, <folder>/<Index>/*.png (default as for the metric scripts)",
        metavar="FOLDER",
    )
    reference: Path | None = flag(
        None,
        "run that the others are shown beside (default: the first without a mitigation, else the "
        "first)",
        metavar="DIR",
    )
    max_prompts: int | None = flag(
        None,
        f"prompts in the gallery (default: all that {MOST_PICTURES:,} pictures are of)",
        at_least=1,
        metavar="N",
    )
    max_runs: int | None = flag(None, "runs in the gallery (default: all)", at_least=1, metavar="N")
    samples: int | None = flag(
        None, "images of each prompt and run there (default: all)", at_least=1, metavar="N"
    )
    self_contained: bool = flag(
        False, f"one file, also of more than {MOST:,} pictures, which else lie in NAME_files/"
    )
    quiet: bool = flag(False, "no line on what comes next")


@dataclass(frozen=True, repr=False)
class Page:
    """A page that was written."""

    path: Path
    # The run folders on it, in order.
    runs: list[Path]
    # Bytes of the page.
    size: int
    # Of the pictures beside it.
    beside: int = 0
    # Folders of detectors' scores on it.
    detections: list[Path] = field(default_factory=list)
    # How many images have no scores since they are not finite, and how many are of one color.
    not_finite: int = 0
    flat: int = 0

    @property
    def summary(self) -> str:
        """Where it is and what is on it, in a line."""
        return f"{self.path}: {self.shown}"

    def __repr__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        return link_html(str(self.path), f": {self.shown}")

    @property
    def shown(self) -> str:
        """What is on it."""
        shown = []
        if self.runs or not self.detections:
            shown.append(counted(len(self.runs), "run"))
        if self.detections:
            shown.append(counted(len(self.detections), "detector"))
        text = f"{', '.join(shown)}, {self.size / 1e6:.1f} MB"
        if self.beside:
            text += f"; its pictures are in {folder_of(self.path)}, {self.beside / 1e6:.1f} MB"
        for count, what in ((self.not_finite, NOT_FINITE), (self.flat, FLAT)):
            if count:
                text += f"; {counted(count, 'image')} {'is' if count == 1 else 'are'} {what}"
        return text


def report(
    folders: Iterable[Path | str],
    out: Path | str,
    *,
    failed: Sequence[tuple[str, str]] = (),
    **typed: Any,
) -> Page:
    """Writes the page, and its scores to NAME_scores.csv beside it.

    folders: of runs and of detectors' scores, or with such folders below them, such as a sweep's.
    Runs are shown beside the reference, see make_report.py --reference. failed: names of runs that
    failed, and why. typed: flags of make_report.py by name. Raises ValueError for what the user can
    mend.
    """
    split(typed, Reporting)
    settings = Reporting(**typed)
    out = Path(out)
    places = list(map(Path, folders))
    check_page(out)
    existing(settings.gt_folder, "--gt_folder", folder=True)
    if settings.prompts and not is_hub(str(settings.prompts)):
        existing(settings.prompts, "--prompts", folder=False)
    limits = Limits(settings.max_prompts, settings.max_runs, settings.samples)
    foreign = settings.prompts is not None
    listings = Listings()
    scores = {place: find_detections(place, listings) for place in places}
    others_in = [place for place, below in scores.items() if below]
    found = find_runs(places, foreign=foreign, listings=listings, others_in=others_in)
    detections = read_detections(list(dict.fromkeys(sum(scores.values(), []))))
    runs = []
    if found:
        found = reference_first(found, settings.reference, foreign=foreign)
        runs = gather(
            found,
            settings.prompts,
            column=settings.caption_column,
            limits=limits,
            quiet=settings.quiet,
        )
    contents = Contents(
        settings.title,
        runs,
        reference=settings.reference,
        gt_folder=settings.gt_folder,
        limits=limits,
        failed=[*failed, *not_made(places, found, failed)],
        detections=detections,
        command=command_of(places, out, typed),
    )
    text, beside = render(
        contents, out, self_contained=settings.self_contained, quiet=settings.quiet
    )
    page = text.encode()
    if runs:
        rows = [row for reported in runs for row in score_rows(reported)]
        write_csv(scores_beside(out), rows)
    write_bytes(out, page)
    if not beside:
        remove_folder(out)
    return Page(
        out,
        [reported.run.folder for reported in runs],
        len(page),
        beside,
        [detection.folder for detection in detections],
        not_finite=sum(len(reported.marks.not_finite) for reported in runs),
        flat=sum(len(reported.marks.flat) for reported in runs),
    )


def not_made(
    places: Sequence[Path], found: Collection[Path], failed: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Names of runs of sweeps that have no images, and what tells more; of those that failed it is
    known. Raises ValueError for a damaged record of a sweep.
    """
    told = {name for name, _ in failed}
    lacking = []
    for place in places:
        record = read_record(place)
        for member in record.runs if record else []:
            if (place / member.folder).resolve() not in found and member.name not in told:
                why = f"it has no images yet; sweep.py with --status tells how far {place} is"
                lacking.append((member.name, why))
    return lacking


def command_of(folders: Sequence[Path], out: Path, typed: Mapping[str, Any]) -> str:
    """What one would type for the same page."""
    words = ["python", "make_report.py", *map(str, folders), "--out", str(out)]
    given = {name: value for name, value in typed.items() if name != "quiet"}
    return shlex.join([*words, *command_words("", given, Reporting)[1:]])


def check_page(out: Path) -> None:
    """Raises ValueError for what is no name of a page, or lies in a folder that is not there."""
    if not out.resolve().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
    if out.is_dir() or out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out {out} is no name of a page: it ends in .html")
    check_file(out, "--out", scores_beside(out).name)


def scores_beside(out: Path) -> Path:
    """The table of a page's scores."""
    return out.with_name(f"{out.stem}_scores.csv")
