"""How the world's pictures are drawn: colors, backgrounds, shapes, artwork on a canvas, and the
finished picture. `rng` is a numpy.random.Generator everywhere.
"""

from __future__ import annotations

import colorsys

from memorization_suite.runs.lazy import Image, Lazy, np

ImageDraw = Lazy("PIL.ImageDraw")

SIZE = 64  # pixels of the canvas that everything is drawn on
OVERSAMPLED = 4  # shapes are drawn so many times larger, then made smaller

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def color(rng, saturation=(0.25, 0.9), value=(0.45, 1.0)) -> Color:
    """A random color, 0 to 255."""
    hue = rng.random()
    return rgb(hue, rng.uniform(*saturation), rng.uniform(*value))


def two_colors(rng) -> tuple[Color, Color]:
    """A light and a dark color of neighboring hues, so that the picture has a cast of its own."""
    hue = rng.random()
    neighbor = (hue + rng.uniform(-0.12, 0.12)) % 1
    light = rgb(hue, rng.uniform(0.35, 0.8), rng.uniform(0.85, 1.0))
    dark = rgb(neighbor, rng.uniform(0.6, 1.0), rng.uniform(0.3, 0.6))
    return light, dark


def rgb(hue: float, saturation: float, value: float) -> Color:
    """Red, green and blue, 0 to 255. The arguments lie in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return int(255 * red), int(255 * green), int(255 * blue)


# --- backgrounds


def texture(rng, kinds: tuple[str, ...], period=(12, 26), colors=None) -> Image.Image:
    """SIZE x SIZE background in two colors, an RGB picture.

    kinds: one is chosen of plain, gradient, stripes, checker, dots, rays, rings. period: least and
    largest, in pixels. colors: default is two random ones.
    """
    first, second = colors or (color(rng), color(rng))
    share = pattern(rng, kinds, period)[..., None]
    pixels = first + share * np.subtract(second, first)
    picture = Image.fromarray(pixels.astype(np.uint8))
    return picture.resize((SIZE, SIZE), Image.Resampling.BOX)


def pattern(rng, kinds: tuple[str, ...], periods: tuple[float, float]) -> np.ndarray:
    """Share of the second color at each place, (2 SIZE, 2 SIZE): in [0, 1], or bool where edges are
    sharp. Its turn, period and center are random.
    """
    y, x = np.mgrid[0 : 2 * SIZE, 0 : 2 * SIZE] / 2.0
    angle = rng.uniform(0, np.pi)
    period = rng.uniform(*periods)
    half = period / 2
    center_x, center_y = rng.uniform(0.2, 0.8, 2) * SIZE
    dx = x - center_x
    dy = y - center_y
    kind = kinds[rng.integers(len(kinds))]
    if kind == "rays":
        half_turns = np.arctan2(dy, dx) / np.pi
        return half_turns * rng.integers(3, 7) % 1 < 0.5
    if kind == "rings":
        return np.hypot(dx, dy) % period < half

    cos = np.cos(angle)
    sin = np.sin(angle)
    across = cos * x + sin * y
    along = cos * y - sin * x
    if kind == "plain":
        return np.zeros_like(across)
    if kind == "gradient":
        return (across - across.min()) / np.ptp(across)
    if kind == "stripes":
        return across % period < half
    if kind == "checker":
        return (across // half + along // half) % 2 == 0
    if kind == "dots":
        from_dot_across = across % period - half
        from_dot_along = along % period - half
        radius = period / 3.2
        return from_dot_across**2 + from_dot_along**2 < radius**2
    raise KeyError(kind)


# --- what lies on them


def turned(art: Image.Image, *, flip: bool, angle: float) -> Image.Image:
    """The artwork seen from the other side if asked for, then turned by so many degrees."""
    if flip:
        art = art.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return art.rotate(angle, Image.Resampling.BICUBIC, expand=True)


def paste(canvas: Image.Image, art: Image.Image, size: float, center, grid: int = 1) -> None:
    """Pastes artwork so that its longer side has `size` pixels around `center`, (x, y).

    grid: its corner lies on a multiple of so many pixels.
    """
    ratio = size / max(art.size)
    width = max(1, round(art.width * ratio))
    height = max(1, round(art.height * ratio))
    x, y = center
    left = on_grid(x - width / 2, grid)
    top = on_grid(y - height / 2, grid)
    resized = art.resize((width, height), Image.Resampling.LANCZOS)
    canvas.alpha_composite(resized, (left, top))


def on_grid(place: float, grid: int) -> int:
    """The nearest multiple of `grid`, at least 0."""
    return max(0, round(place / grid) * grid)


def shape(canvas: Image.Image, kind: str, box: Box, fill: Color) -> None:
    """An anti-aliased disc, square or diamond."""
    side = OVERSAMPLED * SIZE
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    edges = [OVERSAMPLED * edge for edge in box]
    if kind == "disc":
        draw.ellipse(edges, fill=255)
    elif kind == "square":
        draw.rounded_rectangle(edges, radius=16, fill=255)
    else:
        left, top, right, bottom = edges
        x = (left + right) / 2
        y = (top + bottom) / 2
        draw.polygon([x, top, right, y, x, bottom, left, y], fill=255)
    filled = Image.new("RGBA", canvas.size, (*fill, 255))
    mask = mask.resize((SIZE, SIZE), Image.Resampling.BOX)
    canvas.paste(filled, mask=mask)


def finished(canvas: Image.Image, pixels: int) -> Image.Image:
    """The canvas as a picture: RGB, pixels x pixels."""
    return canvas.convert("RGB").resize((pixels, pixels), Image.Resampling.BOX)
