"""What a run says of single images: rows of tables, magnitudes by step, and where it is from."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.marks import number_of
from memorization_suite.runs.run_folder import Asked
from memorization_suite.runs.store import Store

# Columns of images.csv that say which image it is, or are said elsewhere.
KNOWN = frozenset(
    ("key", "prompt_index", "sample_index", "prompt", "finite", "flat", "file_bytes", "cut_tokens")
)
# Columns of images.csv -> what people call them.
NAMES = {
    "unet_evals": "NFE",
    "seed": "seed of the noise",
    "first_magnitude": "magnitude before",
    "last_magnitude": "magnitude after",
    "chosen_magnitude": "magnitude of the chosen caption",
    "magnitude_before_last_step": "magnitude before the last update",
    "reached": "target reached",
    "failed": "search failed",
    "norm": "norm of the noise",
    "moved": "distance from the noise",
}
# Those that say yes or no as 1 and 0.
YES_OR_NO = frozenset(("reached", "failed", "triggered"))
# What people call them -> what it means.
MEANINGS = {
    "magnitude": "L2 norm of the difference between the noise predictions with and without the "
    "caption: large where an image is memorized",
    "NFE": "network evaluations: images under a prompt that went through the UNet for this one",
    "iterations": "updates of the search at the first step",
    "magnitude before": "the magnitude at the first step before the method changed anything",
    "magnitude after": "the magnitude at the first step after the method's last update",
    "magnitude of the chosen caption": "the magnitude at the first step of the caption that was "
    "taken in the place of the original",
    "magnitude before the last update": "the magnitude at the first step before the method's last "
    "update",
    "target reached": "whether the search came down to its target",
    "search failed": "whether the search met numbers that are not finite, so that it went back to "
    "where it began",
    "norm of the noise": "L2 norm of the initial noise that the method found; that of random noise "
    "is about the square root of how many numbers it has",
    "distance from the noise": "L2 distance of the initial noise that is used from the one that "
    "was drawn",
}
# The bytes of a microsecond are of no use to a reader.
TO_SECONDS = 19


@dataclass(frozen=True)
class Details:
    """Of the images that the gallery shows."""

    # Name -> text, from images.csv.
    facts: dict[Key, dict[str, str]] = field(default_factory=dict)
    # L2 norm of the conditional noise prediction at each step, where the run was traced.
    curves: dict[Key, list[float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, store: RunFolder, rows: Mapping[Key, Mapping[str, str]], shown: Collection[Key]
    ) -> Details:
        """rows: of images.csv."""
        facts = {}
        for key in shown:
            if key in rows:
                row = rows[key]
                facts[key] = {
                    NAMES.get(name, name.replace("_", " ")): fact_text(name, text)
                    for name, text in row.items()
                    if name not in KNOWN and text
                }
        return cls(facts, curves_of(store, shown))


def fact_text(name: str, text: str) -> str:
    """A value of a column of images.csv for people."""
    value = number_of(text) if name in YES_OR_NO else None
    return text if value is None else ("yes" if value else "no")


def curves_of(store: RunFolder, shown: Collection[Key]) -> dict[Key, list[float]]:
    """The magnitudes of trace.csv by image, in the order of the steps, nan where none is."""
    curves: dict[Key, list[float]] = {}
    if not (store.path / "trace.csv").is_file() or store.is_foreign():
        return curves
    for row in store.rows("trace"):
        key = Key.of(row)
        if key in shown:
            value = number_of(row.get("magnitude"))
            rounded = math.nan if value is None else float(f"{value:.4g}")
            curves.setdefault(key, []).append(rounded)
    return curves


@dataclass(frozen=True)
class Origin:
    """How a run came to be, as its manifest and its config say."""

    command: str = ""
    # What was typed, and the content that it had.
    model: str = ""
    fingerprint: str = ""
    started: str = ""
    finished: str = ""
    commits: tuple[str, ...] = ()
    # `torch 2.14.1`; several where a run went on with others.
    versions: tuple[str, ...] = ()
    # Images that were asked for and are not there; None where nobody knows.
    missing: int | None = None

    @classmethod
    def of(cls, store: Store, config: Mapping[str, Any], there: Collection[Key]) -> Origin:
        """there: the images. A folder without a manifest has what its config says."""
        manifest = store.manifest() or {}
        identity = manifest.get("identity", {})
        environments = [each for each in manifest.get("environments", []) if isinstance(each, dict)]
        return cls(
            command=store.command_again(),
            model=str(config.get("model_id", "")),
            fingerprint=fingerprint_of(identity),
            started=moment(manifest.get("started")),
            finished=moment(manifest.get("finished")),
            commits=tuple(dict.fromkeys(str(each.get("commit") or "") for each in environments)),
            versions=tuple(dict.fromkeys(map(versions_of, environments))),
            missing=missing_of(manifest, there),
        )

    @property
    def words(self) -> list[str]:
        """The command's words; nothing where it is not known."""
        with suppress(ValueError):
            return shlex.split(self.command)
        return []


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """The hash of the model's files, and of the UNet's where it is another's."""
    parts = [str(identity.get(name) or "") for name in ("model_id", "unet_id")]
    return ", UNet ".join(part for part in parts if part)


def moment(text: object) -> str:
    """`2026-11-30 08:11:20 UTC`; empty for nothing."""
    return f"{text[:TO_SECONDS].replace('T', ' ')} UTC" if isinstance(text, str) else ""


def versions_of(environment: Mapping[str, Any]) -> str:
    """`Python 3.11.7, torch 2.14.1, ...`."""
    packages = environment.get("packages") or {}
    parts = [f"Python {environment.get('python', '?')}"]
    parts += [f"{name} {version}" for name, version in packages.items() if version]
    return ", ".join(parts)


def missing_of(manifest: Mapping[str, Any], there: Collection[Key]) -> int | None:
    """How many of the images that were asked for are not there."""
    try:
        wanted = Asked(**manifest["asked"])
    except (KeyError, TypeError):
        return None
    return len(wanted.keys() - set(there))
