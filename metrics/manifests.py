"""What runs tell of themselves. Each file is read once, however many runs it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from memorization_suite.runs import RunFolder

# What tells a file from one that is written in its place later: inode, size, time in nanoseconds.
Stamp = tuple[int, int, int] | None
# Runs whose files are kept.
KEPT = 4096


@dataclass(frozen=True)
class Told:
    """manifest.json and config.json of a run; both are only read.

    Raises ValueError where it is asked for what stands in a damaged file.
    """

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The whole manifest; nothing of images of another program."""
        return RunFolder(self.folder).manifest() or {}

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides its images."""
        return self.manifest.get("identity", {})

    @property
    def knows_sampler(self) -> bool:
        """Whether it says which sampler ran; earlier versions tell what was typed."""
        return "scheduler" in self.manifest

    @property
    def scheduler(self) -> str | None:
        """The --scheduler that names its sampler: `ddim`, too, of a model that keeps DDIM."""
        return self.manifest.get("scheduler", self.identity.get("scheduler"))

    @property
    def asked(self) -> dict[str, Any]:
        """Which images there are to be."""
        return self.manifest.get("asked", {})

    @cached_property
    def config(self) -> dict[str, Any]:
        """All arguments, as they were typed."""
        return RunFolder(self.folder).config()


def told_by(folder: Path) -> Told:
    """What a run tells of itself, as its files are now."""
    names = ("manifest.json", "config.json")
    return told_then(folder, tuple(stamp_of(folder / name) for name in names))


@lru_cache(KEPT)
def told_then(folder: Path, stamps: tuple[Stamp, ...]) -> Told:
    """The same by what tells the files from others."""
    return Told(folder)


def stamp_of(file: Path) -> Stamp:
    """What a file is told by; None where there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
