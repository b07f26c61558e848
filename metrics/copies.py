"""The metrics of compute_sscd_orig_clip_score.py: copies of training images, and text alignment."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from memorization_suite.download.assets import hint
from memorization_suite.metrics.checkpoints import Checkpoint, Needs
from memorization_suite.metrics.clip_score import VARIANTS, ClipScore
from memorization_suite.metrics.embedded import subjects_of
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.offline import CopyScore, SubjectProbability, SubjectShown
from memorization_suite.metrics.scores import (
    ClipGenerated,
    ClipReference,
    Localized,
    LocalizedFeatures,
    LocalizedGated,
    NearestReference,
    Score,
)
from memorization_suite.metrics.scripts import Job, Script
from memorization_suite.metrics.sscd_flags import SscdFlags, sscd_of
from memorization_suite.runs.settings import flag, frozen_settings


@frozen_settings
class CopyFlags(SscdFlags):
    """Checkpoints and variants."""

    clip: str = flag("vit_b_32_laion2b", "which open_clip model", choices=tuple(VARIANTS))
    clip_checkpoint: Path | None = flag(
        None, "its weights (default: where download/ puts them)", metavar="FILE"
    )


class Copies(Script):
    """Copy similarity to the training images (SSCD) and text alignment (CLIP).

    With their counterparts that need no download.
    """

    name = "compute_sscd_orig_clip_score.py"
    description = "Copy similarity and text alignment of a run."
    flags = CopyFlags
    metrics = ("sscd", "clip", "copy", "localized", "alignment")
    titles = {
        "Mean SSCD score: ": "sscd",
        "Mean CLIP score (gt): ": "clip_gt",
        "Mean CLIP score (gen): ": "clip_gen",
    }

    def __init__(self, flags: CopyFlags, job: Job):
        super().__init__(flags, job)
        self.sscd = Checkpoint.of(flags, "sscd_checkpoint", flags.sscd)
        self.clip = Checkpoint.of(flags, "clip_checkpoint", f"clip_{flags.clip}")

    def needs(self) -> Needs:
        folder = self.job.gt_folder
        fetch = hint("sdv1_500_mem_groundtruth")
        references = {
            folder: f"there are no training images in {folder}: {fetch}, or give --gt_folder"
        }
        return {
            "sscd": self.sscd.needed | references,
            "clip": self.clip.needed,
            "copy": references,
            "localized": references,
            "alignment": {},
        }

    def scores(self, metrics: Collection[str], options: dict[str, Any]) -> dict[str, list[Score]]:
        features = EfficientNet(**options)
        subjects = subjects_of(self.job.run.prompts_file)
        is_masked = self.job.masks is not None
        scores: dict[str, list[Score]] = {}
        if "copy" in metrics:
            nearest = NearestReference("feature_similarity", features)
            scores["copy"] = [CopyScore(masked=is_masked), nearest]
        if "localized" in metrics and is_masked:
            scores["localized"] = [Localized(), LocalizedFeatures("ls_features", features)]
        if "alignment" in metrics and subjects:
            shown = SubjectShown(features, subjects)
            scores["alignment"] = [SubjectProbability(features, subjects), shown]
        if "sscd" in metrics:
            nearest = NearestReference("sscd", sscd_of(self.settings, self.sscd, options))
            scores["sscd"] = [nearest]
            if is_masked:
                inside = LocalizedFeatures("ls_sscd", nearest.embedder)
                scores["sscd"] += [inside, LocalizedGated(nearest)]
        if "clip" in metrics:
            clip = self.clip_score(options)
            scores["clip"] = [ClipGenerated(clip)]
            if "sscd" in metrics:
                scores["clip"].append(ClipReference(clip, nearest))
        return scores

    def clip_score(self, options: dict[str, Any]) -> ClipScore:
        """The CLIP model that the flags ask for."""
        name = self.clip.variant(self.settings.clip)
        return ClipScore(self.clip.path, variant=self.settings.clip, name=name, **options)

    def partly(self, metrics: Collection[str]) -> dict[str, str]:
        if "clip" not in metrics or "sscd" in metrics:
            return {}
        why = "SSCD chooses which of a prompt's training images it is of"
        return {"the training images' CLIP score": why}
