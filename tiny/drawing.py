"""How the world's pictures are drawn: colours, backgrounds, shapes, artwork on a canvas, and the
finished picture.
"""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64  # pixels of the canvas that everything is drawn on
PIXELS = 32  # of the finished pictures


def colour(
    rng: np.random.Generator, saturation=(0.25, 0.9), value=(0.45, 1.0)
) -> tuple[int, int, int]:
    """A random colour, 0 to 255."""
    r, g, b = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return int(255 * r), int(255 * g), int(255 * b)


def two_colours(rng: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """A light and a dark colour of neighbouring hues, so that the picture has a cast of its own."""
    hue, shift = rng.random(), rng.uniform(-0.12, 0.12)
    light = colorsys.hsv_to_rgb(hue, rng.uniform(0.35, 0.8), rng.uniform(0.85, 1.0))
    dark = colorsys.hsv_to_rgb((hue + shift) % 1, rng.uniform(0.6, 1.0), rng.uniform(0.3, 0.6))
    return tuple(int(255 * c) for c in light), tuple(int(255 * c) for c in dark)


def texture(
    rng: np.random.Generator, kinds: tuple[str, ...], period=(12, 26), colours=None
) -> Image.Image:
    """SIZE x SIZE background in two colours, one of: plain, gradient, stripes, checker, dots, rays,
    rings.
    """
    n = 2 * SIZE
    first, second = map(np.array, colours or (colour(rng), colour(rng)))
    y, x = np.mgrid[0:n, 0:n] / 2.0
    angle, scale = rng.uniform(0, np.pi), rng.uniform(*period)
    cx, cy = rng.uniform(0.2, 0.8, 2) * SIZE
    u, v = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y
    kind = kinds[rng.integers(len(kinds))]
    ramp = {
        "plain": lambda: np.zeros_like(x),
        "gradient": lambda: (u - u.min()) / (u.max() - u.min()),
        "stripes": lambda: (u % scale < scale / 2) * 1.0,
        "checker": lambda: (((u // (scale / 2)) + (v // (scale / 2))) % 2 == 0) * 1.0,
        "dots": lambda: (
            (((u % scale) - scale / 2) ** 2 + ((v % scale) - scale / 2) ** 2 < (scale / 3.2) ** 2)
            * 1.0
        ),
        "rays": lambda: ((np.arctan2(y - cy, x - cx) / np.pi * rng.integers(3, 7)) % 1 < 0.5) * 1.0,
        "rings": lambda: (np.hypot(x - cx, y - cy) % scale < scale / 2) * 1.0,
    }[kind]()
    pixels = first + ramp[..., None] * (second - first)
    return Image.fromarray(pixels.astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BOX)


def paste(
    canvas: Image.Image,
    art: Image.Image,
    size: float,
    centre: tuple[float, float],
    *,
    flip=False,
    angle=0.0,
    grid=1,
) -> None:
    """Paste artwork so that its longer side has `size` pixels around `centre`; its corner lies on a
    multiple of `grid` pixels.
    """
    art = art.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else art
    art = art.rotate(angle, Image.Resampling.BICUBIC, expand=True) if angle else art
    ratio = size / max(art.size)
    art = art.resize(
        (max(1, round(art.width * ratio)), max(1, round(art.height * ratio))),
        Image.Resampling.LANCZOS,
    )
    corner = (
        round((centre[0] - art.width / 2) / grid) * grid,
        round((centre[1] - art.height / 2) / grid) * grid,
    )
    canvas.alpha_composite(art, (max(0, corner[0]), max(0, corner[1])))


def shape(canvas: Image.Image, kind: str, box: tuple[float, float, float, float], fill) -> None:
    """An anti-aliased disc, square or diamond."""
    mask = Image.new("L", (4 * SIZE, 4 * SIZE))
    draw, (x0, y0, x1, y1) = ImageDraw.Draw(mask), (4 * value for value in box)
    if kind == "disc":
        draw.ellipse((x0, y0, x1, y1), fill=255)
    elif kind == "square":
        draw.rounded_rectangle((x0, y0, x1, y1), radius=16, fill=255)
    else:
        draw.polygon(
            [((x0 + x1) / 2, y0), (x1, (y0 + y1) / 2), ((x0 + x1) / 2, y1), (x0, (y0 + y1) / 2)],
            fill=255,
        )
    canvas.paste(
        Image.new("RGBA", canvas.size, (*fill, 255)),
        mask=mask.resize((SIZE, SIZE), Image.Resampling.BOX),
    )


def finished(canvas: Image.Image) -> Image.Image:
    """The canvas as a picture: RGB, PIXELS x PIXELS."""
    return canvas.convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BOX)
