"""The table of assets: download/assets.toml, or a file of the same form given by the user. No
network and no heavy import.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path, PurePosixPath

from memorization_suite import ROOT

TABLE = ROOT / "download" / "assets.toml"
RECORD = "checkpoints/first_seen.json"  # of checksums that were not known in advance
KINDS = ("file", "archive", "hub")
TYPES = {"str": str, "int": int, "dict[str, str]": dict}


@dataclass(frozen=True)
class Asset:
    """One thing to fetch. Paths are relative to the root, with slashes; a checksum that is not
    known in advance is empty.
    """

    name: str
    what: str
    group: str
    kind: str  # file: one file; archive: a folder from a zip or tar; hub: a folder from the hub
    path: str  # where the file or folder goes
    used_by: str
    licence: str
    source: str  # where the facts of this entry come from
    url: str = ""  # of a file or an archive
    drive: str = ""  # or its id on Google Drive
    repo: str = ""  # hub: owner/name
    revision: str = "main"  # hub: commit, tag or branch
    files: dict[str, str] = field(default_factory=dict)  # hub: file -> sha256
    sha256: str = ""  # of the file, or of the archive itself
    size: int = 0  # bytes, 0: unknown
    main: str = ""  # what of the folder is used; must be there
    by_hand: str = ""  # what to do where no program can fetch it

    @property
    def where(self) -> str:
        """What its users open, relative to the root."""
        return f"{self.path}/{self.main}" if self.main else self.path

    @property
    def address(self) -> str:
        """Where it is fetched from, in one word; empty when it has to be fetched by hand."""
        hub = f"hub:{self.repo}@{self.revision[:8]}" if self.repo else ""
        return self.url or hub or (f"drive:{self.drive}" if self.drive else "")


def path_of(name: str, root: Path | None = None) -> Path:
    """Where the asset is, or would be. Raises ValueError for an unknown name."""
    return (root or ROOT) / named(name).where


def hint(name: str) -> str:
    """One line for who misses the asset: which file, and which command gets it. Raises ValueError
    for an unknown name.
    """
    return f"{named(name).where} is not here: python download/fetch.py {name}"


def named(name: str) -> Asset:
    """The asset of our table. Raises ValueError for an unknown name."""
    assets = read_assets()
    if name not in assets:
        raise ValueError(f"there is no asset {name!r}; the assets are {', '.join(assets)}")
    return assets[name]


def read_assets(table: Path = TABLE) -> dict[str, Asset]:
    """Name -> asset, checked. Raises ValueError that says which entry of the file is wrong, and
    why.
    """
    try:
        entries = tomllib.loads(table.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the assets file {table}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{table} is not a TOML file: {error}") from error
    assets = {name: read_asset(name, entry, table) for name, entry in entries.items()}
    paths = sorted(
        PurePosixPath(path) for path in [RECORD, *(asset.path for asset in assets.values())]
    )
    for first, second in zip(paths, paths[1:]):
        if second.is_relative_to(first):
            raise ValueError(f"{table}: {first} and {second} are in each other's place")
    return assets


def read_asset(name: str, entry: object, table: Path) -> Asset:
    """One entry of the table. Raises ValueError."""
    known = {item.name: item for item in fields(Asset) if item.name != "name"}
    if not isinstance(entry, dict):
        raise ValueError(f"{table}: {name} is not a table")
    missing = [
        key
        for key, item in known.items()
        if item.default is MISSING and item.default_factory is MISSING and key not in entry
    ]
    odd = [key for key in entry if key not in known]
    if missing or odd:
        raise ValueError(
            f"{table}: [{name}] "
            + (f"lacks {', '.join(missing)}" if missing else f"has unknown keys: {', '.join(odd)}")
        )
    for key, value in entry.items():
        if type(value) is not TYPES[str(known[key].type)]:
            raise ValueError(f"{table}: [{name}] {key} is not a {known[key].type}")
    asset = Asset(name=name, **entry)
    wrong = [fault for fault, found in faults(asset).items() if found]
    if wrong:
        raise ValueError(f"{table}: [{name}] {wrong[0]}")
    return asset


def faults(asset: Asset) -> dict[str, bool]:
    """Everything that may be wrong with an entry -> whether it is."""
    inside = [asset.path, *([asset.main] if asset.main else []), *asset.files]
    hashes = [asset.sha256, *asset.files.values()]
    return {
        "is no name: letters, digits, _ . -": not re.fullmatch(r"[\w.-]+", asset.name)
        or asset.name == "all",
        f"kind {asset.kind!r} is none of {', '.join(KINDS)}": asset.kind not in KINDS,
        f"leaves the folder: {[path for path in inside if not is_inside(path)]}": not all(
            is_inside(path) for path in inside
        ),
        "has a sha256 that is not 64 hexadecimal digits": not all(
            re.fullmatch("([0-9a-f]{64})?", str(text)) for text in hashes
        ),
        "has a url that is not http or https": bool(asset.url)
        and not asset.url.startswith(("http://", "https://")),
        "needs a repo and its files": bool(
            asset.kind == "hub" and not (asset.repo and asset.files) and not asset.by_hand
        ),
        "needs a url, a drive id, or by_hand": asset.kind != "hub"
        and not (asset.url or asset.drive or asset.by_hand),
    }


def is_inside(path: str) -> bool:
    """Whether a relative path with slashes stays below the folder it is joined to."""
    parts = PurePosixPath(path).parts
    plain = path.isprintable() and "\\" not in path and not path.startswith("/")
    return plain and bool(parts) and ".." not in parts and ":" not in parts[0]


def select(assets: dict[str, Asset], names: Sequence[str]) -> list[Asset]:
    """The named assets and groups in the order of the table; `all` is everything. Raises ValueError
    that lists the known names.
    """
    groups = list(dict.fromkeys(asset.group for asset in assets.values()))
    unknown = [
        name for name in names if name not in assets and name not in groups and name != "all"
    ]
    if unknown:
        raise ValueError(
            f"there is no asset {unknown[0]!r}; the assets are {', '.join(assets)}; the groups are "
            f"{', '.join(groups)}, all"
        )
    return [asset for asset in assets.values() if {asset.name, asset.group, "all"} & set(names)]
