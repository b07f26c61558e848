"""Which files of a folder are pictures: all that Pillow reads, by their endings."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from pathlib import Path

from memorization_suite.runs.decoding import FAULTS
from memorization_suite.runs.lazy import Image
from memorization_suite.runs.nobodys import is_nobodys

# Formats that Pillow knows by name, and leaves the reading of to other programs.
NOT_READ = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
# Formats that a file without an ending is looked at for: they begin with bytes of their own.
TOLD_BY_CONTENT = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
# The ending of a name, also of one from the web: `a.jpg?width=200`.
ENDING = re.compile(r"(\.[a-z0-9]{1,5})(?:[?#&].*)?", re.IGNORECASE | re.DOTALL)


@functools.cache
def formats() -> dict[str, str]:
    """Ending in lower case -> the format of Pillow that it stands for: those that it reads."""
    known = Image.registered_extensions()
    return {
        ending: kind
        for ending, kind in known.items()
        if kind in Image.OPEN and kind not in NOT_READ
    }


def ending_of(path: Path) -> str:
    """The ending of a file in lower case; empty without one."""
    match = ENDING.fullmatch(path.suffix)
    return match[1].lower() if match else ""


def is_image(path: Path) -> bool:
    """Whether a file is a picture by its ending; one without an ending, by its first bytes."""
    ending = ending_of(path)
    if ending:
        return ending in formats()
    try:
        with Image.open(path, formats=TOLD_BY_CONTENT):
            return True
    except FAULTS:
        return False


def files_of(folder: Path) -> list[Path]:
    """Files of a folder by name, also links that lead nowhere, but none that are nobody's; nothing
    where there is no folder. Raises OSError for one that cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                folder / entry.name
                for entry in entries
                if not is_nobodys(entry.name)
                and (entry.is_file() or (entry.is_symlink() and not os.path.exists(entry)))
            )
    except (FileNotFoundError, NotADirectoryError):
        return []


def images_of(folder: Path) -> list[Path]:
    """Image files of a folder, by name. Raises OSError as `files_of`."""
    return [path for path in files_of(folder) if is_image(path)]


def masks_of(folder: Path) -> dict[str, Path]:
    """Name without its ending -> the picture; of several the PNG. Raises OSError as `files_of`."""
    images = sorted(images_of(folder), key=lambda path: (ending_of(path) != ".png", path))
    masks: dict[str, Path] = {}
    for path in images:
        masks.setdefault(composed(path.stem), path)
    return masks


def composed(text: str) -> str:
    """A name with letters and their accents as one: some systems keep them apart."""
    return unicodedata.normalize("NFC", text)


def place_of(folder: Path, name: str) -> Path:
    """What lies in the folder by this name, however its accents are kept; else where it would."""
    forms = dict.fromkeys([name, composed(name), unicodedata.normalize("NFD", name)])
    places = [folder / form for form in forms]
    return next((place for place in places if place.exists()), places[0])
