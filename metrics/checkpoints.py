"""Files and folders of trained networks: what was typed, or where download/ puts it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.download.assets import hint, named, path_of
from memorization_suite.runs.files import sha256_of
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
        """What to say when nothing is there; empty when it is."""
        if self.place is None:
            return f"{self.flag} is not given"
        return "" if self.place.exists() else hint(self.asset)

    def variant(self, name: str) -> str:
        """`name` for the published file.

        With the beginning of its sha256 for another file of that architecture.
        """
        if self.asset and self.path.resolve() == path_of(self.asset).resolve():
            return name
        digest = sha256_of(self.path)
        if self.asset:
            published = named(self.asset)
            if digest in (published.sha256, *published.files.values()):
                return name
        return f"{name}@{digest[:8]}"


def existing(typed: Path | None, flag: str, *, folder: bool) -> Path | None:
    """The typed path.

    Raises ValueError when nothing is there, or a folder in the place of a file or a file in that of
    a folder.
    """
    if typed is not None and not typed.exists():
        raise ValueError(f"{flag} {typed} is not there")
    if typed is not None and typed.is_dir() != folder:
        raise ValueError(f"{flag} {typed} is no {'folder' if folder else 'file'}")
    return typed


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
