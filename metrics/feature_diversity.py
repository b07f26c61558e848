"""Diversity in the features of a network that a package carries: LPIPS' counterpart that needs no
download, and is never called so.
"""

from __future__ import annotations

from memorization_suite.metrics.base import Job, Metric, Quantity, register
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.runs import Group
from memorization_suite.metrics.scores import PairScore, Score
from memorization_suite.runs.lazy import torch


def diversity(features: torch.Tensor, group: Group) -> torch.Tensor:
    """Mean of 1 - cosine between each image and the prompt's others; nan of a single one."""
    distance = (1 - features @ features.T).fill_diagonal_(0)
    return distance.sum(1) / (len(features) - 1)


@register(
    "diversity",
    Quantity(
        "feature_diversity",
        better="higher",
        role="diversity",
        what="mean of 1 - cosine of ImageNet features to the prompt's other images",
        variant=EfficientNet.name,
    ),
)
class DiversityMetric(Metric):
    """How different the images of one prompt are. Higher means more diverse."""

    def scores(self, job: Job) -> list[Score]:
        return [PairScore("feature_diversity", job.network(EfficientNet), diversity)]
