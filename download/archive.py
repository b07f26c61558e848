"""Unpacking an archive of strangers: nothing is written before every member is known to stay in the
folder.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
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


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar archive into `folder`, which must not exist.

    Raises Refused for a file that is no archive or is damaged, and for members that lie outside the
    folder or are links or devices; TransferError when it does not fit on the disk; OSError.
    """
    try:
        if tarfile.is_tarfile(archive):  # first: a tar that holds a zip looks like a zip as well
            with tarfile.open(archive) as tarred:
                check_members(tar_members(tarred), archive.parent)
                tarred.extractall(folder, filter="data")
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                check_members(zip_members(zipped), archive.parent)
                zipped.extractall(folder)
        else:
            raise Refused("what came is neither a zip nor a tar archive")
    except DAMAGED as error:
        raise Refused(f"the archive is damaged ({type(error).__name__}: {error})") from error


def zip_members(archive: zipfile.ZipFile) -> Iterator[tuple[str, str, int]]:
    """(name, what it is, bytes) of each member; what it is: empty for a file or folder."""
    for member in archive.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)
        plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
        yield (
            member.orig_filename,
            "encrypted" if member.flag_bits & 1 else "" if plain else "a link or a device",
            member.file_size,
        )


def tar_members(archive: tarfile.TarFile) -> Iterator[tuple[str, str, int]]:
    """As `zip_members`."""
    for member in archive.getmembers():
        yield (
            member.name,
            "" if member.isreg() or member.isdir() else "a link or a device",
            member.size,
        )


def check_members(members: Iterator[tuple[str, str, int]], folder: Path) -> None:
    """Raises Refused for the first member that may not be unpacked, TransferError when all need
    more than the free bytes of the disk.
    """
    total = 0
    for name, odd, size in members:
        if odd:
            raise Refused(f"the archive is refused: its member {name!r} is {odd}")
        if PurePosixPath(name).parts and not is_inside(name):
            raise Refused(
                f"the archive is refused: its member {name!r} would lie outside the folder"
            )
        total += size
    free = shutil.disk_usage(folder).free
    if total > free:
        raise TransferError(f"unpacked it needs {total / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
