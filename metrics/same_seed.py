"""How much a mitigation changes images, and how alike a prompt's images are (NeMo, Hintersdorf et
al., NeurIPS 2024).

As in their code, medians of an even number of values are the lower middle one.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from memorization_suite.metrics.base import Job, Metric, Quantity, register
from memorization_suite.metrics.checkpoints import Checkpoint
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.pictures import Embedder
from memorization_suite.metrics.runs import Group, Run, made_otherwise
from memorization_suite.metrics.scores import FeatureScore, PairScore, Score, Values
from memorization_suite.metrics.sscd import DEFAULT, SscdMetric
from memorization_suite.runs.hashes import hash_of_all
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.settings import frozen_settings


class SameSeed(FeatureScore):
    """Cosine of each image and the unmitigated image of the same seed, where that is finite."""

    def __init__(self, quantity: str, embedder: Embedder, run: Run, unmitigated: Run):
        """run: the one that is scored. Where the other is of another model or other steps, the
        variant tells.
        """
        variant = f"{embedder.name}_to_{unmitigated.title.replace('/', '_')}"
        otherwise = made_otherwise(run.folder, unmitigated.folder)
        if otherwise:
            variant += f"@{hash_of_all({k: str(v) for k, v in otherwise.items()})[:8]}"
        super().__init__(quantity, embedder, self.to_unmitigated, variant)

    def prepare(self, groups: Sequence[Group]) -> None:
        super().prepare(groups)
        self.embedder.embed(picture for group in groups for picture in group.unmitigated)

    def values(self, group: Group) -> Values:
        values = super().values(group)
        pairs = zip(group.samples, group.unmitigated)
        return {sample: values[sample] for sample, unmitigated in pairs if unmitigated.finite}

    def to_unmitigated(self, features: torch.Tensor, group: Group) -> torch.Tensor:
        """One number an image (n,)."""
        return (features * self.embedder.matrix(group.unmitigated)).sum(1)


def pairwise_similarity(features: torch.Tensor, group: Group) -> torch.Tensor:
    """Median cosine over the pairs of a prompt's images, (); nan of a single one."""
    rows, columns = torch.tril_indices(len(features), len(features), offset=-1)
    return (features @ features.T)[rows, columns].median()


def median_and_deviation(values_by_prompt: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Median over prompts of each prompt's median, and the median absolute deviation from it."""
    medians = [statistics.median_low(values) for values in values_by_prompt]
    center = statistics.median_low(medians)
    return center, statistics.median_low([abs(value - center) for value in medians])


@frozen_settings
class Change(Metric):
    """Change on equal seeds and diversity, in the features of one network."""

    def embedder(self, job: Job) -> Embedder:
        """The network."""
        raise NotImplementedError

    def scores(self, job: Job) -> list[Score]:
        assert job.unmitigated
        embedder = self.embedder(job)
        change, pairs = (quantity.name for quantity in self.quantities)
        return [
            SameSeed(change, embedder, job.run, job.unmitigated),
            PairScore(pairs, embedder, pairwise_similarity),
        ]

    @classmethod
    def figure(cls, by_prompt: Sequence[Sequence[float]]) -> str:
        """NeMo's form: median over prompts of each prompt's median ± median absolute deviation."""
        median, deviation = median_and_deviation(by_prompt)
        return f"{median:.6g} ± {deviation:.6g}"


@register(
    "sscd_change",
    Quantity(
        "sscd_gen",
        better="higher",
        role="change",
        title="SSCD_gen: ",
        what="cosine to the unmitigated image of the same seed",
        variant=f"{DEFAULT}_to_<method>_<run>",
    ),
    Quantity(
        "sscd_pairs",
        better="lower",
        role="diversity",
        title="SSCD diversity: ",
        what="median cosine over the pairs of a prompt's images",
        variant=DEFAULT,
    ),
    against="unmitigated",
    uses=("sscd",),
)
class SscdChange(Change):
    """As NeMo reports it."""

    def checkpoints(self, job: Job) -> list[Checkpoint]:
        return job.metric(SscdMetric).checkpoints(job)

    def embedder(self, job: Job) -> Embedder:
        return job.metric(SscdMetric).network(job)


@register(
    "feature_change",
    Quantity(
        "feature_gen",
        better="higher",
        role="change",
        title="feature_gen (not SSCD): ",
        what="as sscd_gen, with ImageNet features",
        variant=f"{EfficientNet.name}_to_<method>_<run>",
    ),
    Quantity(
        "feature_pairs",
        better="lower",
        role="diversity",
        title="feature diversity (not SSCD): ",
        what="as sscd_pairs, with ImageNet features",
        variant=EfficientNet.name,
    ),
    against="unmitigated",
)
class FeatureChange(Change):
    """The same in the features of a network that a package carries."""

    def embedder(self, job: Job) -> Embedder:
        return job.network(EfficientNet)
