"""Similarity to the training images of a prompt, in the features of any network."""

from __future__ import annotations

from collections.abc import Sequence

from memorization_suite.lazy import torch
from memorization_suite.metrics.base import FeatureScore, Values, by_sample
from memorization_suite.metrics.runs import Group


class NearestReference(FeatureScore):
    """Largest cosine to a reference of the prompt."""

    def prepare(self, groups: Sequence[Group]) -> None:
        for_these = [group for group in groups if group.references]
        self.embedder.embed(
            picture for group in for_these for picture in group.pictures + group.references
        )

    def similarities(self, group: Group) -> torch.Tensor:
        """(images, references)."""
        return self.embedder.matrix(group.pictures) @ self.embedder.matrix(group.references).T

    def values(self, group: Group) -> Values:
        return by_sample(group, self.similarities(group).amax(1)) if group.references else {}
