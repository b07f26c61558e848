"""A run at a glance: a row a prompt, its training image first."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.metrics.pictures import Picture
from memorization_suite.metrics.references import References
from memorization_suite.metrics.runs import open_run
from memorization_suite.runs import Key
from memorization_suite.runs.lazy import Image, ImageOps, Lazy

ImageDraw = Lazy("PIL.ImageDraw")
ImageFont = Lazy("PIL.ImageFont")

SIDE = 96  # of a tile, in pixels
GAP = 6
TITLE = 14  # height of a line of text
BACKGROUND = "white"
INK = "#5a6274"


def run_sheet(path: Path | str, *, prompts: int = 8, samples: int = 4) -> Image.Image:
    """The first prompts' training image and first images, a row each, as an RGB picture.

    path: a run folder. Where there is no image yet, or no training image, which is then said on
    stderr, the tile is empty. Raises ValueError for a folder that is no run, and for an image that
    is damaged.
    """
    run = open_run(Path(path), incomplete=True, flag="the run folder")
    references = References(run.gt_folder)
    columns = range(min(samples, 1 + max(key.sample for key in run.files)))
    rows = []
    for row in sorted(run.prompts_scored)[:prompts]:
        prompt = run.prompts[row]
        pictures: list[Picture | None] = [*references.of(prompt), None][:1]
        for sample in columns:
            file = run.files.get(Key(row, sample))
            pictures.append(Picture(file) if file else None)
        tiles = [Tile(picture.image if picture else None) for picture in pictures]
        rows.append((prompt.caption, tiles))
    for line in references.problems():
        print(line, file=sys.stderr)
    titles = [f"sample {sample}" for sample in columns]
    return draw(["training image", *titles], rows)


@dataclass(frozen=True)
class Tile:
    """A place of the picture."""

    # None: nothing is drawn.
    image: Image.Image | None
    # A text below it.
    label: str = ""
    # Its color.
    ink: str = INK


def draw(
    titles: list[str],
    rows: list[tuple[str, list[Tile]]],
    *,
    heading: tuple[str, ...] = (),
    side: int = SIDE,
    line: int = TITLE,
) -> Image.Image:
    """Titles over columns of tiles. rows: (text above, a tile a column). heading: lines on top.

    side: of a tile; line: height of a line of text, both in pixels.
    """
    step = side + GAP
    below = line if any(tile.label for _, tiles in rows for tile in tiles) else 0
    height = line + step + below  # of a row
    width = GAP + len(titles) * step
    above = len(heading) * line + GAP * bool(heading)
    top = above + line + GAP
    sheet = Image.new("RGB", (width, top + len(rows) * height), BACKGROUND)
    pen = ImageDraw.Draw(sheet)

    def write(place: tuple[int, int], text: str, ink: str, room: int) -> None:
        font = ImageFont.load_default(line * 10 // TITLE)
        pen.text(place, beginning(text, font, room), fill=ink, font=font)

    for number, text in enumerate(heading):
        write((GAP, 1 + number * line), text, INK, width - 2 * GAP)
    for column, title in enumerate(titles):
        write((GAP + column * step, 1 + above), title, INK, side)
    for text, tiles in rows:
        write((GAP, top), text, INK, width - 2 * GAP)
        left = GAP
        for tile in tiles:
            if tile.image:
                sheet.paste(square(tile.image, side), (left, top + line))
            write((left, top + line + side + 2), tile.label, tile.ink, side)
            left += step
        top += height
    return sheet


def square(image: Image.Image, side: int) -> Image.Image:
    """The picture in a square; small pixels stay sharp."""
    is_small = max(image.size) <= side
    resample = Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS
    return ImageOps.pad(image, (side, side), resample, color=BACKGROUND)


def beginning(text: str, font, width: int) -> str:
    """As much of a text as fits into so many pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
