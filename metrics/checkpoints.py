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

    path: Path
    # Its name in download/assets.toml.
    asset: str

    @classmethod
    def of(cls, flags: Settings, name: str, asset: str, *, folder: bool = False) -> Checkpoint:
        """The one that the flag `name` gives, else where download/ puts the asset.

        Raises ValueError when the flag gives one that is not there.
        """
        typed = existing(getattr(flags, name), f"--{name}", folder=folder)
        return cls(typed or path_of(asset), asset)

    @property
    def missing(self) -> str:
        """What to say when nothing is there; empty when it is."""
        return "" if self.path.exists() else hint(self.asset)

    def variant(self, name: str) -> str:
        """`name` for the published file.

        With the beginning of its sha256 for another file of that architecture.
        """
        if self.path.resolve() == path_of(self.asset).resolve():
            return name
        published = named(self.asset)
        digest = sha256_of(self.path)
        is_published = digest in (published.sha256, *published.files.values())
        return name if is_published else f"{name}@{digest[:8]}"


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
