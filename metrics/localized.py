"""Localized similarity (Bright Ending, Chen et al., ICLR 2025): how near an image is to its
training image where that was memorized.

The authors' code does not hold it and their formula is not known to the last detail, so three
variants are named. Higher means nearer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from PIL import Image, ImageStat
from torchvision.transforms.functional import to_tensor


def upsampled(mask: torch.Tensor, image: Image.Image) -> torch.Tensor:
    """mask: (h, w) in [0, 1] -> (1, H, W) float32 at the image's size, bilinear."""
    return F.interpolate(
        mask.float()[None, None], (image.height, image.width), mode="bilinear", align_corners=False
    )[0]


def at_size_of(image: Image.Image, reference: Image.Image) -> Image.Image:
    """The reference at the image's size."""
    return (
        reference
        if reference.size == image.size
        else reference.resize(image.size, Image.Resampling.BILINEAR)
    )


def ls_l2(image: Image.Image, reference: Image.Image, mask: torch.Tensor) -> float:
    """-||(image - reference) m|| / sqrt(3 sum m^2) on pixels in [0, 1]: 0 for the same region, down
    to -1.
    """
    weight = upsampled(mask, image)
    difference = to_tensor(image) - to_tensor(at_size_of(image, reference))
    return -((difference * weight).norm() / (3 * weight.square().sum()).sqrt()).item()


def masked_out(image: Image.Image, mask: torch.Tensor) -> Image.Image:
    """The image with its mean colour wherever the upsampled mask is 0.5 or less."""
    mean = tuple(round(value) for value in ImageStat.Stat(image).mean)
    return Image.composite(
        image,
        Image.new("RGB", image.size, mean),
        Image.fromarray((upsampled(mask, image)[0] > 0.5).numpy()),
    )


def ls_gated(l2: float, similarity: float, threshold: float = 0.5) -> float:
    """ls_l2 of images whose whole-picture SSCD is above the threshold, nan of the others: they are
    no copies to be looked at closer.
    """
    return l2 if similarity > threshold else float("nan")
