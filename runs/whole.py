"""Whether a file that a run wrote is whole: by its size and its ends, or by all of it.

A fault is the end of a sentence, such as `is empty`; a whole file has none. A file that a process
is writing has another name until it is whole (`runs.files.write_bytes`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memorization_suite.runs.lazy import Image, np
from memorization_suite.runs.nobodys import owned
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.text import counted, first_of, said_by

# The first and the last bytes of a PNG.
SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"
# Bytes that tell how long the header of a safetensors file is.
PREFIX = 8
# The fault of a file that is not there.
GONE = "is not there"
# Damaged files that are told one by one.
TOLD = 3
# What tells the fault of a file; empty where it is whole.
Check = Callable[[Path], str]


@dataclass(frozen=True)
class There:
    """What is there of some work."""

    # Keys of what is whole: its rows, and the files that were asked for.
    complete: set[Any]
    # File -> its fault, of those that are not whole.
    damaged: dict[Path, str]
    # Whole files that are not what was written, as their sizes tell.
    changed: list[Path] = field(default_factory=list)


def names_in(folder: Path) -> set[str]:
    """Names of what lies in a folder, by one listing, but what is nobody's; none where there is no
    folder.
    """
    try:
        return set(owned(os.listdir(folder)))
    except FileNotFoundError:
        return set()


def sizes_in(folder: Path, suffix: str) -> dict[str, int]:
    """Name -> bytes of the files in a folder with this ending, by one listing; none where there is
    no folder.
    """
    sizes = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(suffix):
                    with suppress(FileNotFoundError):  # another process may remove it
                        sizes[entry.name] = entry.stat().st_size
    except FileNotFoundError:
        return {}
    return sizes


def ends_fault(path: Path) -> str:
    """Of a PNG by its first and its last bytes."""
    try:
        with open(path, "rb") as file:
            start = file.read(len(SIGNATURE))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(END)))
            end = file.read()
    except OSError as error:
        return unread(error)
    if not size:
        return "is empty"
    if start != SIGNATURE:
        return "is no PNG"
    return "" if end == END else "is cut short"


def picture_fault(path: Path) -> str:
    """Of a PNG by all of it: every checksum, every pixel."""
    fault = ends_fault(path)
    if fault:
        return fault
    try:
        with Image.open(path) as picture:
            picture.verify()
        with Image.open(path) as picture:
            picture.load()
    except (OSError, ValueError, SyntaxError) as error:
        return f"cannot be decoded ({said_by(error)})"
    return ""


def tensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """(what a safetensors file says of its tensors by name, where they begin, in bytes).

    Raises OSError, ValueError for another file.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(PREFIX), "little")
        header = json_of(file.read(min(length, size)))
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    return header, PREFIX + length


def tensors_fault(path: Path) -> str:
    """Of a safetensors file: its header against its size."""
    size = 0
    try:
        size = path.stat().st_size
        header, start = tensors_header(path)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[0] != "_"]
    except OSError as error:
        return unread(error)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return "is no safetensors file" if size else "is empty"
    wanted = start + max(ends, default=0)
    return "" if size == wanted else f"has {size} of {wanted} bytes"


def array_fault(path: Path) -> str:
    """Of a file of NumPy: its header against its size."""
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        return unread(error)
    except (ValueError, EOFError):
        return "is no whole array"
    return ""


def unread(error: OSError) -> str:
    """Of a file that cannot be opened."""
    return GONE if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"


def faults_of(files: Iterable[tuple[Path, Check]]) -> dict[Path, str]:
    """File -> its fault, of those that are not whole, or not there."""
    faults = {path: fault_of(path) for path, fault_of in files}
    return {path: fault for path, fault in faults.items() if fault}


def told(damaged: Mapping[Path, str], folder: Path) -> str:
    """`2 files are damaged (img_0000_00.png is empty; img_0001_00.png is cut short)`.

    damaged: file below the folder -> its fault.
    """
    each = [f"{path.relative_to(folder)} {fault}" for path, fault in sorted(damaged.items())]
    is_are = "is" if len(each) == 1 else "are"
    faults = first_of(each, TOLD, "; ")
    return f"{counted(len(each), 'file')} {is_are} damaged ({faults})"


def say_changed(changed: Collection[Path], folder: Path) -> None:
    """Says on stderr which whole files of a folder are not what the run wrote."""
    if changed:
        names = first_of([path.name for path in sorted(changed)], TOLD)
        are = "is" if len(changed) == 1 else "are"
        print(
            f"{folder}: {counted(len(changed), 'file')} {are} whole, but of another size than the "
            f"run wrote, and kept: {names}",
            file=sys.stderr,
        )


def say_damaged(damaged: Mapping[Path, str], folder: Path) -> None:
    """Says on stderr what is damaged in a folder and will be made again. What is not there was
    never made, and nothing is said of it.
    """
    damaged = {path: fault for path, fault in damaged.items() if fault != GONE}
    if damaged:
        print(f"{folder}: {told(damaged, folder)}, to be made again", file=sys.stderr)
