"""A picture file decoded as the official scripts read it: by Pillow, and not turned by its EXIF.

Of an animation it is the first frame. More than 8 bits a channel become 8, where Pillow itself
would cut off everything that is brighter than 255: of 16 bits the upper 8, as Pillow does with 16
bits of color.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

from memorization_suite.runs.lazy import Image, np
from memorization_suite.runs.library_warnings import reading
from memorization_suite.runs.notices import say
from memorization_suite.runs.text import reason_of

# Bytes of texts in a PNG, unpacked: all of them together may have so many, which Pillow allows too.
TEXTS = 64 * 2**20
# The EXIF tag that says how to turn a picture, and its value for not at all.
ORIENTATION = 0x0112
UPRIGHT = 1
# What a broken file makes Pillow raise.
FAULTS = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError, struct.error)
# Formats whose whole numbers have 16 bits, in whatever mode Pillow keeps them.
OF_16_BITS = ("PNG", "PPM")
# Formats whose other pictures one would miss; others have thumbnails and layers there.
OF_FRAMES = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")


class Undecodable(ValueError):
    """A file that is no picture that can be read. fault: the end of a sentence about it. mend: what
    to do; empty: that is the reader's to say.
    """

    def __init__(self, path: Path | str, fault: str, mend: str = ""):
        super().__init__(f"{path} {fault}")
        self.fault = fault
        self.mend = mend


def decoded(path: Path | str) -> Image.Image:
    """The picture in the mode of its file, with at most 8 bits a channel. Raises Undecodable.

    What is not as one may think is said on stderr, once of each kind: frames, bits, a rotation.
    """
    allow_texts()
    try:
        with reading(path), Image.open(path) as file:
            is_deep = file.mode.startswith(("I", "F"))
            picture = in_8_bits(path, file) if is_deep else file.copy()
            say_unusual(path, file)
            return picture
    except Undecodable:
        raise
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise Undecodable(path, f"has more than {most:,} pixels", "make it smaller") from error
    except FAULTS as error:
        raise Undecodable(path, f"is no whole picture ({reason(path, error)})") from error


def in_rgb(picture: Image.Image, path: Path | str) -> Image.Image:
    """A file's picture in RGB, itself if it is. Raises Undecodable."""
    if picture.mode == "RGB":
        return picture
    try:
        with reading(path):
            return picture.convert("RGB")
    except ValueError as error:
        fault = f"has colors ({picture.mode}) that Pillow does not turn into RGB"
        raise Undecodable(path, fault, "save it as RGB") from error


def allow_texts() -> None:
    """Pillow takes a PNG with a text of a megabyte for an attack; generators write longer ones."""
    from PIL import PngImagePlugin

    PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, TEXTS)


def reason(path: Path | str, error: BaseException) -> str:
    """Why a file cannot be decoded, in a few words."""
    with suppress(OSError, ValueError):
        if Path(path).is_file() and Path(path).stat().st_size == 0:
            return "it is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "its format is none that Pillow reads"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip()
    return (
        text if isinstance(error, OSError | ValueError | SyntaxError) and text else reason_of(error)
    )


# --- what is unusual ---


def say_unusual(path: Path | str, file: Image.Image) -> None:
    """Says that a file has several pictures, or one that viewers show turned."""
    frames = 1
    with suppress(*FAULTS):  # others than the first may be broken
        frames = getattr(file, "n_frames", 1)
    if frames > 1 and file.format in OF_FRAMES:
        say(f"{path} has {frames} pictures: the first one is read", alike="pictures of a file")
    turned = orientation(file)
    if turned != UPRIGHT:
        say(
            f"{path} is stored turned (EXIF orientation {turned}): it is read as it is stored, as "
            "the official scripts do; save it upright to have it read so",
            alike="EXIF orientation",
        )


def orientation(file: Image.Image) -> int:
    """How a viewer turns the picture; upright where the file does not say it."""
    with suppress(*FAULTS):
        value = file.getexif().get(ORIENTATION, UPRIGHT)
        if value in range(2, 9):
            return int(value)
    return UPRIGHT


def in_8_bits(path: Path | str, file: Image.Image) -> Image.Image:
    """A gray picture of 16 or 32 bits, or of floating-point numbers, in mode L. Raises Undecodable
    for numbers whose white is not known.

    16 bits: the upper 8. Other whole numbers: as they are up to 255, and as 16 bits up to 65535.
    Floating point: 0 to 1 is black to white, else 0 to 255.
    """
    values = np.asarray(file)
    low, high = values.min(), values.max()
    is_real = file.mode.startswith("F")
    of_16 = ";16" in file.mode or file.format in OF_16_BITS
    if is_real and low >= 0 and high <= 1:
        gray = np.rint(values * 255.0)
        read = "floating-point numbers: 1 is read as white"
    elif is_real and low >= 0 and high <= 255:
        gray = np.rint(values)
        read = "floating-point numbers: 255 is read as white"
    elif not is_real and low >= 0 and high <= 255 and not of_16:
        gray = values
        read = "32 bits, and no value above 255, which is read as white"
    elif not is_real and low >= 0 and high <= 65535:
        gray = values.astype(np.int64) >> 8
        read = "16 bits: the upper 8 are read"
    else:
        raise Undecodable(
            path,
            f"has values from {low:g} to {high:g}, whose white is not known",
            "save it with 8 or 16 bits",
        )
    say(f"{path} has {read}", alike=read)
    return Image.fromarray(gray.astype(np.uint8))
