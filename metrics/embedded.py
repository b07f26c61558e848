"""The embedded models and their prompt files: what is known of their captions."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from memorization_suite import tiny
from memorization_suite.metrics.images import read_images
from memorization_suite.runs.lazy import Image, np, torch


@dataclass(frozen=True)
class Caption:
    """A row of an embedded model's prompt file."""

    row: int
    text: str
    # VM, TM, LM, or empty for an ordinary caption.
    kind: str
    group: str
    # Of its training images.
    index: str
    subjects: tuple[str, ...]

    def references(self) -> torch.Tensor:
        """Its training images, (r, 3, pixels, pixels) in [0, 1]."""
        return read_images(sorted((tiny.GT_IMAGES / self.index).glob("*.png")))

    def mask(self) -> torch.Tensor | None:
        """(pixels, pixels) bool, the memorized region of a local caption."""
        if self.kind != "LM":
            return None
        return torch.from_numpy(np.array(Image.open(tiny.MASKS / f"{self.index}.png")))


def read_captions(path: Path) -> list[Caption]:
    """The rows of one of tiny/prompts/*.csv. Raises ValueError for another file."""
    captions = []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, delimiter=";")
        if "subject" not in (reader.fieldnames or []):
            raise ValueError(
                f"{path} is not a prompt file of the embedded models: it has no column 'subject'"
            )
        for i, row in enumerate(reader):
            captions.append(
                Caption(
                    i,
                    text=row["Caption"],
                    kind=row["type"],
                    group=row["group"],
                    index=row["Index"],
                    subjects=tuple(row["subject"].split(",")),
                )
            )
    return captions


def subjects_of(prompts: Path) -> dict[int, tuple[str, ...]]:
    """Subjects of each row of an embedded model's prompt file; none for another file."""
    try:
        return {caption.row: caption.subjects for caption in read_captions(prompts)}
    except (ValueError, KeyError, UnicodeDecodeError):
        return {}
