"""Scores of a run on an embedded model: is an image a copy of its training image, does it show the caption's subject?"""
from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from metrics.copy_score import SHIFT, SIDE, THRESHOLD, copy_scores
from metrics.images import read_images
from metrics.subject import subject_shown
from results.run_folder import Key, RunFolder
from results.table import Result, add_results

TINY = Path(__file__).parent.parent / "tiny"
COPY_VARIANT = f"ncc{SIDE}_shift{SHIFT}"
SUBJECT_VARIANT = "efficientnet_lite0_probe"


@dataclass(frozen=True)
class Caption:
    """A row of an embedded model's prompt file. kind: VM, TM, LM, or empty for an ordinary caption."""

    row: int
    text: str
    kind: str
    group: str
    index: str
    subjects: tuple[str, ...]

    def references(self) -> torch.Tensor:
        """Its training images, (r, 3, 64, 64) in [0, 1]."""
        return read_images(sorted((TINY / "gt_images" / self.index).glob("*.png")))

    def mask(self) -> torch.Tensor | None:
        """(64, 64) bool, the memorized region of a local caption."""
        import numpy as np

        return torch.from_numpy(np.array(Image.open(TINY / "masks" / f"{self.index}.png"))) if self.kind == "LM" else None


def read_captions(path: Path) -> list[Caption]:
    """The rows of one of tiny/prompts/*.csv. Raises ValueError for another file."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, delimiter=";")
        if "subject" not in (reader.fieldnames or []):
            raise ValueError(f"{path} is not a prompt file of the embedded models: it has no column 'subject'")
        return [Caption(i, row["Caption"], row["type"], row["group"], row["Index"], tuple(row["subject"].split(","))) for i, row in enumerate(reader)]


def score_run(folder: RunFolder, captions: list[Caption], samples: int) -> list[Result]:
    """Copy score (memorized captions) and whether the subject is shown, for every image; also stored in `results.csv`."""
    name, method = folder.path.name, folder.path.parent.name
    found = []
    for caption in captions:
        images = read_images(folder.image_path(Key(caption.row, k)) for k in range(samples))
        values = {("subject_shown", SUBJECT_VARIANT): subject_shown(images, caption.subjects).float()}
        if caption.kind:
            values["copy_score", COPY_VARIANT] = copy_scores(images, caption.references(), caption.mask()).amax(1)
        found += [Result(name, method, caption.row, k, quantity, variant, float(column[k]))
                  for (quantity, variant), column in values.items() for k in range(samples)]
    add_results(folder.path, found)
    return found


def copied(score: float) -> bool:
    """Whether a copy score means a copy."""
    return score > THRESHOLD

