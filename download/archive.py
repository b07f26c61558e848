"""Unpacking an archive of strangers.

Nothing is written before every member is known to stay in the folder, and how large all are. An
archive whose content is very much larger than itself is a trap.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from gzip import BadGzipFile
from pathlib import Path, PurePosixPath
from typing import Any

from memorization_suite.download.assets import is_inside
from memorization_suite.download.transfer import Refused, check_space, size_text

# RuntimeError: zipfile's for a member that is encrypted, or packed in a way that it does not know.
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, lzma.LZMAError)
DAMAGED += (EOFError, RuntimeError, UnicodeDecodeError)
PLAIN = (0, stat.S_IFREG, stat.S_IFDIR)  # types of a zip's members; 0: not told


# How many times its size an archive may become; pictures are about 1, texts about 10. A small one
# may become SMALL bytes.
GROWS = 200
SMALL = 1_000_000
# First bytes of a compressed file -> what opens it.
PACKED = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"]\0\0": lzma.open,
}


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar archive into `folder`, which must not exist.

    Raises Refused for a file that is no archive or is damaged, that would become GROWS times its
    size, and for members that lie outside the folder or are links or devices; TransferError when
    there is no room for them; OSError.
    """
    limit = max(SMALL, GROWS * archive.stat().st_size)
    try:
        # First: a tar that holds a zip looks like a zip as well.
        if unpack_tar(archive, folder, limit):
            return
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                for entry in zipped.infolist():
                    kind = stat.S_IFMT(entry.external_attr >> 16)
                    check_member(entry.orig_filename, plain=kind in PLAIN)
                size = sum(entry.file_size for entry in zipped.infolist())
                check_growth(size, limit)
                check_space(size, archive.parent)
                zipped.extractall(folder)
        else:
            raise Refused("what came is neither a zip nor a tar archive")
    except DAMAGED as error:
        raise Refused(f"the archive is damaged ({type(error).__name__}: {error})") from error


def unpack_tar(archive: Path, folder: Path, limit: int) -> bool:
    """Whether it is a tar, which is unpacked then. limit: bytes that it may become. Raises as
    `unpack`.
    """
    with opened(archive) as file:
        try:
            tarred = tarfile.TarFile(fileobj=Measured(file, limit))
        except tarfile.ReadError:
            return False
        with tarred:
            size = 0
            for member in tarred:  # one by one: the next may be behind gigabytes of zeros
                check_member(member.name, plain=member.isreg() or member.isdir())
                size += member.size
                check_growth(size, limit)
            check_space(size, archive.parent)
            tarred.extractall(folder, filter="data")
    return True


def opened(archive: Path) -> Any:
    """The archive's bytes; of a compressed one those that were compressed."""
    with open(archive, "rb") as file:
        begin = file.read(max(map(len, PACKED)))
    opener = next((PACKED[magic] for magic in PACKED if begin.startswith(magic)), open)
    return opener(archive, "rb")


class Measured:
    """A file that is read up to a limit. Raises Refused beyond it."""

    def __init__(self, file: Any, limit: int):
        self.file = file
        self.limit = limit

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        left = self.limit + 1 - self.file.tell()
        data = self.file.read(min(size, left) if size >= 0 else left)
        check_growth(self.file.tell(), self.limit)
        return data

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place."""
        if whence == os.SEEK_SET:
            check_growth(place, self.limit)
        return self.file.seek(place, whence)

    def tell(self) -> int:
        """The place."""
        return self.file.tell()


def check_growth(size: int, limit: int) -> None:
    """Raises Refused for a content of more bytes than an archive of its size may have."""
    if size > limit:
        raise Refused(
            f"the archive is refused: it would become more than {size_text(limit)}, which is "
            f"{GROWS} times its size"
        )


def check_member(name: str, *, plain: bool) -> None:
    """Raises Refused for a member that may not be unpacked. plain: whether a file or folder."""
    if not plain:
        raise Refused(f"the archive is refused: its member {name!r} is a link or a device")
    if PurePosixPath(name).parts and not is_inside(name):
        raise Refused(f"the archive is refused: its member {name!r} would lie outside the folder")
