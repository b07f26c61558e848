"""Scores: columns of numbers, computed prompt by prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from memorization_suite.metrics.pictures import Embedder, Picture
from memorization_suite.metrics.runs import Group
from memorization_suite.metrics.text_reader import TextReader
from memorization_suite.runs.lazy import torch

# Sample -> number; None as a sample: of the whole prompt. An unknown one is left out. One that is
# not finite is no result, and is said to be none.
Values = Mapping[int | None, float]
Of = Callable[["torch.Tensor", Group], "torch.Tensor"]


class Score:
    """One column of numbers: quantity and variant (checkpoint and preprocessing) name it."""

    quantity: str
    variant: str
    # Of a score that compares with captions.
    reader: TextReader | None = None

    def prepare(self, groups: Sequence[Group]) -> None:
        """Work that is done for several prompts at once."""

    def values(self, group: Group) -> Values:
        """The numbers of one prompt."""
        raise NotImplementedError


class FeatureScore(Score):
    """A score of the images' features.

    of: features (n, d) of a prompt's images, and its group -> one number an image (n,), or one of
    the whole prompt ().
    """

    def __init__(self, quantity: str, embedder: Embedder, of: Of, variant: str = ""):
        self.quantity = quantity
        self.variant = variant or embedder.name
        self.embedder = embedder
        self.of = of

    def prepare(self, groups: Sequence[Group]) -> None:
        self.embedder.embed(picture for group in groups for picture in group.pictures)

    def values(self, group: Group) -> Values:
        return by_sample(group, self.of(self.embedder.matrix(group.pictures), group))


class PairScore(FeatureScore):
    """A score of the pairs of a prompt's images, which a single one has not."""

    def values(self, group: Group) -> Values:
        return super().values(group) if len(group.pictures) > 1 else {}


def by_sample(group: Group, numbers: torch.Tensor) -> Values:
    """One number an image (n,), in the order of its pictures; or one of the whole prompt ()."""
    if numbers.dim() == 0:
        return {None: numbers.item()}
    return dict(zip(group.samples, numbers.tolist()))


class NearestReference(Score):
    """Largest cosine to a reference of the prompt."""

    def __init__(self, quantity: str, embedder: Embedder):
        self.quantity = quantity
        self.variant = embedder.name
        self.embedder = embedder

    def prepare(self, groups: Sequence[Group]) -> None:
        pictures: list[Picture] = []
        for group in groups:
            if group.references:
                pictures += group.pictures + group.references
        self.embedder.embed(pictures)

    def similarities(self, group: Group) -> torch.Tensor:
        """(images, references)."""
        return self.embedder.matrix(group.pictures) @ self.embedder.matrix(group.references).T

    def values(self, group: Group) -> Values:
        return by_sample(group, self.similarities(group).amax(1)) if group.references else {}
