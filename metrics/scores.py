"""Scores of a run, prompt by prompt: what a metric script computes for each group of images.

A score's `values(group)` maps samples to numbers; None as a sample is a number of the whole prompt.
No number where it cannot be known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from memorization_suite.metrics.clip_score import ClipScore
from memorization_suite.metrics.image_reward import ImageReward
from memorization_suite.metrics.localized import at_size_of, ls_gated, ls_l2, masked_out
from memorization_suite.metrics.lpips_diversity import LpipsDiversity
from memorization_suite.metrics.pictures import Embedder, read_mask
from memorization_suite.metrics.references import References
from memorization_suite.metrics.runs import Group, Run
from memorization_suite.runs.table import Result

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
    """The finite values of all scores, a chunk of prompts at a time. Raises Unreadable for a broken
    generated image.
    """
    for groups in run.groups(references, masks):
        found = []
        for one in scores:
            one.prepare(groups)
            found += [
                Result(
                    run.name, run.method, group.prompt.row, sample, one.quantity, one.variant, value
                )
                for group in groups
                for sample, value in one.values(group).items()
                if math.isfinite(value)
            ]
        yield found


class NearestReference(Score):
    """Largest cosine to a reference of the prompt."""

    def __init__(self, quantity: str, embedder: Embedder):
        self.quantity, self.variant, self.embedder = quantity, embedder.name, embedder

    def prepare(self, groups: Sequence[Group]) -> None:
        self.embedder.embed(
            picture
            for group in groups
            if group.references
            for picture in group.pictures + group.references
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
        self.variant, self.clip = clip.name, clip

    def prepare(self, groups: Sequence[Group]) -> None:
        self.clip.text_features([group.prompt.caption for group in groups])
        self.clip.embed(picture for group in groups for picture in group.pictures)

    def values(self, group: Group) -> Values:
        return by_sample(
            group,
            self.clip.matrix(group.pictures) @ self.clip.text_features([group.prompt.caption])[0],
        )


class ClipReference(Score):
    """Cosine of the caption and its training image: the reference nearest to the first generated
    image, as the official script chooses.
    """

    quantity = "clip_gt"

    def __init__(self, clip: ClipScore, nearest: NearestReference):
        self.variant, self.clip, self.nearest = (
            f"{clip.name}_nearest_{nearest.variant}",
            clip,
            nearest,
        )

    def prepare(self, groups: Sequence[Group]) -> None:
        self.nearest.prepare(groups)
        self.clip.embed(picture for group in groups for picture in group.references)

    def values(self, group: Group) -> Values:
        if not group.references:
            return {}
        chosen = int(self.nearest.similarities(group)[0].argmax())
        return {
            None: (
                self.clip.matrix(group.references)[chosen]
                @ self.clip.text_features([group.prompt.caption])[0]
            ).item()
        }


class LpipsScore(Score):
    """Mean LPIPS of each image to the prompt's others."""

    quantity = "lpips"

    def __init__(self, lpips: LpipsDiversity):
        self.variant, self.lpips = lpips.name, lpips

    def values(self, group: Group) -> Values:
        return (
            by_sample(group, self.lpips.score([picture.image for picture in group.pictures]))
            if len(group.pictures) > 1
            else {}
        )


class RewardScore(Score):
    """ImageReward of each image."""

    quantity = "image_reward"

    def __init__(self, reward: ImageReward):
        self.variant, self.reward = reward.name, reward

    def values(self, group: Group) -> Values:
        return by_sample(
            group,
            self.reward.score(
                [picture.image for picture in group.pictures],
                [group.prompt.caption] * len(group.pictures),
            ),
        )


class Localized(Score):
    """Largest similarity to a reference of the prompt inside its mask (metrics/localized.py):
    negative distance of the pixels.
    """

    quantity, variant = "ls_l2", "pixels"

    def values(self, group: Group) -> Values:
        return (
            by_sample(group, self.matrix(group, read_mask(group.mask)).amax(1))
            if group.mask and group.references
            else {}
        )

    def matrix(self, group: Group, mask: torch.Tensor) -> torch.Tensor:
        """(images, references)."""
        return torch.tensor(
            [
                [ls_l2(picture.image, reference.image, mask) for reference in group.references]
                for picture in group.pictures
            ]
        )


class LocalizedGated(Localized):
    """The same, where the whole pictures are near; no value for other images."""

    quantity = "ls_gated"

    def __init__(self, nearest: NearestReference):
        self.variant, self.nearest = nearest.variant, nearest

    def prepare(self, groups: Sequence[Group]) -> None:
        self.nearest.prepare([group for group in groups if group.mask])

    def matrix(self, group: Group, mask: torch.Tensor) -> torch.Tensor:
        l2, whole = super().matrix(group, mask), self.nearest.similarities(group)
        return torch.tensor(
            [[ls_gated(a, b) for a, b in zip(*rows)] for rows in zip(l2.tolist(), whole.tolist())]
        ).nan_to_num(-math.inf)


class LocalizedFeatures(Localized):
    """Cosine of the features of the masked pictures; with SSCD it is ls_sscd."""

    def __init__(self, quantity: str, embedder: Embedder):
        self.quantity, self.variant, self.embedder = quantity, embedder.name, embedder

    def matrix(self, group: Group, mask: torch.Tensor) -> torch.Tensor:
        images = [picture.image for picture in group.pictures]
        references = [at_size_of(images[0], reference.image) for reference in group.references]
        features = self.embedder.features(
            [masked_out(image, mask) for image in [*images, *references]]
        )
        return features[: len(images)] @ features[len(images) :].T
