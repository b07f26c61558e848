"""Unpacking an archive of strangers.

Nothing is written before every member is known to stay in the folder.
"""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from gzip import BadGzipFile
from pathlib import Path, PurePosixPath

from memorization_suite.download.assets import is_inside
from memorization_suite.download.transfer import Refused, check_space

# RuntimeError: zipfile's for a member that is encrypted, or packed in a way that it does not know.
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, lzma.LZMAError)
DAMAGED += (EOFError, RuntimeError, UnicodeDecodeError)
PLAIN = (0, stat.S_IFREG, stat.S_IFDIR)  # types of a zip's members; 0: not told


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar archive into `folder`, which must not exist.

    Raises Refused for a file that is no archive or is damaged, and for members that lie outside the
    folder or are links or devices; TransferError when there is no room for them; OSError.
    """
    try:
        if tarfile.is_tarfile(archive):  # first: a tar that holds a zip looks like a zip as well
            with tarfile.open(archive) as tarred:
                for member in tarred.getmembers():
                    check_member(member.name, plain=member.isreg() or member.isdir())
                check_space(sum(member.size for member in tarred.getmembers()), archive.parent)
                tarred.extractall(folder, filter="data")
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                for entry in zipped.infolist():
                    kind = stat.S_IFMT(entry.external_attr >> 16)
                    check_member(entry.orig_filename, plain=kind in PLAIN)
                check_space(sum(entry.file_size for entry in zipped.infolist()), archive.parent)
                zipped.extractall(folder)
        else:
            raise Refused("what came is neither a zip nor a tar archive")
    except DAMAGED as error:
        raise Refused(f"the archive is damaged ({type(error).__name__}: {error})") from error


def check_member(name: str, *, plain: bool) -> None:
    """Raises Refused for a member that may not be unpacked. plain: whether a file or folder."""
    if not plain:
        raise Refused(f"the archive is refused: its member {name!r} is a link or a device")
    if PurePosixPath(name).parts and not is_inside(name):
        raise Refused(f"the archive is refused: its member {name!r} would lie outside the folder")
