"""The metrics of compute_lpips_imagereward.py: diversity, preference, quality."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from memorization_suite.metrics.checkpoints import Checkpoint, Needs
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.image_reward import ImageReward
from memorization_suite.metrics.lpips_diversity import LpipsDiversity
from memorization_suite.metrics.offline import FeatureDiversity, Realism
from memorization_suite.metrics.scores import LpipsScore, RewardScore, Score
from memorization_suite.metrics.scripts import Job, Script
from memorization_suite.runs.settings import Settings, flag, frozen_settings


@frozen_settings
class PreferenceFlags(Settings):
    """Checkpoints."""

    alexnet: Path | None = flag(
        None,
        "torchvision's AlexNet weights, for LPIPS (default: where download/ puts them)",
        metavar="FILE",
    )
    image_reward_checkpoint: Path | None = flag(
        None, "ImageReward.pt (default: where download/ puts it)", metavar="FILE"
    )
    image_reward_tokenizer: Path | None = flag(
        None,
        "folder of bert-base-uncased's tokenizer (default: where download/ puts it)",
        metavar="FOLDER",
    )


class Preference(Script):
    """Diversity among a prompt's images (LPIPS) and preference (ImageReward).

    With their counterparts that need no download.
    """

    name = "compute_lpips_imagereward.py"
    description = "Diversity and preference of a run."
    flags = PreferenceFlags
    metrics = ("lpips", "image_reward", "diversity", "quality")
    references = False
    titles = {"LPIPS mean :  ": "lpips", "Mean Image-reward (gen, Overall): ": "image_reward"}

    def __init__(self, flags: PreferenceFlags, job: Job):
        super().__init__(flags, job)
        self.alexnet = Checkpoint.of(flags, "alexnet", "lpips_alexnet")
        self.reward = Checkpoint.of(flags, "image_reward_checkpoint", "image_reward")
        self.tokenizer = Checkpoint.of(
            flags, "image_reward_tokenizer", "bert_base_uncased", folder=True
        )

    def needs(self) -> Needs:
        return {
            "lpips": self.alexnet.needed,
            "image_reward": self.reward.needed | self.tokenizer.needed,
            "diversity": {},
            "quality": {},
        }

    def scores(self, metrics: Collection[str], options: dict[str, Any]) -> dict[str, list[Score]]:
        features = EfficientNet(**options)
        scores: dict[str, list[Score]] = {}
        if "diversity" in metrics:
            scores["diversity"] = [FeatureDiversity(features)]
        if "quality" in metrics and self.job.run.embedded:
            scores["quality"] = [Realism(features)]
        if "lpips" in metrics:
            name = self.alexnet.variant("alex_v0.1")
            scores["lpips"] = [LpipsScore(LpipsDiversity(self.alexnet.path, name=name, **options))]
        if "image_reward" in metrics:
            name = self.reward.variant("v1.0")
            network = ImageReward(self.reward.path, self.tokenizer.path, name=name, **options)
            scores["image_reward"] = [RewardScore(network)]
        return scores
