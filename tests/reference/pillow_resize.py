"""Resizing as Pillow up to version 12 does it to 8-bit pictures, in loops over rows and columns.
Imports nothing of the suite.

Facts from python-pillow/Pillow, src/libImaging/Resample.c and src/PIL/Image.py of version 12.1:
weights in 22-bit fixed point, one pass along the rows, rounded to whole levels, then one along the
columns.
"""

import numpy as np
from PIL import Image

BITS = 22
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
WEIGHTED = {"RGBA": "RGBa", "LA": "La"}


def height(name: str, x: float) -> float:
    """The filter at x: a triangle, or Keys' cubic with a = -0.5."""
    x = abs(x)
    if name == "bilinear":
        return max(0.0, 1.0 - x)
    a = -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return 0.0


def taps(name: str, before: int, after: int) -> list[tuple[int, list[int]]]:
    """Of each of `after` places: the first of the `before` that it is made of, and their weights in
    fixed point.
    """
    scale = before / after
    width = max(scale, 1.0)
    support = SUPPORT[name] * width
    found = []
    for place in range(after):
        center = (place + 0.5) * scale
        first = max(0, int(center - support + 0.5))
        last = min(before, int(center + support + 0.5))
        weights = [height(name, (k - center + 0.5) / width) for k in range(first, last)]
        total = sum(weights)
        fixed = []
        for weight in weights:
            large = weight / total * (1 << BITS)
            fixed.append(int(large + 0.5) if large >= 0 else int(large - 0.5))
        found.append((first, fixed))
    return found


def along_rows(pixels: np.ndarray, width: int, name: str) -> np.ndarray:
    """(h, w, c) -> (h, width, c), whole levels of 0..255."""
    out = np.zeros((pixels.shape[0], width, pixels.shape[2]), dtype=np.int64)
    for x, (first, weights) in enumerate(taps(name, pixels.shape[1], width)):
        total = np.full(out[:, x].shape, 1 << (BITS - 1), dtype=np.int64)
        for k, weight in enumerate(weights):
            total += pixels[:, first + k].astype(np.int64) * weight
        out[:, x] = np.clip(total >> BITS, 0, 255)
    return out


def resize(image: Image.Image, size: tuple[int, int], name: str) -> Image.Image:
    """The picture at size (width, height). A direction that stays as it is has no pass. Palettes
    have the nearest entry; colors with an opacity are weighted by it.
    """
    if image.size == size:
        return image
    if image.mode in ("P", "1"):
        return image.resize(size, Image.Resampling.NEAREST)
    if image.mode in WEIGHTED:
        return resize(image.convert(WEIGHTED[image.mode]), size, name).convert(image.mode)
    pixels = np.array(image).reshape(image.height, image.width, -1)
    if size[0] != image.width:
        pixels = along_rows(pixels, size[0], name)
    if size[1] != image.height:
        pixels = along_rows(pixels.transpose(1, 0, 2), size[1], name).transpose(1, 0, 2)
    data = np.ascontiguousarray(pixels.astype(np.uint8))
    return Image.frombytes(image.mode, size, data.tobytes())


def small_edge(image: Image.Image, edge: int, name: str) -> Image.Image:
    """The smaller edge at `edge` pixels, the other in proportion and rounded down. Source:
    torchvision, transforms.Resize.
    """
    width, tall = image.size
    if width <= tall:
        return resize(image, (edge, int(edge * tall / width)), name)
    return resize(image, (int(edge * width / tall), edge), name)
