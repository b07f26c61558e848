"""Pictures of other sizes, as the official scores were made: first along the rows, then along the
columns.

Both passes round to whole gray levels, so their order is part of a number. Pillow up to 12 has this
order (12.2 and 12.3 up to 100 times as high as wide). Pillow 13 begins with the columns where the
height shrinks more than the width. A portrait that is made square then differs by a level in a
tenth to a fifth of its values, and a score would depend on what is installed.
"""

from __future__ import annotations

from collections.abc import Sequence

from memorization_suite.runs.lazy import Image, Lazy

T = Lazy("torchvision.transforms")

# Modes whose colors count as much as they are opaque -> the mode in which that is so.
WEIGHTED = {"RGBA": "RGBa", "LA": "La"}


def resized(image: Image.Image, size: tuple[int, int], resample: int) -> Image.Image:
    """The image at a size (width, height), in its own mode. resample: one of Pillow's filters;
    palettes and bits have the nearest value, whatever it is.
    """
    if image.size == size:
        return image
    if image.mode in WEIGHTED:
        weighted = image.convert(WEIGHTED[image.mode])
        return resized(weighted, size, resample).convert(image.mode)
    width, _ = size
    wide = image.resize((width, image.height), resample)
    return wide.resize(size, resample)


class Resize:
    """torchvision's `Resize` for pictures, with that order."""

    def __init__(self, size: int | Sequence[int], resample: int | None = None):
        """size: height and width, or the smaller of both where the shape is kept. resample: one of
        Pillow's filters (default: bilinear).
        """
        self.size = size
        self.resample = Image.Resampling.BILINEAR if resample is None else resample

    def __call__(self, image: Image.Image) -> Image.Image:
        return resized(image, self.target(*image.size), self.resample)

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the result for those of an image; a longer edge is rounded down."""
        if not isinstance(self.size, int):
            high, wide = self.size
            return wide, high
        if width <= height:
            return self.size, int(self.size * height / width)
        return int(self.size * width / height), self.size


def in_order(transform):
    """A `Compose` of torchvision whose every `Resize` is one of these."""
    return T.Compose([ours(step) for step in transform.transforms])


def ours(step):
    """The step of a transform, a `Resize` as one of these."""
    if not isinstance(step, T.Resize):
        return step
    return Resize(step.size, Image.Resampling[step.interpolation.name])
