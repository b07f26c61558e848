"""Files and folders of trained networks: what was typed, or where download/ puts it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.download import assets
from memorization_suite.download.assets import Asset, hint, named, path_of
from memorization_suite.download.check import expected, read_record
from memorization_suite.runs.hashes import content_hashes, hash_of_all
from memorization_suite.runs.nobodys import is_nobodys
from memorization_suite.runs.pointers import pointer_fault
from memorization_suite.runs.settings import Settings


@dataclass(frozen=True)
class Checkpoint:
    """What a network is loaded from."""

    # None: it was not given, and download/ does not know it.
    place: Path | None
    # Its name in download/assets.toml; empty for a file that only the flag gives.
    asset: str
    # The flag that gives another one.
    flag: str

    @classmethod
    def of(cls, flags: Settings, name: str, asset: str = "", *, folder: bool = False) -> Checkpoint:
        """The one that the flag `name` gives, else where download/ puts the asset.

        Raises ValueError when the flag gives one that is not there.
        """
        place = existing(getattr(flags, name), f"--{name}", folder=folder)
        if place is None and asset:
            place = path_of(asset)
        return cls(place, asset, f"--{name}")

    @property
    def path(self) -> Path:
        """Where it is. Raises ValueError when it was not given."""
        if self.place is None:
            raise ValueError(self.missing)
        return self.place

    @property
    def missing(self) -> str:
        """What to say when nothing is there, or a pointer of Git LFS; empty when it is."""
        if self.place is None:
            return f"{self.flag} is not given"
        return first_pointer(self.place) if self.place.exists() else hint(self.asset)

    def variant(self, name: str) -> str:
        """`name` for what was published; with the beginning of its sha256 for anything else of that
        architecture, also where download/ puts the published one. Raises OSError.
        """
        hashes = self.hashes()
        if self.asset and self.is_published(named(self.asset), hashes):
            return name
        digest = hashes[""] if "" in hashes else hash_of_all(hashes)
        return f"{name}@{digest[:8]}"

    def hashes(self) -> dict[str, str]:
        """The sha256 of each file of a folder by name; a single file has the name ""."""
        if not self.path.is_dir():
            return {"": content_hashes([self.path])[self.path]}
        files = [path for path in sorted(self.path.iterdir()) if is_read(path)]
        return {path.name: sha256 for path, sha256 in content_hashes(files).items()}

    def is_published(self, asset: Asset, hashes: Mapping[str, str]) -> bool:
        """Whether these are the published files. One whose sum was never known counts as such where
        download/ puts it.
        """
        known = sums_of(asset)
        here = self.path.resolve() == path_of(asset.name).resolve()
        if "" in hashes:
            is_unknown = here and not known.get(asset.main or "")
            return hashes[""] in known.values() or is_unknown
        return all(
            known.get(file) == sha256 or (here and known.get(file) == "")
            for file, sha256 in hashes.items()
        )


def is_read(path: Path) -> bool:
    """Whether a file of a folder is part of a checkpoint: no document, nothing hidden."""
    is_beside = path.name.startswith(".") or path.suffix == ".md" or is_nobodys(path.name)
    return path.is_file() and not is_beside


def sums_of(asset: Asset) -> dict[str, str]:
    """The published sums by file: known in advance, or noted by download/ when it was fetched."""
    try:
        return expected(asset, read_record(assets.ROOT))
    except ValueError:  # a damaged record
        return expected(asset, {})


def existing(typed: Path | None, flag: str, *, folder: bool) -> Path | None:
    """The typed path.

    Raises ValueError when nothing is there, or a pointer of Git LFS, and for a folder in the place
    of a file or a file in that of a folder.
    """
    if typed is not None and not typed.exists():
        raise ValueError(f"{flag} {typed} is not there")
    if typed is not None and typed.is_dir() != folder:
        raise ValueError(f"{flag} {typed} is no {'folder' if folder else 'file'}")
    fault = first_pointer(typed) if typed is not None else ""
    if fault:
        raise ValueError(f"{flag}: {fault}")
    return typed


def first_pointer(place: Path) -> str:
    """The fault of a file, or of the first one in a folder, that Git LFS did not bring."""
    files = sorted(filter(is_read, place.iterdir())) if place.is_dir() else [place]
    return next(filter(None, map(pointer_fault, files)), "")


def check_required(script: str, missing: Mapping[str, str], required: Collection[str]) -> None:
    """Raises ValueError when a required metric lacks a file, or is none of the script's.

    missing: metric -> what it lacks; empty when nothing.
    """
    unknown = sorted(set(required) - set(missing))
    if unknown:
        raise ValueError(f"--require {unknown[0]}: {script} has {', '.join(missing)}")
    for metric in required:
        if missing[metric]:
            raise ValueError(f"{metric} cannot be computed: {missing[metric]}")
