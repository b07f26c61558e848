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
NAMES = {"unet_evals": "NFE", "seed": "seed of the noise"}
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
                    NAMES.get(name, name.replace("_", " ")): text
                    for name, text in row.items()
                    if name not in KNOWN and text
                }
        return cls(facts, curves_of(store, shown))


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
