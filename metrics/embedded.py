"""Scores of a run on an embedded model: is an image a copy of its training image, does it show the
caption's subject?
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from memorization_suite import ROOT
from memorization_suite.metrics.copy_score import THRESHOLD
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.images import read_images
from memorization_suite.metrics.offline import CopyScore, FeatureDiversity, Realism, SubjectShown
from memorization_suite.metrics.references import References
from memorization_suite.metrics.runs import open_run
from memorization_suite.metrics.scores import run_scores
from memorization_suite.runs import Key
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.table import Result, add_results

TINY = ROOT / "tiny"


@dataclass(frozen=True)
class Caption:
    """A row of an embedded model's prompt file. kind: VM, TM, LM, or empty for an ordinary
    caption.
    """

    row: int
    text: str
    kind: str
    group: str
    index: str
    subjects: tuple[str, ...]

    def references(self) -> torch.Tensor:
        """Its training images, (r, 3, 32, 32) in [0, 1]."""
        return read_images(sorted((TINY / "gt_images" / self.index).glob("*.png")))

    def mask(self) -> torch.Tensor | None:
        """(32, 32) bool, the memorized region of a local caption."""
        import numpy as np

        return (
            torch.from_numpy(np.array(Image.open(TINY / "masks" / f"{self.index}.png")))
            if self.kind == "LM"
            else None
        )


def read_captions(path: Path) -> list[Caption]:
    """The rows of one of tiny/prompts/*.csv. Raises ValueError for another file."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, delimiter=";")
        if "subject" not in (reader.fieldnames or []):
            raise ValueError(
                f"{path} is not a prompt file of the embedded models: it has no column 'subject'"
            )
        return [
            Caption(
                i,
                row["Caption"],
                row["type"],
                row["group"],
                row["Index"],
                tuple(row["subject"].split(",")),
            )
            for i, row in enumerate(reader)
        ]


def subjects_of(prompts: Path) -> dict[int, tuple[str, ...]]:
    """Subjects of each row of an embedded model's prompt file; none for another file."""
    try:
        return {caption.row: caption.subjects for caption in read_captions(prompts)}
    except (ValueError, KeyError, UnicodeDecodeError):
        return {}


def score_run(folder: Path, prompts: Path, samples: int) -> list[Result]:
    """Copy score (memorized captions) and whether the subject is shown, for every image; also
    stored in `results.csv`.
    """
    run, features = open_run(folder, prompts, num_samples=samples), EfficientNet()
    scores, references = (
        [CopyScore(masked=True), SubjectShown(features, subjects_of(prompts))],
        References(TINY / "gt_images"),
    )
    found = [row for rows in run_scores(run, scores, references, TINY / "masks") for row in rows]
    write_csv(folder / "references.csv", (entry.row() for entry in references.coverage.values()))
    add_results(folder, found)
    return found


def score_all(folder: Path, prompts: Path, samples: int) -> dict[str, dict[Key, float]]:
    """quantity -> value of each image: copy score, subject shown, diversity, realism; also stored
    in `results.csv`.
    """
    run, features = open_run(folder, prompts, num_samples=samples), EfficientNet()
    scores = [
        CopyScore(masked=True),
        SubjectShown(features, subjects_of(prompts)),
        FeatureDiversity(features),
        Realism(features),
    ]
    rows = [
        row
        for rows in run_scores(run, scores, References(TINY / "gt_images"), TINY / "masks")
        for row in rows
    ]
    add_results(folder, rows)
    found: dict[str, dict[Key, float]] = {score.quantity: {} for score in scores}
    for row in rows:
        if row.prompt_index is not None and row.sample_index is not None:
            found[row.quantity][Key(row.prompt_index, row.sample_index)] = row.value
    return found


def copied(score: float) -> bool:
    """Whether a copy score means a copy."""
    return score > THRESHOLD
