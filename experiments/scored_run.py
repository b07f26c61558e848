"""A run of generate_images.py on an embedded model, with its offline scores: what the demo and the
measurements share.
"""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memorization_suite import tiny
from memorization_suite.commands.generate import generate
from memorization_suite.commands.generate_plan import plan
from memorization_suite.commands.score import score
from memorization_suite.experiments.magnitudes import start_magnitudes
from memorization_suite.metrics.base import quantity_named
from memorization_suite.metrics.copy_score import THRESHOLD
from memorization_suite.metrics.embedded import Caption, read_captions
from memorization_suite.metrics.intervals import Mean, mean_over_prompts, share_of_copies
from memorization_suite.pipelines import loading
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.run_folder import Key, RunFolder

# Kinds of memorization -> the prompt file's type and group; "": any group.
KINDS = {
    "VM": ("VM", ""),
    "VM A": ("VM", "A"),
    "VM B": ("VM", "B"),
    "TM": ("TM", ""),
    "LM": ("LM", ""),
}
Test = Callable[[Caption], bool]

load_once = functools.lru_cache(maxsize=1)(loading.load_pipeline)


def is_kind(name: str) -> Test:
    """A test of captions: is it of this kind, one of KINDS?"""
    kind, group = KINDS[name]
    return lambda caption: caption.kind == kind and group in ("", caption.group)


@dataclass
class ScoredRun:
    """A finished run of an embedded model, or the images of some of its captions."""

    folder: RunFolder
    captions: list[Caption]
    # Quantity -> score of each image that has one; copy_score: images of memorized captions.
    scores: dict[str, dict[Key, float]]
    # Image -> its row of images.csv.
    rows: dict[Key, dict[str, str]]

    def only(self, wanted: Test) -> ScoredRun:
        """The images of the wanted captions."""
        rows = {key: row for key, row in self.rows.items() if wanted(self.captions[key.prompt])}
        return replace(self, rows=rows)

    def values(self, quantity: str) -> list[tuple[int, float]]:
        """Prompt and score of each image that has one."""
        scores = self.scores.get(quantity, {})
        return [(key.prompt, value) for key, value in scores.items() if key in self.rows]

    def mean(self, quantity: str) -> Mean | None:
        """Mean over prompts; None without any."""
        values = self.values(quantity)
        known = quantity_named(quantity)
        share = bool(known and known.yes)
        return mean_over_prompts(values, share=share) if values else None

    def share_of_copies(self) -> Mean | None:
        """Share of copies; None without any score."""
        return share_of_copies(self.values("copy_score"), THRESHOLD)

    def copies(self) -> float | None:
        """The same without its interval."""
        share = self.share_of_copies()
        return share.mean if share else None

    def average(self, quantity: str) -> float | None:
        """Mean over images; of `subject_shown`: the share of images that show their subject."""
        return mean(value for _, value in self.values(quantity))

    def column(self, name: str) -> float | None:
        """Mean of a column of images.csv."""
        return mean(row[name] for row in self.rows.values())

    def add_magnitudes(self, pipe) -> None:
        """Adds the quantity `magnitude`: first-step magnitudes where sampling started.

        The run was made with --save_latents and the model's own scheduler.
        """
        from safetensors.torch import load_file

        files = [self.folder.latents_path(key) for key in self.rows]
        latents = torch.stack([load_file(file)["adjusted"] for file in files])
        captions = [row["prompt"] for row in self.rows.values()]
        values = start_magnitudes(pipe, captions, latents)
        self.scores["magnitude"] = dict(zip(self.rows, values.tolist()))


def mean(values: Iterable[float | str]) -> float | None:
    """Mean, or None of nothing."""
    numbers = [float(value) for value in values]
    return statistics.mean(numbers) if numbers else None


def scored_run(
    args: Any,
    split: str,
    *,
    prompts: Path | None = None,
    metrics: tuple[str, ...] = ("copy", "alignment"),
    **flags: Any,
) -> ScoredRun:
    """Generates (or goes on) and scores.

    args: model_id, samples and out, the folder of the runs, as typed; split: of the model's
    prompts, or another file of such `prompts`; flags: of generate_images.py. Raises ValueError.
    """
    path = prompts or tiny.prompts(args.model_id, split)
    captions = read_captions(path)[: flags.get("end")]
    flags = {"n_samples_per_prompt": args.samples, "batch_size": 8, **flags, "end": len(captions)}
    samples = flags["n_samples_per_prompt"]
    out = args.out / f"{path.stem}_s{samples}_b{flags['batch_size']}"
    planned = plan(model_id=args.model_id, prompts=str(path), output_path=str(out), **flags)
    print(f"$ {planned.config['command']}", file=sys.stderr, flush=True)
    run = generate(planned, load=load_once)
    print(run.summary)
    scores = {}
    for row in score(run, metrics, num_samples=samples, quiet=True).results:
        if row.prompt_index is not None and row.sample_index is not None:
            key = Key(row.prompt_index, row.sample_index)
            scores.setdefault(row.quantity, {})[key] = row.value
    wanted = {*planned.wanted(planned.prompts)}
    rows = {key: row for key, row in run.folder.costs().items() if key in wanted}
    return ScoredRun(run.folder, captions, scores, rows)
