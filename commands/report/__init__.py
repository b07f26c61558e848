"""One self-contained HTML page of run folders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization_suite.commands.report.gather import (
    Limits,
    find_runs,
    gather,
    reference_first,
    score_rows,
)
from memorization_suite.commands.report.page import render
from memorization_suite.commands.settings import split
from memorization_suite.metrics.checkpoints import existing
from memorization_suite.prompts.flags import caption_column
from memorization_suite.prompts.sets import is_hub
from memorization_suite.runs.files import write_bytes, write_csv
from memorization_suite.runs.marks import FLAT, NOT_FINITE
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
    max_prompts: int = flag(48, "prompts in the gallery", at_least=1, metavar="N")
    max_runs: int = flag(12, "runs in the gallery", at_least=1, metavar="N")
    samples: int = flag(2, "images of each prompt and run in the gallery", at_least=1, metavar="N")
    quiet: bool = flag(False, "no line on what comes next")


@dataclass(frozen=True)
class Page:
    """A page that was written."""

    path: Path
    # The run folders on it, in order.
    runs: list[Path]
    # Bytes of the page.
    size: int
    # How many images have no scores since they are not finite, and how many are of one color.
    not_finite: int = 0
    flat: int = 0

    @property
    def summary(self) -> str:
        """Where it is and what is on it, in a line."""
        text = f"{self.path}: {counted(len(self.runs), 'run')}, {self.size / 1e6:.1f} MB"
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

    folders: of runs, or with run folders below them; others are shown beside the reference, see
    make_report.py --reference. failed: names of runs that failed, and why. typed: flags of
    make_report.py by name. Raises ValueError for what the user can mend.
    """
    split(typed, Reporting)
    settings = Reporting(**typed)
    out = Path(out)
    check_page(out)
    existing(settings.gt_folder, "--gt_folder", folder=True)
    if settings.prompts and not is_hub(str(settings.prompts)):
        existing(settings.prompts, "--prompts", folder=False)
    limits = Limits(settings.max_prompts, settings.max_runs, settings.samples)
    foreign = settings.prompts is not None
    found = find_runs(map(Path, folders), foreign=foreign)
    found = reference_first(found, settings.reference, foreign=foreign)
    runs = gather(
        found,
        settings.prompts,
        column=settings.caption_column,
        limits=limits,
        quiet=settings.quiet,
    )
    page = render(
        runs,
        title=settings.title,
        gt_folder=settings.gt_folder,
        limits=limits,
        failed=failed,
        reference=settings.reference,
    ).encode()
    rows = [row for reported in runs for row in score_rows(reported)]
    write_csv(scores_beside(out), rows)
    write_bytes(out, page)
    return Page(
        out,
        [reported.run.folder for reported in runs],
        len(page),
        not_finite=sum(len(reported.marks.not_finite) for reported in runs),
        flat=sum(len(reported.marks.flat) for reported in runs),
    )


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
