"""How the world's pictures are drawn: colors, backgrounds, shapes, artwork on a canvas, and the
finished picture.
"""

from __future__ import annotations

import colorsys

from memorization_suite.runs.lazy import Image, Lazy, np

ImageDraw = Lazy("PIL.ImageDraw")

SIZE = 64  # pixels of the canvas that everything is drawn on
PIXELS = 32  # of the finished pictures
OVERSAMPLED = 4  # shapes are drawn so many times larger, then made smaller

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def color(rng: np.random.Generator, saturation=(0.25, 0.9), value=(0.45, 1.0)) -> Color:
    """A random color, 0 to 255."""
    hue = rng.random()
    return rgb(hue, rng.uniform(*saturation), rng.uniform(*value))


def two_colors(rng: np.random.Generator) -> tuple[Color, Color]:
    """A light and a dark color of neighboring hues, so that the picture has a cast of its own."""
    hue = rng.random()
    shift = rng.uniform(-0.12, 0.12)
    light = rgb(hue, rng.uniform(0.35, 0.8), rng.uniform(0.85, 1.0))
    dark = rgb((hue + shift) % 1, rng.uniform(0.6, 1.0), rng.uniform(0.3, 0.6))
    return light, dark


def rgb(hue: float, saturation: float, value: float) -> Color:
    """Red, green and blue, 0 to 255. The arguments lie in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return int(255 * red), int(255 * green), int(255 * blue)


# --- backgrounds


def texture(
    rng: np.random.Generator, kinds: tuple[str, ...], period=(12, 26), colors=None
) -> Image.Image:
    """SIZE x SIZE background in two colors, an RGB picture.

    kinds: one is chosen of plain, gradient, stripes, checker, dots, rays, rings. period: least and
    largest, in pixels. colors: default is two random ones.
    """
    first, second = colors or (color(rng), color(rng))
    plane = Plane(rng, period)
    kind = kinds[rng.integers(len(kinds))]
    share = plane.pattern(kind, rng)[..., None]
    pixels = first + share * np.subtract(second, first)
    picture = Image.fromarray(pixels.astype(np.uint8))
    return picture.resize((SIZE, SIZE), Image.Resampling.BOX)


class Plane:
    """Where a pattern lies on a background: its turn, its period and its center are random."""

    def __init__(self, rng: np.random.Generator, period: tuple[float, float]):
        # In pixels of the canvas, twice as many as it has.
        y, x = np.mgrid[0 : 2 * SIZE, 0 : 2 * SIZE] / 2.0
        angle = rng.uniform(0, np.pi)
        cos = np.cos(angle)
        sin = np.sin(angle)
        self.period = rng.uniform(*period)
        center = rng.uniform(0.2, 0.8, 2) * SIZE
        # From the center of rays and rings.
        self.dx = x - center[0]
        self.dy = y - center[1]
        # Across stripes, and along them.
        self.u = cos * x + sin * y
        self.v = -sin * x + cos * y

    def pattern(self, kind: str, rng: np.random.Generator) -> np.ndarray:
        """Share of the second color at each place, in [0, 1]."""
        if kind == "plain":
            return np.zeros_like(self.u)
        if kind == "gradient":
            low = self.u.min()
            high = self.u.max()
            return (self.u - low) / (high - low)
        return self.is_second(kind, rng) * 1.0

    def is_second(self, kind: str, rng: np.random.Generator) -> np.ndarray:
        """Where the second color is, of a pattern with sharp edges."""
        half = self.period / 2
        if kind == "stripes":
            return self.u % self.period < half
        if kind == "checker":
            squares = self.u // half + self.v // half
            return squares % 2 == 0
        if kind == "dots":
            across = self.u % self.period - half
            along = self.v % self.period - half
            radius = self.period / 3.2
            return across**2 + along**2 < radius**2
        if kind == "rays":
            half_turns = np.arctan2(self.dy, self.dx) / np.pi
            count = rng.integers(3, 7)
            return (half_turns * count) % 1 < 0.5
        if kind == "rings":
            distance = np.hypot(self.dx, self.dy)
            return distance % self.period < half
        raise KeyError(kind)


# --- what lies on them


def turned(art: Image.Image, *, flip: bool, angle: float) -> Image.Image:
    """The artwork seen from the other side if asked for, then turned by so many degrees."""
    if flip:
        art = art.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return art.rotate(angle, Image.Resampling.BICUBIC, expand=True)


def paste(
    canvas: Image.Image,
    art: Image.Image,
    size: float,
    center: tuple[float, float],
    grid: int = 1,
) -> None:
    """Pastes artwork so that its longer side has `size` pixels around `center`.

    grid: its corner lies on a multiple of so many pixels.
    """
    ratio = size / max(art.size)
    width = max(1, round(art.width * ratio))
    height = max(1, round(art.height * ratio))
    x, y = center
    corner = (on_grid(x - width / 2, grid), on_grid(y - height / 2, grid))
    resized = art.resize((width, height), Image.Resampling.LANCZOS)
    canvas.alpha_composite(resized, corner)


def on_grid(place: float, grid: int) -> int:
    """The nearest multiple of `grid`, at least 0."""
    return max(0, round(place / grid) * grid)


def shape(canvas: Image.Image, kind: str, box: Box, fill: Color) -> None:
    """An anti-aliased disc, square or diamond."""
    mask = Image.new("L", (OVERSAMPLED * SIZE, OVERSAMPLED * SIZE))
    draw = ImageDraw.Draw(mask)
    left, top, right, bottom = (OVERSAMPLED * edge for edge in box)
    if kind == "disc":
        draw.ellipse((left, top, right, bottom), fill=255)
    elif kind == "square":
        draw.rounded_rectangle((left, top, right, bottom), radius=16, fill=255)
    else:
        x = (left + right) / 2
        y = (top + bottom) / 2
        draw.polygon([(x, top), (right, y), (x, bottom), (left, y)], fill=255)
    filled = Image.new("RGBA", canvas.size, (*fill, 255))
    canvas.paste(filled, mask=mask.resize((SIZE, SIZE), Image.Resampling.BOX))


def finished(canvas: Image.Image) -> Image.Image:
    """The canvas as a picture: RGB, PIXELS x PIXELS."""
    return canvas.convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BOX)
