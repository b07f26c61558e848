"""Whether an asset is there and whole.

By checksums known in advance, or recorded when they were first seen.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path, PurePosixPath

from memorization_suite.download.assets import RECORD, Asset
from memorization_suite.runs.files import sha256_of, write_json
from memorization_suite.runs.nobodys import is_nobodys
from memorization_suite.runs.parse import json_of

Hashes = dict[str, str]  # file -> sha256; the file "" is the asset itself
Record = dict[str, dict]  # asset -> {source, date, files: Hashes}, of what was first seen


def read_record(root: Path) -> Record:
    """What was first seen. Raises ValueError when the record is damaged."""
    path = root / RECORD
    record = {}
    try:
        for name, entry in json_of(path.read_text(encoding="utf-8")).items():
            files = dict(entry["files"])
            record[name] = {"source": entry["source"], "date": entry["date"], "files": files}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{path}, the record of checksums, cannot be read ({type(error).__name__}): mend it, "
            "or move it away"
        ) from error
    return record


def write_record(root: Path, asset: Asset, files: Hashes) -> None:
    """Notes these checksums as the first seen.

    Raises OSError, and ValueError as `read_record`.
    """
    path = root / RECORD
    entry = {"source": asset.address or "by hand", "date": date.today().isoformat(), "files": files}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, read_record(root) | {asset.name: entry})


def known(asset: Asset) -> Hashes:
    """What is known in advance, else empty. What is in an archive is not known."""
    if asset.kind == "hub":
        return asset.files
    return {"": asset.sha256} if asset.kind == "file" else {}


def all_known(asset: Asset) -> bool:
    """Whether every checksum is known in advance."""
    hashes = known(asset).values()
    return bool(hashes) and all(hashes)


def expected(asset: Asset, record: Record) -> Hashes:
    """Known in advance, else first seen, else empty."""
    hashes = dict(known(asset))
    for file, sha256 in record[asset.name]["files"].items() if asset.name in record else ():
        hashes[file] = hashes.get(file) or sha256
    return hashes


def files_of(asset: Asset, content: Path) -> Hashes:
    """What there is of the asset at `content`, its place or a copy beside it. Raises OSError."""
    names = list(known(asset))
    if asset.kind == "archive":
        names = [path.relative_to(content).as_posix() for path in sorted(content.rglob("*"))]
        names = [name for name in names if is_of_asset(name)]
    return {name: sha256_of(content / name) for name in names if (content / name).is_file()}


def is_of_asset(name: str) -> bool:
    """Whether a file of an archive, by its path in it, is somebody's."""
    return not any(map(is_nobodys, PurePosixPath(name).parts))


def problem(asset: Asset, there: Hashes, hashes: Hashes) -> str:
    """The first thing wrong with the files that are there, empty when nothing is.

    hashes: as they should be.
    """
    for file, sha256 in hashes.items():
        if not is_of_asset(file):  # an earlier version recorded it
            continue
        name = file or PurePosixPath(asset.path).name
        if file not in there:
            return f"there is no file {name}"
        if sha256 not in ("", there[file]):
            return f"the sha256 of {name} is {there[file]}, not {sha256}"
    if asset.main and not any(PurePosixPath(file).is_relative_to(asset.main) for file in there):
        return f"there is no {asset.main}"
    return ""


def examine(asset: Asset, root: Path, record: Record) -> tuple[str, str]:
    """(state, why): whole; missing; broken; or there, when no checksum is known yet.

    Raises OSError.
    """
    path = root / asset.path
    if not path.exists():
        return "missing", ""
    hashes = expected(asset, record)
    wrong = problem(asset, files_of(asset, path), hashes)
    if wrong:
        return "broken", wrong
    complete = hashes and all(hashes.values())
    return "whole" if complete else "there", checksum(asset, record)


def checksum(asset: Asset, record: Record) -> str:
    """What its checksum rests on."""
    if all_known(asset):
        return "known"
    if asset.name in record:
        return f"first seen {record[asset.name]['date']}"
    return "the hub's" if asset.kind == "hub" else "not known yet"
