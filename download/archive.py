"""Unpacking an archive of strangers.

Nothing is written before every member is known to stay in the folder.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from memorization_suite.download.assets import is_inside
from memorization_suite.download.transfer import Refused, TransferError

DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    UnicodeDecodeError,
)


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive."""

    name: str
    # Bytes when unpacked.
    size: int
    # What it is, if it is more than a plain file or folder.
    oddity: str = ""


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar archive into `folder`, which must not exist.

    Raises Refused for a file that is no archive or is damaged, and for members that lie outside the
    folder or are links or devices; TransferError when it does not fit on the disk; OSError.
    """
    try:
        if tarfile.is_tarfile(archive):  # first: a tar that holds a zip looks like a zip as well
            with tarfile.open(archive) as tarred:
                check_members(map(tar_member, tarred.getmembers()), archive.parent)
                tarred.extractall(folder, filter="data")
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                check_members(map(zip_member, zipped.infolist()), archive.parent)
                zipped.extractall(folder)
        else:
            raise Refused("what came is neither a zip nor a tar archive")
    except DAMAGED as error:
        raise Refused(f"the archive is damaged ({type(error).__name__}: {error})") from error


def zip_member(entry: zipfile.ZipInfo) -> Member:
    """A member of a zip archive."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.flag_bits & 1:
        oddity = "encrypted"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        oddity = "a link or a device"
    else:
        oddity = ""
    return Member(entry.orig_filename, entry.file_size, oddity)


def tar_member(entry: tarfile.TarInfo) -> Member:
    """A member of a tar archive."""
    plain = entry.isreg() or entry.isdir()
    return Member(entry.name, entry.size, "" if plain else "a link or a device")


def check_members(members: Iterable[Member], folder: Path) -> None:
    """Raises Refused for the first member that may not be unpacked.

    Raises TransferError when all need more than the free bytes of the disk.
    """
    total = 0
    for member in members:
        if member.oddity:
            raise Refused(f"the archive is refused: its member {member.name!r} is {member.oddity}")
        if PurePosixPath(member.name).parts and not is_inside(member.name):
            raise Refused(
                f"the archive is refused: its member {member.name!r} would lie outside the folder"
            )
        total += member.size
    free = shutil.disk_usage(folder).free
    if total > free:
        raise TransferError(f"unpacked it needs {total / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
