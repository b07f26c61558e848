"""How much a mitigation changes images, and how alike a prompt's images are (NeMo, Hintersdorf et
al., NeurIPS 2024).

As in their code, medians of an even number of values are the lower middle one.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from memorization_suite.lazy import torch
from memorization_suite.metrics.pictures import Embedder, Picture
from memorization_suite.metrics.runs import Group, Run, unlike
from memorization_suite.metrics.scores import Score, Values, by_sample
from memorization_suite.runs import Key


class Unmitigated:
    """The images of the unmitigated run, each decoded once for all embedders.

    Raises ValueError when it lacks an image, or was made with another seed or other prompts.
    """

    def __init__(self, run: Run, unmitigated: Run, embedders: Sequence[Embedder]):
        problem = unlike(run.folder, unmitigated.folder)
        if problem:
            raise ValueError(f"--unmitigated: {problem}")
        missing = sorted(set(run.files) - set(unmitigated.files))
        if missing:
            raise ValueError(
                f"--unmitigated {unmitigated.folder} has no img_{missing[0]}.png: it must have "
                f"every image of {run.folder}"
            )
        self.name = f"{unmitigated.method}_{unmitigated.name}"
        self.embedders = embedders
        self.pictures = {key: Picture(path) for key, path in unmitigated.files.items()}

    def of(self, group: Group) -> list[Picture]:
        """The images of a prompt."""
        return [self.pictures[Key(group.prompt.row, sample)] for sample in group.samples]

    def embed(self, groups: Sequence[Group]) -> None:
        """With every embedder; what is embedded already is not decoded again."""
        pictures = [picture for group in groups for picture in self.of(group)]
        for embedder in self.embedders:
            embedder.embed(pictures)
        for picture in pictures:
            picture.release()


class SameSeed(Score):
    """Cosine of each image and the unmitigated image of the same seed."""

    def __init__(self, quantity: str, embedder: Embedder, unmitigated: Unmitigated):
        self.quantity = quantity
        self.variant = f"{embedder.name}_to_{unmitigated.name}"
        self.embedder = embedder
        self.unmitigated = unmitigated

    def prepare(self, groups: Sequence[Group]) -> None:
        self.embedder.embed(picture for group in groups for picture in group.pictures)
        self.unmitigated.embed(groups)

    def values(self, group: Group) -> Values:
        features = self.embedder.matrix(group.pictures)
        unmitigated = self.embedder.matrix(self.unmitigated.of(group))
        return by_sample(group, (features * unmitigated).sum(1))


class PairwiseSimilarity(Score):
    """Median cosine over the pairs of a prompt's images."""

    def __init__(self, quantity: str, embedder: Embedder):
        self.quantity = quantity
        self.variant = embedder.name
        self.embedder = embedder

    def prepare(self, groups: Sequence[Group]) -> None:
        self.embedder.embed(picture for group in groups for picture in group.pictures)

    def values(self, group: Group) -> Values:
        if len(group.pictures) < 2:
            return {}
        features = self.embedder.matrix(group.pictures)
        rows, columns = torch.tril_indices(len(features), len(features), offset=-1)
        cosines = (features @ features.T)[rows, columns]
        return {None: cosines.median().item()}


def median_and_deviation(values_by_prompt: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Median over prompts of each prompt's median, and the median absolute deviation from it."""
    medians = [statistics.median_low(values) for values in values_by_prompt]
    center = statistics.median_low(medians)
    return center, statistics.median_low([abs(value - center) for value in medians])
