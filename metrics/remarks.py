"""What is to be said of images and values that a scoring leaves out, so that nobody counts them."""

from __future__ import annotations

from collections.abc import Sequence

from memorization_suite.metrics.base import Job
from memorization_suite.metrics.pieces import Found
from memorization_suite.metrics.runs import Group, Run
from memorization_suite.runs import Key
from memorization_suite.runs.marks import FLAT, NOT_FINITE, is_flat, said
from memorization_suite.runs.table import Result
from memorization_suite.runs.text import counted, first_of


def check_finite(run: Run, flag: str = "--gen_folder") -> None:
    """Raises ValueError for a run without an image that can be scored."""
    if run.not_finite.issuperset(run.files):
        raise ValueError(
            f"{flag} {run.folder}: none of the {len(run.files)} images is finite (column finite of "
            "its images.csv), so that there is nothing to score. Make the run again with a model "
            "or a --dtype whose numbers stay finite"
        )


def images_left_out(job: Job) -> list[str]:
    """Which images have no scores, or none against the unmitigated run."""
    run = job.run
    total = len(run.files)
    what = f"{NOT_FINITE} and left out of every score"
    lines = said(run.not_finite, total, run.title, what)
    if job.unmitigated:
        missing = set(run.files) & job.unmitigated.not_finite - run.not_finite
        name = f"--unmitigated {job.unmitigated.title}"
        lines += said(missing, total, name, f"{NOT_FINITE}, and nothing is compared with them")
    return lines


def remarks(job: Job, found: Found) -> list[str]:
    """Which images are of one color, and which values are not finite, of what was scored now."""
    lines = said(found.flat, found.images, job.run.title, f"{FLAT}, and scored")
    groups: dict[tuple[str, str], list[Result]] = {}
    for row in found.left_out:
        groups.setdefault((row.quantity, row.variant), []).append(row)
    for (quantity, variant), rows in groups.items():
        values = counted(len(rows), "value")
        are = "is" if len(rows) == 1 else "are"
        lines.append(
            f"{values} of {quantity} ({variant}) {are} {NOT_FINITE} and left out: "
            f"{first_of([place(row) for row in rows])}"
        )
    return lines


def place(row: Result) -> str:
    """Of which image or prompt a value is."""
    if row.prompt_index is None:
        return "the run"
    if row.sample_index is None:
        return f"prompt {row.prompt_index}"
    return f"img_{Key(row.prompt_index, row.sample_index)}"


def flat_in(groups: Sequence[Group]) -> list[Key]:
    """The images of one color; images.csv of older runs does not tell them."""
    flat = []
    for group in groups:
        for sample, picture in zip(group.samples, group.pictures):
            if is_flat(picture.image):
                flat.append(Key(group.prompt.row, sample))
    return flat
