"""Files that a clone without Git LFS has in the place of large ones: a few lines that name them."""

from __future__ import annotations

import os
from pathlib import Path

# How each begins, and bytes that none is longer than.
BEGINS = b"version https://git-lfs.github.com/spec/"
LONGEST = 1024


def is_pointer(path: Path) -> bool:
    """Whether a file is a pointer of Git LFS; not for what cannot be read."""
    try:
        if not path.is_file() or os.path.getsize(path) > LONGEST:
            return False
        with open(path, "rb") as file:
            return file.read(len(BEGINS)) == BEGINS
    except OSError:
        return False


def pointer_fault(path: Path) -> str:
    """What to do about a pointer, as a sentence about the file; empty for any other file."""
    if not is_pointer(path):
        return ""
    return (
        f"{path} is a pointer of Git LFS in the place of the file. `git lfs pull` in its folder "
        "brings the file"
    )
