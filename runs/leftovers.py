"""What a process that was killed left in a folder: files that it was writing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from memorization_suite.runs.claims import SILENT, clock_of
from memorization_suite.runs.holders import my_user
from memorization_suite.runs.parts import writer_lives


def remove_leftovers(folder: Path, inner: Iterable[str] = ()) -> None:
    """Removes the `.*.part` of processes that have ended, of a folder and of folders in it.

    inner: their names. Of this machine and user the process decides; a part of others, or of an
    earlier version, is left until it was not written to for SILENT seconds, by the clock of the
    file system. What cannot be removed stays.
    """
    clock = None
    for place in (folder, *(folder / name for name in inner)):
        for entry in parts_in(place):
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                lives = writer_lives(entry.name) if status.st_uid == my_user() else None
                if lives is None:
                    clock = clock_of(folder) if clock is None else clock
                    lives = clock - status.st_mtime <= SILENT
                if not lives:
                    remove(entry)


def parts_in(folder: Path) -> list[os.DirEntry]:
    """Files and folders that are being written; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return [
                entry
                for entry in entries
                if entry.name.startswith(".") and entry.name.endswith(".part")
            ]
    except OSError:
        return []


def remove(entry: os.DirEntry) -> None:
    """Removes a file or a folder. Raises OSError."""
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        os.unlink(entry.path)
