"""Localized similarity (Bright Ending, Chen et al., ICLR 2025): how near an image is to its
training image where that was memorized.

The authors' code does not hold it and their formula is not known to the last detail, so three
variants are named. Higher means nearer.
"""

from __future__ import annotations

import math

from memorization_suite.lazy import F, Image, Lazy, torch

ImageStat = Lazy("PIL.ImageStat")
transforms = Lazy("torchvision.transforms.functional")


def upsampled(mask: torch.Tensor, image: Image.Image) -> torch.Tensor:
    """mask: (h, w) in [0, 1] -> (1, H, W) float32 at the image's size, bilinear."""
    size = (image.height, image.width)
    mask = mask.float()[None, None]
    return F.interpolate(mask, size, mode="bilinear", align_corners=False)[0]


def at_size_of(image: Image.Image, reference: Image.Image) -> Image.Image:
    """The reference at the image's size."""
    if reference.size == image.size:
        return reference
    return reference.resize(image.size, Image.Resampling.BILINEAR)


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
