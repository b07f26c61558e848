"""The metrics of compute_diversity.py: change on equal seeds and diversity, as NeMo reports them.

Hintersdorf et al., NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from memorization_suite.metrics.checkpoints import Checkpoint, Needs
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.pictures import Embedder
from memorization_suite.metrics.runs import open_run
from memorization_suite.metrics.same_seed import (
    PairwiseSimilarity,
    SameSeed,
    Unmitigated,
    median_and_deviation,
)
from memorization_suite.metrics.scores import Score
from memorization_suite.metrics.scripts import Job, Script
from memorization_suite.metrics.sscd_flags import SscdFlags, sscd_of
from memorization_suite.runs.settings import flag, frozen_settings
from memorization_suite.runs.table import Result


@frozen_settings
class ChangeFlags(SscdFlags):
    """The run to compare with, and the SSCD checkpoint."""

    unmitigated: Path = flag(MISSING, "run folder without mitigation, of the same prompts and seed")


class Change(Script):
    """How much a mitigation changed the images of equal seeds, and how alike a prompt's are."""

    name = "compute_diversity.py"
    description = "Change against the unmitigated run, and diversity among seeds."
    flags = ChangeFlags
    metrics = ("sscd", "features")
    references = False
    titles = {
        "SSCD_gen": "sscd_gen",
        "SSCD diversity": "sscd_pairs",
        "feature_gen (not SSCD)": "feature_gen",
        "feature diversity (not SSCD)": "feature_pairs",
    }

    def __init__(self, flags: ChangeFlags, job: Job):
        super().__init__(flags, job)
        self.sscd = Checkpoint.of(flags, "sscd_checkpoint", flags.sscd)
        self.unmitigated = open_run(
            flags.unmitigated,
            job.settings.prompts or job.run.prompts_file,
            num_samples=job.settings.num_samples,
            incomplete=job.settings.incomplete,
            flag="--unmitigated",
        )

    def needs(self) -> Needs:
        return {"sscd": self.sscd.needed, "features": {}}

    def scores(self, metrics: Collection[str], options: dict[str, Any]) -> dict[str, list[Score]]:
        embedders: dict[str, tuple[str, Embedder]] = {}
        if "features" in metrics:
            embedders["features"] = ("feature", EfficientNet(**options))
        if "sscd" in metrics:
            embedders["sscd"] = ("sscd", sscd_of(self.settings, self.sscd, options))
        networks = [embedder for _, embedder in embedders.values()]
        unmitigated = Unmitigated(self.job.run, self.unmitigated, networks)
        scores: dict[str, list[Score]] = {}
        for metric, (name, embedder) in embedders.items():
            change = SameSeed(f"{name}_gen", embedder, unmitigated)
            scores[metric] = [change, PairwiseSimilarity(f"{name}_pairs", embedder)]
        return scores

    @classmethod
    def headlines(cls, results: list[Result]) -> list[str]:
        """NeMo's form: median over prompts of each prompt's median ± median absolute deviation."""
        lines = []
        for title, quantity in cls.titles.items():
            by_prompt: dict[int | None, list[float]] = {}
            for row in results:
                if row.quantity == quantity:
                    by_prompt.setdefault(row.prompt_index, []).append(row.value)
            if by_prompt:
                median, deviation = median_and_deviation(list(by_prompt.values()))
                lines.append(f"{title}: {median:.6g} ± {deviation:.6g}")
        return lines
