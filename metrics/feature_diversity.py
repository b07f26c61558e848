"""Diversity in the features of a network that a package carries: LPIPS' counterpart that needs no
download, and is never called so.
"""

from __future__ import annotations

from memorization_suite.metrics.base import (
    FeatureScore,
    Job,
    Metric,
    Quantity,
    Score,
    Values,
    by_sample,
    register,
)
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.runs import Group


class FeatureDiversity(FeatureScore):
    """Mean of 1 - cosine between an image and the prompt's others."""

    quantity = "feature_diversity"

    def values(self, group: Group) -> Values:
        if len(group.pictures) < 2:
            return {}
        features = self.embedder.matrix(group.pictures)
        distance = (1 - features @ features.T).fill_diagonal_(0)
        return by_sample(group, distance.sum(1) / (len(features) - 1))


@register("diversity", Quantity("feature_diversity", better="higher", role="diversity"))
class DiversityMetric(Metric):
    """How different the images of one prompt are. Higher means more diverse."""

    def scores(self, job: Job) -> list[Score]:
        return [FeatureDiversity(job.network(EfficientNet))]
