"""Images as tensors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from memorization_suite.runs.lazy import Image, np, torch


def to_tensor(images: Iterable[Image.Image]) -> torch.Tensor:
    """PIL images of one size -> (n, 3, h, w) float32 in [0, 1]."""
    pixels = [torch.from_numpy(np.array(image.convert("RGB"))) for image in images]
    return torch.stack(pixels).permute(0, 3, 1, 2).float() / 255


def read_images(paths: Iterable[Path]) -> torch.Tensor:
    """Image files of one size -> (n, 3, h, w) float32 in [0, 1]."""
    return to_tensor(Image.open(path) for path in paths)
