"""Scores of a run, prompt by prompt: what a metric script computes for each group of images.

A score's `values(group)` maps samples to numbers; None as a sample is a number of the whole prompt.
No number where it cannot be known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from memorization_suite.lazy import torch
from memorization_suite.metrics.localized import at_size_of, ls_gated, ls_l2, masked_out
from memorization_suite.metrics.pictures import Embedder, read_mask
from memorization_suite.metrics.references import References
from memorization_suite.metrics.runs import Group, Run
from memorization_suite.runs.table import Result

if TYPE_CHECKING:
    from memorization_suite.metrics.clip_score import ClipScore
    from memorization_suite.metrics.image_reward import ImageReward
    from memorization_suite.metrics.lpips_diversity import LpipsDiversity

Values = Mapping[int | None, float]


class Score:
    """quantity and variant (checkpoint and preprocessing) name the numbers in results.csv."""

    quantity: str
    variant: str

    def prepare(self, groups: Sequence[Group]) -> None:
        """Work that is done for several prompts at once."""

    def values(self, group: Group) -> Values:
        """The numbers of one prompt."""
        raise NotImplementedError


def by_sample(group: Group, numbers: torch.Tensor) -> Values:
    """One number an image, in the order of its pictures."""
    return dict(zip(group.samples, numbers.tolist()))


def run_scores(
    run: Run, scores: Sequence[Score], references: References, masks: Path | None = None
) -> Iterator[list[Result]]:
    """The finite values of all scores, a chunk of prompts at a time.

    Raises Unreadable for a broken generated image.
    """
    for groups in run.groups(references, masks):
        results = []
        for score in scores:
            score.prepare(groups)
            for group in groups:
                results += results_of(run, score, group)
        yield results


def results_of(run: Run, score: Score, group: Group) -> list[Result]:
    """The finite values of one score for one prompt."""
    results = []
    for sample, value in score.values(group).items():
        if math.isfinite(value):
            about = (run.name, run.method, group.prompt.row, sample)
            results.append(Result(*about, score.quantity, score.variant, value))
    return results


class NearestReference(Score):
    """Largest cosine to a reference of the prompt."""

    def __init__(self, quantity: str, embedder: Embedder):
        self.quantity = quantity
        self.variant = embedder.name
        self.embedder = embedder

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


class ClipGenerated(Score):
    """Cosine of each image and its caption."""

    quantity = "clip_gen"

    def __init__(self, clip: ClipScore):
        self.variant = clip.name
        self.clip = clip

    def prepare(self, groups: Sequence[Group]) -> None:
        self.clip.text_features([group.prompt.caption for group in groups])
        self.clip.embed(picture for group in groups for picture in group.pictures)

    def values(self, group: Group) -> Values:
        caption = self.clip.text_features([group.prompt.caption])[0]
        return by_sample(group, self.clip.matrix(group.pictures) @ caption)


class ClipReference(Score):
    """Cosine of the caption and its training image.

    That is the reference nearest to the first generated image, as the official script chooses.
    """

    quantity = "clip_gt"

    def __init__(self, clip: ClipScore, nearest: NearestReference):
        self.variant = f"{clip.name}_nearest_{nearest.variant}"
        self.clip = clip
        self.nearest = nearest

    def prepare(self, groups: Sequence[Group]) -> None:
        self.nearest.prepare(groups)
        self.clip.embed(picture for group in groups for picture in group.references)

    def values(self, group: Group) -> Values:
        if not group.references:
            return {}
        chosen = int(self.nearest.similarities(group)[0].argmax())
        caption = self.clip.text_features([group.prompt.caption])[0]
        return {None: (self.clip.matrix(group.references)[chosen] @ caption).item()}


class LpipsScore(Score):
    """Mean LPIPS of each image to the prompt's others."""

    quantity = "lpips"

    def __init__(self, lpips: LpipsDiversity):
        self.variant = lpips.name
        self.lpips = lpips

    def values(self, group: Group) -> Values:
        if len(group.pictures) < 2:
            return {}
        return by_sample(group, self.lpips.score([picture.image for picture in group.pictures]))


class RewardScore(Score):
    """ImageReward of each image."""

    quantity = "image_reward"

    def __init__(self, reward: ImageReward):
        self.variant = reward.name
        self.reward = reward

    def values(self, group: Group) -> Values:
        images = [picture.image for picture in group.pictures]
        captions = [group.prompt.caption] * len(images)
        return by_sample(group, self.reward.score(images, captions))


class Localized(Score):
    """Largest similarity to a reference of the prompt inside its mask (metrics/localized.py).

    Here it is the negative distance of the pixels.
    """

    quantity = "ls_l2"
    variant = "pixels"

    def values(self, group: Group) -> Values:
        if not (group.mask and group.references):
            return {}
        return by_sample(group, self.matrix(group, read_mask(group.mask)).amax(1))

    def matrix(self, group: Group, mask: torch.Tensor) -> torch.Tensor:
        """(images, references)."""
        references = [reference.image for reference in group.references]
        rows = [
            [ls_l2(picture.image, reference, mask) for reference in references]
            for picture in group.pictures
        ]
        return torch.tensor(rows)


class LocalizedGated(Localized):
    """The same, where the whole pictures are near; no value for other images."""

    quantity = "ls_gated"

    def __init__(self, nearest: NearestReference):
        self.variant = nearest.variant
        self.nearest = nearest

    def prepare(self, groups: Sequence[Group]) -> None:
        self.nearest.prepare([group for group in groups if group.mask])

    def matrix(self, group: Group, mask: torch.Tensor) -> torch.Tensor:
        inside = super().matrix(group, mask).tolist()
        whole = self.nearest.similarities(group).tolist()
        rows = [[ls_gated(a, b) for a, b in zip(*row)] for row in zip(inside, whole)]
        return torch.tensor(rows).nan_to_num(-math.inf)


class LocalizedFeatures(Localized):
    """Cosine of the features of the masked pictures; with SSCD it is ls_sscd."""

    def __init__(self, quantity: str, embedder: Embedder):
        self.quantity = quantity
        self.variant = embedder.name
        self.embedder = embedder

    def matrix(self, group: Group, mask: torch.Tensor) -> torch.Tensor:
        images = [picture.image for picture in group.pictures]
        references = [at_size_of(images[0], reference.image) for reference in group.references]
        masked = [masked_out(image, mask) for image in [*images, *references]]
        features = self.embedder.features(masked)
        return features[: len(images)] @ features[len(images) :].T
