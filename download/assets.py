"""The table of assets: download/assets.toml, or a file of the same form given by the user.

No network and no heavy import.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePosixPath

from memorization_suite import ROOT
from memorization_suite.runs.parse import toml_of

TABLE = ROOT / "download" / "assets.toml"
RECORD = "checkpoints/first_seen.json"  # of checksums that were not known in advance
KINDS = ("file", "archive", "hub")
TYPES = {"str": str, "int": int, "dict[str, str]": dict}


@dataclass(frozen=True)
class Asset:
    """One thing to fetch. Paths are relative to the root, with slashes."""

    name: str
    what: str
    group: str
    # file: one file; archive: a folder from a zip or tar; hub: a folder from the hub.
    kind: str
    # Where the file or folder goes.
    path: str
    used_by: str
    licence: str
    # Where the facts of this entry come from.
    source: str
    # Of a file or an archive: its address, or its id on Google Drive.
    url: str = ""
    drive: str = ""
    # Of the hub: owner/name; commit, tag or branch; file -> sha256, empty: not known in advance.
    repo: str = ""
    revision: str = "main"
    files: dict[str, str] = field(default_factory=dict)
    # Of the file, or of the archive itself; empty: not known in advance.
    sha256: str = ""
    # Bytes; 0: unknown.
    size: int = 0
    # What of the folder is used; must be there.
    main: str = ""
    # What to do where no program can fetch it.
    by_hand: str = ""

    @property
    def where(self) -> str:
        """What its users open, relative to the root."""
        return f"{self.path}/{self.main}" if self.main else self.path

    @property
    def address(self) -> str:
        """Where it is fetched from, in one word; empty when it has to be fetched by hand."""
        if self.url:
            return self.url
        if self.repo:
            return f"hub:{self.repo}@{self.revision[:8]}"
        return f"drive:{self.drive}" if self.drive else ""


# --- our assets ---


def path_of(name: str) -> Path:
    """Where the asset is, or would be. Raises ValueError for an unknown name."""
    return ROOT / named(name).where


def hint(name: str) -> str:
    """One line for who misses the asset: which file, and which command gets it.

    Raises ValueError for an unknown name.
    """
    return f"{named(name).where} is not here: python download/fetch.py {name}"


def named(name: str) -> Asset:
    """The asset of our table. Raises ValueError for an unknown name."""
    assets = read_assets()
    if name not in assets:
        raise ValueError(f"there is no asset {name!r}; the assets are {', '.join(assets)}")
    return assets[name]


def select(assets: dict[str, Asset], names: Sequence[str]) -> list[Asset]:
    """The named assets and groups in the order of the table; `all` is everything.

    Raises ValueError that lists the known names.
    """
    groups = dict.fromkeys(asset.group for asset in assets.values())
    for name in names:
        if name not in (*assets, *groups, "all"):
            raise ValueError(
                f"there is no asset {name!r}; the assets are {', '.join(assets)}; the groups are "
                f"{', '.join(groups)}, all"
            )
    wanted = set(names)
    return [asset for asset in assets.values() if wanted & {asset.name, asset.group, "all"}]


# --- reading a table ---


def read_assets(table: Path | None = None) -> dict[str, Asset]:
    """Name -> asset of our table, or of another one.

    Raises ValueError that says which entry of the file is wrong, and why.
    """
    return read_table(table) if table else our_assets()


@cache
def our_assets() -> dict[str, Asset]:
    """Those of our table, which stays the same as long as the process runs."""
    return read_table(TABLE)


def read_table(table: Path) -> dict[str, Asset]:
    """Name -> asset of a file, checked. Raises ValueError."""
    try:
        entries = toml_of(table.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the assets file {table}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{table} is not a TOML file: {error}") from error
    assets = {name: read_asset(name, entry, table) for name, entry in entries.items()}
    places = [RECORD, *(asset.path for asset in assets.values())]
    for first, second in pairwise(sorted(map(PurePosixPath, places))):
        if second.is_relative_to(first):
            raise ValueError(f"{table}: {first} and {second} are in each other's place")
    return assets


def read_asset(name: str, entry: object, table: Path) -> Asset:
    """One entry of the table. Raises ValueError."""
    if not isinstance(entry, dict):
        raise ValueError(f"{table}: {name} is not a table")
    fault = fault_of_keys(entry)
    if not fault:
        asset = Asset(name=name, **entry)
        fault = fault_of_values(asset)
    if fault:
        raise ValueError(f"{table}: [{name}] {fault}")
    return asset


def fault_of_keys(entry: dict) -> str:
    """What keys are missing or unknown, or which value is of another type; empty when all fit."""
    known = {item.name: item for item in fields(Asset) if item.name != "name"}
    required = [name for name, item in known.items() if item.default is MISSING and name != "files"]
    missing = [name for name in required if name not in entry]
    if missing:
        return f"lacks {', '.join(missing)}"
    unknown = [name for name in entry if name not in known]
    if unknown:
        return f"has unknown keys: {', '.join(unknown)}"
    for name, value in entry.items():
        if type(value) is not TYPES[str(known[name].type)]:
            return f"{name} is not a {known[name].type}"
    return ""


def fault_of_values(asset: Asset) -> str:
    """What is wrong with an entry; empty when nothing is."""
    if not re.fullmatch(r"[\w.-]+", asset.name) or asset.name == "all":
        return "is no name: letters, digits, _ . -"
    if asset.kind not in KINDS:
        return f"kind {asset.kind!r} is none of {', '.join(KINDS)}"
    outside = [path for path in (asset.path, *asset.files) if not is_inside(path)]
    if outside or (asset.main and not is_inside(asset.main)):
        return f"leaves the folder: {outside or asset.main}"
    hashes = (asset.sha256, *asset.files.values())
    if not all(re.fullmatch("([0-9a-f]{64})?", str(text)) for text in hashes):
        return "has a sha256 that is not 64 hexadecimal digits"
    if asset.url and not asset.url.startswith(("http://", "https://")):
        return "has a url that is not http or https"
    if asset.kind == "hub" and not (asset.repo and asset.files) and not asset.by_hand:
        return "needs a repo and its files"
    return "" if asset.address or asset.by_hand else "needs a url, a drive id, or by_hand"


def is_inside(path: str) -> bool:
    """Whether a relative path with slashes stays below the folder it is joined to."""
    parts = PurePosixPath(path).parts
    plain = path.isprintable() and "\\" not in path and not path.startswith("/")
    return plain and bool(parts) and ".." not in parts and ":" not in parts[0]
