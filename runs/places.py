"""Whether a place can take what is to be written there: found before the work."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from memorization_suite.runs.parts import NAME_MAX

# Bytes of a path where the file system does not tell.
PATH_MAX = 4096
# Bytes of the names below a run folder, as its files have them while they are being written.
BELOW = 80
# Characters of a name that a message shows.
SHOWN = 40


def nearest(path: Path) -> Path:
    """The path itself, or the first folder above it that is there."""
    for place in (path, *path.parents):
        with suppress(OSError):  # a name that is too long
            if place.exists():
                return place
    return Path()


def most_bytes(place: Path, name: str, usual: int) -> int:
    """A limit of the file system. name: as of `os.pathconf`."""
    try:
        return os.pathconf(place, name)
    except (OSError, ValueError):
        return usual


def check_names(path: Path, flag: str, *, made: int = 0) -> None:
    """Raises ValueError for a path with a name that is too long for its file system.

    flag: that gives it. made: so many last names are made of the settings, and not typed.
    """
    place = nearest(path)
    longest = most_bytes(place, "PC_NAME_MAX", NAME_MAX)
    for number, name in enumerate(reversed(path.parts)):
        size = len(os.fsencode(name))
        if size <= longest:
            continue
        remedy = f"Give another {flag}"
        if number < made:
            remedy = "It is made of the settings: combine fewer methods, or give shorter values"
        raise ValueError(
            f"the name {name[:SHOWN]!r}... has {size} bytes, and {place} takes {longest}. {remedy}."
        )
    size = len(os.fsencode(path))
    most = most_bytes(place, "PC_PATH_MAX", PATH_MAX) - BELOW
    if size > most:
        raise ValueError(
            f"the path {str(path)[:SHOWN]!r}... has {size} bytes, and {most} are possible. "
            f"Give a shorter {flag}."
        )


def check_writable(folder: Path, flag: str, what: str = "the folder") -> None:
    """Raises ValueError when no file can be made in a folder that is there."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"cannot write to {what} {folder}: {error.strerror}. Give another {flag}."
        ) from error


def check_place(path: Path, flag: str) -> None:
    """Raises ValueError when a folder cannot be made there, or nothing can be written into it."""
    check_names(path, flag)
    place = nearest(path)
    if not place.is_dir():
        raise ValueError(
            f"cannot write to the folder {path}: {place} is a file. Give another {flag}."
        )
    check_writable(place, flag)


def is_of_path(error: Exception) -> bool:
    """Whether an error is of a path that no file can have, and not of a file."""
    return isinstance(error, OSError) and error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG)


def check_file(path: Path, flag: str, *beside: str) -> None:
    """Raises ValueError when a file cannot be written there.

    flag: that gives it. beside: names of others that are written into the same folder.
    """
    for name in (path.name, *beside):
        check_names(path.with_name(name), flag)
    check_writable(path.resolve().parent, flag)
