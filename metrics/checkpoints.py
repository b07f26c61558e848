"""Files and folders of trained networks: what was typed, or where download/ puts it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.download.assets import hint, named, path_of
from memorization_suite.download.check import sha256_of
from memorization_suite.runs.settings import Settings

# Metric -> the files that it needs, each with a line for who has not got it.
Needs = dict[str, dict[Path, str]]


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
    def needed(self) -> dict[Path, str]:
        """Its path, and what to say when nothing is there."""
        return {self.path: hint(self.asset)}

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


def available(
    script: str, needs: Needs, required: Collection[str]
) -> tuple[list[str], dict[str, str]]:
    """(metrics whose files are all there, metric -> what is missing).

    Raises ValueError when a required one lacks a file.
    """
    unknown = sorted(set(required) - set(needs))
    if unknown:
        raise ValueError(f"--require {unknown[0]}: {script} has {', '.join(needs)}")
    missing = {}
    for metric, files in needs.items():
        lines = [line for file, line in files.items() if not file.exists()]
        if lines:
            missing[metric] = "; ".join(lines)
    for metric in required:
        if metric in missing:
            raise ValueError(f"{metric} cannot be computed: {missing[metric]}")
    return [metric for metric in needs if metric not in missing], missing
