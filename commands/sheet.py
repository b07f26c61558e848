"""A run at a glance: a row a prompt, its training image first."""

from __future__ import annotations

from pathlib import Path

from memorization_suite.metrics.pictures import Picture
from memorization_suite.metrics.references import References
from memorization_suite.metrics.runs import open_run
from memorization_suite.runs import Key
from memorization_suite.runs.lazy import Image, ImageOps, Lazy

ImageDraw = Lazy("PIL.ImageDraw")

SIDE = 96  # of a tile, in pixels
GAP = 6
TITLE = 14  # height of a line of text
BACKGROUND = "white"
INK = "#5a6274"


def run_sheet(path: Path | str, *, prompts: int = 8, samples: int = 4) -> Image.Image:
    """The first prompts' training image and first images, a row each, as an RGB picture.

    path: a run folder. Where there is no training image, or no image yet, the tile is empty. Raises
    ValueError for a folder that is no run.
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
        rows.append((prompt.caption, pictures))
    titles = [f"sample {sample}" for sample in columns]
    return draw(["training image", *titles], rows)


def draw(titles: list[str], rows: list[tuple[str, list[Picture | None]]]) -> Image.Image:
    """Titles over columns of tiles. rows: (caption, a picture or None a column)."""
    step = SIDE + GAP
    height = TITLE + step  # of a row
    width = GAP + len(titles) * step
    top = TITLE + GAP
    sheet = Image.new("RGB", (width, top + len(rows) * height), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((GAP + column * step, 1), title, fill=INK)
    for caption, pictures in rows:
        text = beginning(caption, pen, width - 2 * GAP)
        pen.text((GAP, top), text, fill=INK)
        left = GAP
        for picture in pictures:
            if picture:
                sheet.paste(tile(picture.image), (left, top + TITLE))
            left += step
        top += height
    return sheet


def tile(image: Image.Image) -> Image.Image:
    """The picture in a square; small pixels stay sharp."""
    is_small = max(image.size) <= SIDE
    resample = Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS
    return ImageOps.pad(image, (SIDE, SIDE), resample, color=BACKGROUND)


def beginning(text: str, pen, width: int) -> str:
    """As much of a text as fits into so many pixels."""
    if pen.textlength(text) <= width:
        return text
    while text and pen.textlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
