"""Localized similarity (Bright Ending, Chen et al., ICLR 2025): how near an image is to its
training image where that was memorized.

The authors' code does not hold it and their formula is not known to the last detail, so three
variants are named. Higher means nearer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from memorization_suite.metrics.base import Job, Metric, Quantity, register
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.pictures import Embedder, read_mask
from memorization_suite.metrics.resizing import resized
from memorization_suite.metrics.runs import Group
from memorization_suite.metrics.scores import NearestReference, Score, Values, by_sample
from memorization_suite.runs.lazy import F, Image, Lazy, torch

ImageStat = Lazy("PIL.ImageStat")
transforms = Lazy("torchvision.transforms.functional")


def upsampled(mask: torch.Tensor, image: Image.Image) -> torch.Tensor:
    """mask: (h, w) in [0, 1] -> (1, H, W) float32 at the image's size, bilinear."""
    size = (image.height, image.width)
    mask = mask.float()[None, None]
    return F.interpolate(mask, size, mode="bilinear", align_corners=False)[0]


def at_size_of(image: Image.Image, reference: Image.Image) -> Image.Image:
    """The reference at the image's size."""
    return resized(reference, image.size, Image.Resampling.BILINEAR)


def ls_l2(image: Image.Image, reference: Image.Image, mask: torch.Tensor) -> float:
    """-||(image - reference) m|| / sqrt(3 sum m^2) on pixels in [0, 1]: 0 for the same region, down
    to -1.
    """
    weight = upsampled(mask, image)
    pixels = transforms.to_tensor(image)
    reference_pixels = transforms.to_tensor(at_size_of(image, reference))
    difference = (pixels - reference_pixels) * weight
    largest = (3 * weight.square().sum()).sqrt()
    return -(difference.norm() / largest).item()


def masked_out(image: Image.Image, mask: torch.Tensor) -> Image.Image:
    """The image with its mean color wherever the upsampled mask is 0.5 or less."""
    mean = tuple(round(value) for value in ImageStat.Stat(image).mean)
    flat = Image.new("RGB", image.size, mean)
    shown = upsampled(mask, image)[0] > 0.5
    return Image.composite(image, flat, Image.fromarray(shown.numpy()))


def ls_gated(l2: float, similarity: float, threshold: float = 0.5) -> float:
    """ls_l2 of images whose whole-picture SSCD is above the threshold, nan of the others: they are
    no copies to be looked at closer.
    """
    return l2 if similarity > threshold else math.nan


class Localized(Score):
    """Largest similarity to a reference of the prompt inside its mask.

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
        rows = []
        for picture in group.pictures:
            image = picture.image
            rows.append([ls_l2(image, reference.image, mask) for reference in group.references])
        return torch.tensor(rows)


class LocalizedGated(Localized):
    """The same, where the whole pictures are near; no value for other images."""

    quantity = "ls_gated"

    def values(self, group: Group) -> Values:
        # Minus infinity: near to none of the references.
        values = super().values(group)
        return {sample: value for sample, value in values.items() if value != -math.inf}

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


@register(
    "localized",
    Quantity(
        "ls_l2",
        better="lower",
        against="references and masks",
        what="minus the distance of the pixels inside the mask; 0: the same region",
        variant=Localized.variant,
    ),
    Quantity(
        "ls_features",
        better="lower",
        against="references and masks",
        what="cosine of ImageNet features of the masked pictures",
        variant=EfficientNet.name,
    ),
    against="references",
)
class LocalizedMetric(Metric):
    """The variants that need no download; SSCD's are computed with it (metrics/sscd.py)."""

    def scores(self, job: Job) -> list[Score]:
        if job.masks is None:
            return []
        return [Localized(), LocalizedFeatures("ls_features", job.network(EfficientNet))]
