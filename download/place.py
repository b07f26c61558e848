"""Getting one asset: fetched beside its place, compared, and only then given its final name."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from memorization_suite.download.archive import unpack
from memorization_suite.download.assets import RECORD, Asset
from memorization_suite.download.check import (
    Hashes,
    Record,
    all_known,
    checksum,
    examine,
    files_of,
    known,
    problem,
    read_record,
    sha256_of,
    write_record,
)
from memorization_suite.download.transfer import (
    Refused,
    TransferError,
    fetch_drive,
    fetch_hub,
    fetch_url,
)

DAMAGED = "The transfer was damaged, or the server has another file. Try again"


def get(asset: Asset, root: Path, *, overwrite: bool = False, quiet: bool = False) -> str:
    """Makes sure that the asset is there and whole; says what was done.

    Raises TransferError, ValueError (damaged record) or OSError.
    """
    record = read_record(root)
    state, why = examine(asset, root, record)
    if state == "whole":
        return f"already there and whole (checksum: {why})"
    if state == "there":
        write_record(root, asset, files_of(asset, root / asset.path))
        return (
            "already there; no checksum is known, and this one is recorded as the first seen "
            f"in {RECORD}"
        )
    if state == "broken" and not overwrite:
        raise TransferError(
            f"{asset.path} is there but not whole: {why}. --overwrite fetches it anew and replaces "
            "it"
        )
    if not asset.address:
        raise TransferError(f"{asset.path} has to be fetched by hand: {asset.by_hand}")
    return bring(asset, root, record, quiet=quiet)


def bring(asset: Asset, root: Path, record: Record, *, quiet: bool) -> str:
    """Fetches, compares, places and records; says what was done.

    Raises as `get`; what came of an interrupted transfer is kept.
    """
    work = work_folder(asset, root)
    work.mkdir(parents=True, exist_ok=True)
    check_space(asset, work)
    if not quiet:
        size = size_text(asset.size)
        print(
            f"{asset.name}: {size} from {asset.address}; licence: {asset.licence}", file=sys.stderr
        )
    try:
        content = fetch(asset, work, progress=not quiet and sys.stderr.isatty())
        files = files_of(asset, content)
        compare(asset, files, record)
    except (TransferError, OSError) as error:
        if isinstance(error, Refused) or not arrived(work):
            shutil.rmtree(work)
        raise
    place(content, root / asset.path, aside=work / "old")
    first_seen = asset.name not in record and not all_known(asset)
    if first_seen:
        write_record(root, asset, files)
    shutil.rmtree(work)
    if not first_seen:
        return f"fetched to {asset.path} (checksum: {checksum(asset, record)})"
    why = "the hub's checksums agree" if asset.kind == "hub" else "its checksum was not known"
    return f"fetched to {asset.path}; {why}, and what was seen first is recorded in {RECORD}"


# --- on the way ---


def work_folder(asset: Asset, root: Path) -> Path:
    """Where its parts are until it is whole: beside its place, so that a renaming is enough."""
    path = root / asset.path
    return path.with_name(f".{path.name}.incoming")


def arrived(work: Path) -> int:
    """Bytes that are here of what is on its way."""
    parts = [path for path in work.rglob("*") if path.is_file() and path.suffix != ".etag"]
    return sum(path.stat().st_size for path in parts)


def size_text(size: int) -> str:
    """Bytes in a unit that suits them; 0: unknown."""
    if not size:
        return "? MB"
    for factor, unit in ((1e9, "GB"), (1e6, "MB")):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"


def check_space(asset: Asset, work: Path) -> None:
    """Raises TransferError when what is still to come has no room on the disk."""
    to_come = asset.size - arrived(work)
    free = shutil.disk_usage(work).free
    if to_come > free:
        raise TransferError(
            f"no space: {size_text(to_come)} are to come, {size_text(free)} are free in "
            f"{work.parent}"
        )


def fetch(asset: Asset, work: Path, *, progress: bool) -> Path:
    """The file or folder as it will be placed, below `work`. Raises TransferError or OSError."""
    if asset.kind == "hub":
        fetch_hub(asset, work / "content", progress=progress)
        return work / "content"
    came = work / "came"
    if asset.drive:
        fetch_drive(asset, came, progress=progress)
    else:
        fetch_url(asset.url, came, progress=progress)
    if asset.kind == "file":
        return came
    return unpacked(asset, came, work / "content")


def unpacked(asset: Asset, archive: Path, folder: Path) -> Path:
    """What is to be placed of the archive: the folder in it that has the asset's name, or all.

    Raises TransferError or OSError.
    """
    if asset.sha256:
        sha256 = sha256_of(archive)
        if sha256 != asset.sha256:
            raise Refused(
                f"the sha256 of the archive is {sha256}, not {asset.sha256}: thrown away. {DAMAGED}"
            )
    shutil.rmtree(folder, ignore_errors=True)
    unpack(archive, folder)
    named = folder / Path(asset.path).name
    return named if named.is_dir() else folder


# --- at the end ---


def compare(asset: Asset, files: Hashes, record: Record) -> None:
    """Raises Refused when what came is not what is known in advance, or not what was first seen."""
    wrong = problem(asset, files, known(asset))
    if wrong:
        raise Refused(f"{wrong}: thrown away. {DAMAGED}")
    seen = record.get(asset.name)
    wrong = problem(asset, files, seen["files"]) if seen else ""
    if seen and wrong:
        raise Refused(
            f"{wrong}, which was first seen on {seen['date']} (from {seen['source']}): thrown "
            "away. "
            f"If the new one is meant, take {asset.name} out of {RECORD}"
        )


def place(content: Path, path: Path, *, aside: Path) -> None:
    """Gives the content its final name.

    What had the name is replaced; folders, which cannot be in one step, step aside first.
    """
    if path.exists() and (path.is_dir() or content.is_dir()):
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(path, aside)
    os.replace(content, path)
