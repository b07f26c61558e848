"""A run of generate_images.py on an embedded model, with its offline scores: what the demo and the
measurements share.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

import memorization_suite.generation
from memorization_suite.metrics.embedded import TINY, Caption, copied, read_captions, score_run
from memorization_suite.pipelines.magnitudes import start_magnitudes
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.files import read_csv


@dataclass
class ScoredRun:
    """A finished run. Scores and rows of images.csv by image; copy_score has memorized captions
    only.
    """

    folder: RunFolder
    captions: list[Caption]
    copy_score: dict[Key, float]
    subject_shown: dict[Key, float]
    rows: dict[Key, dict[str, str]]

    def copies(self, wanted: Callable[[Caption], bool] = lambda caption: True) -> float | None:
        """Share of copies among the images of the wanted captions; None without any."""
        return mean(
            copied(score)
            for key, score in self.copy_score.items()
            if wanted(self.captions[key.prompt])
        )

    def shown(self, wanted: Callable[[Caption], bool] = lambda caption: True) -> float | None:
        """Share of images that show their subject."""
        return mean(
            value for key, value in self.subject_shown.items() if wanted(self.captions[key.prompt])
        )

    def column(
        self, name: str, wanted: Callable[[Caption], bool] = lambda caption: True
    ) -> float | None:
        """Mean of a column of images.csv."""
        return mean(
            float(row[name]) for key, row in self.rows.items() if wanted(self.captions[key.prompt])
        )

    def magnitudes(self, pipe) -> dict[Key, float]:
        """First-step magnitudes where sampling started; the run was made with --save_latents and
        the model's own scheduler.
        """
        latents = torch.stack(
            [load_file(self.folder.latents_path(key))["adjusted"] for key in self.rows]
        )
        values = start_magnitudes(pipe, [row["prompt"] for row in self.rows.values()], latents)
        return dict(zip(self.rows, values.tolist()))


def mean(values) -> float | None:
    """Mean, or None of nothing."""
    found = [float(value) for value in values]
    return statistics.mean(found) if found else None


def scored_run(
    model_id: str,
    split: str,
    out: Path,
    flags: list[str],
    *,
    samples: int,
    batch: int = 8,
    start: int = 0,
    end: int | None = None,
) -> ScoredRun:
    """Generates (or goes on) and scores rows start..end-1. split: `memorized_test` and the like.
    Exits with the command's code when it fails.
    """
    path = TINY / "prompts" / f"{model_id}_{split}.csv"
    captions = read_captions(path)[:end]
    argv = [
        "--model_id",
        model_id,
        "--prompts",
        str(path),
        "--output_path",
        str(out / f"{model_id}_{split}_s{samples}_b{batch}"),
        "-b",
        str(batch),
        "--n_samples_per_prompt",
        str(samples),
        "--start",
        str(start),
        "--end",
        str(len(captions)),
        *flags,
    ]
    print(f"$ python generate_images.py {' '.join(argv)}", file=sys.stderr, flush=True)
    code = memorization_suite.generation.main(argv)
    if code:
        sys.exit(code)
    folder = RunFolder(memorization_suite.generation.plan_of(argv).folder)
    found = [
        row
        for row in score_run(folder.path, path, samples)
        if row.prompt_index in range(start, len(captions))
    ]
    copy_score, subject_shown = (
        {
            Key(row.prompt_index, row.sample_index): row.value
            for row in found
            if row.quantity == quantity
        }
        for quantity in ("copy_score", "subject_shown")
    )
    rows = {
        Key(int(row["prompt_index"]), int(row["sample_index"])): row
        for row in read_csv(folder.path / "images.csv")
    }
    wanted = {
        key: row
        for key, row in rows.items()
        if key.prompt in range(start, len(captions)) and key.sample < samples
    }
    return ScoredRun(folder, captions, copy_score, subject_shown, wanted)
