"""Small versions of picture files: in the page itself, or in a folder beside it."""

from __future__ import annotations

import base64
import io
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from memorization_suite.metrics.pictures import Unreadable, read_picture
from memorization_suite.runs.files import write_json
from memorization_suite.runs.lazy import Image

# Pictures that one file holds.
MOST = 2000
# Of at most so many pictures in a page -> their longer side, in pixels; smaller ones stay.
SIDES = {100: 512, 500: 320, MOST: 192}
SIDE = 192
# In a folder: of what opens large.
LARGE = 768
QUALITY = 88
# Says that a folder is a page's own, so that the next page may take its place.
MARK = "page.json"


@dataclass(frozen=True)
class Picture:
    """A picture of the page."""

    # Of its small version, or empty.
    url: str = ""
    # Of a larger one, if there is one.
    large: str = ""
    # Why there is none.
    missing: str = ""


class Pictures:
    """Pictures in the page, as data URLs. total: how many there will be."""

    # Bytes that lie beside the page.
    size = 0

    def __init__(self, total: int):
        self.side = next((side for most, side in SIDES.items() if total <= most), SIDE)

    def add(self, path: Path | None, name: str) -> Picture:
        """A picture file; a missing or broken one says so in its place, on stderr what to do about
        it. name: of the picture, without an ending.
        """
        if path is None:
            return Picture(missing="no image")
        try:
            return self.save(read_picture(path), name)
        except Unreadable as error:
            print(error, file=sys.stderr)
            return Picture(missing="unreadable")

    def save(self, image: Image.Image, name: str) -> Picture:
        """A readable picture."""
        data, kind = encoded(image, self.side)
        return Picture(data_url(data, kind))

    def close(self) -> None:
        """Puts everything into its place."""


class PictureFiles(Pictures):
    """Pictures in a folder beside the page, which the page loads when they are seen.

    They are written beside it first, and take its place when all are there.
    """

    def __init__(self, page: Path):
        super().__init__(MOST)
        self.page = page
        self.folder = folder_of(page)
        self.part = self.folder.with_name(f".{self.folder.name}.part")
        shutil.rmtree(self.part, ignore_errors=True)
        self.part.mkdir()

    def save(self, image: Image.Image, name: str) -> Picture:
        """Writes a small version, and a large one of a large picture."""
        size = max(image.size)
        large = self.write(image.copy(), name, LARGE) if size > self.side else ""
        small = self.write(image, f"{name}_small" if large else name, self.side)
        return Picture(small, large)

    def write(self, image: Image.Image, name: str, side: int) -> str:
        """Its address, seen from the page."""
        data, kind = encoded(image, side)
        path = self.part / f"{name}.{kind}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        self.size += len(data)
        return quote(f"{self.folder.name}/{name}.{kind}")

    def close(self) -> None:
        write_json(self.part / MARK, {"page": self.page.name})
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.part.rename(self.folder)


def folder_of(page: Path) -> Path:
    """Where a page's pictures lie, if they are files."""
    return page.with_name(f"{page.stem}_files")


def check_folder(page: Path) -> None:
    """Raises ValueError where the folder of a page's pictures is somebody else's."""
    folder = folder_of(page)
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free and not (folder / MARK).is_file():
        raise ValueError(
            f"{folder} is there and is no page's: move it elsewhere, give another --out, or "
            "--self_contained for one file"
        )


def remove_folder(page: Path) -> None:
    """Takes away the pictures of an earlier page of that name, where it had a folder of them."""
    folder = folder_of(page)
    if (folder / MARK).is_file():
        shutil.rmtree(folder)


def encoded(image: Image.Image, side: int) -> tuple[bytes, str]:
    """(bytes, kind) of a version whose longer side is at most so many pixels."""
    kind = "jpeg" if max(image.size) > SIDE else "png"
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, format=kind, quality=QUALITY)
    return data.getvalue(), kind


def data_url(data: bytes, kind: str = "png") -> str:
    """A picture that stands in the page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
