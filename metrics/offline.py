"""Scores that need no download: classic measures, and ones on a network that a package carries.

They are the embedded model's counterparts of SSCD, CLIP, LPIPS and ImageReward, and are never
called so. The two copy similarities and the diversity can be computed for any images; subject and
realism are judged by what is known of the embedded world.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memorization_suite.lazy import torch
from memorization_suite.metrics.copy_score import SHIFT, SIDE, copy_scores, thumbnails
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.images import to_tensor
from memorization_suite.metrics.pictures import Picture, read_mask
from memorization_suite.metrics.realism import VARIANT, realism
from memorization_suite.metrics.runs import Group
from memorization_suite.metrics.scores import Score, Values, by_sample
from memorization_suite.metrics.subject import columns, logits_of, subject_probability

PROBE = "efficientnet_lite0_probe"


def thumbnail(picture: Picture) -> torch.Tensor:
    """(3, SIDE, SIDE) in [0, 1], area-averaged; kept with the picture."""
    name = f"thumbnail_{SIDE}"
    if name not in picture.features:
        picture.features[name] = thumbnails(to_tensor([picture.image]))[0]
    return picture.features[name]


class CopyScore(Score):
    """Largest correlation with a reference of the prompt.

    masked: of a caption with a mask only the memorized region is compared.
    """

    quantity = "copy_score"

    def __init__(self, masked: bool = False):
        self.masked = masked
        self.variant = f"ncc{SIDE}_shift{SHIFT}" + ("_masks" if masked else "")

    def values(self, group: Group) -> Values:
        if not group.references:
            return {}
        images = torch.stack([thumbnail(picture) for picture in group.pictures])
        references = torch.stack([thumbnail(picture) for picture in group.references])
        mask = None
        if self.masked and group.mask:
            mask = read_mask(group.mask) > 0.5
        return by_sample(group, copy_scores(images, references, mask).amax(1))


class OfImages(Score):
    """A score of the images' EfficientNet features alone."""

    def __init__(self, embedder: EfficientNet):
        self.embedder = embedder

    def prepare(self, groups: Sequence[Group]) -> None:
        self.embedder.embed(picture for group in groups for picture in group.pictures)


class FeatureDiversity(OfImages):
    """Mean of 1 - cosine between an image and the prompt's others."""

    quantity = "feature_diversity"

    def __init__(self, embedder: EfficientNet):
        super().__init__(embedder)
        self.variant = embedder.name

    def values(self, group: Group) -> Values:
        if len(group.pictures) < 2:
            return {}
        features = self.embedder.matrix(group.pictures)
        distance = (1 - features @ features.T).fill_diagonal_(0)
        return by_sample(group, distance.sum(1) / (len(features) - 1))


class SubjectProbability(OfImages):
    """How surely a classifier that never saw a generated image sees the caption's subjects.

    subjects: prompt row -> names.
    """

    quantity = "subject_probability"
    variant = PROBE

    def __init__(self, embedder: EfficientNet, subjects: Mapping[int, Sequence[str]]):
        super().__init__(embedder)
        self.subjects = subjects

    def values(self, group: Group) -> Values:
        logits = logits_of(self.embedder.matrix(group.pictures))
        return by_sample(group, self.of(logits, self.subjects[group.prompt.row]))

    def of(self, logits: torch.Tensor, subjects: Sequence[str]) -> torch.Tensor:
        """(n, all subjects) -> (n,)."""
        return subject_probability(logits, subjects)


class SubjectShown(SubjectProbability):
    """1 when the likeliest subject is one of the caption's, else 0."""

    quantity = "subject_shown"

    def of(self, logits: torch.Tensor, subjects: Sequence[str]) -> torch.Tensor:
        return torch.isin(logits.argmax(1), columns(subjects)).float()


class Realism(OfImages):
    """Nearness to real pictures of the embedded world."""

    quantity = "realism"
    variant = VARIANT

    def values(self, group: Group) -> Values:
        return by_sample(group, realism(self.embedder.matrix(group.pictures)))
