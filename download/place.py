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
    expected,
    files_of,
    known,
    problem,
    read_record,
    write_record,
)
from memorization_suite.download.transfer import (
    Refused,
    TransferError,
    check_space,
    fetch_drive,
    fetch_hub,
    fetch_url,
    most_of,
    patiently,
    size_text,
)
from memorization_suite.runs.files import sha256_of

DAMAGED = "thrown away. The transfer was damaged, or the server has another file. Try again"


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
    if not quiet:
        size = size_text(asset.size)
        print(
            f"{asset.name}: {size} from {asset.address}; licence: {asset.licence}", file=sys.stderr
        )
    work = work_folder(asset, root)
    work.mkdir(parents=True, exist_ok=True)
    try:
        check_space(asset.size - arrived(work), work.parent)
        content = fetch(asset, work, quiet=quiet)
        files = files_of(asset, content)
        compare(asset, files, record)
    except (TransferError, OSError) as error:
        if isinstance(error, Refused) or not arrived(work):
            shutil.rmtree(work)
        raise
    path = root / asset.path
    if path.exists():
        os.replace(path, work / "old")
    os.replace(content, path)
    shutil.rmtree(work)
    if asset.name in record or all_known(asset):
        return f"fetched to {asset.path} (checksum: {checksum(asset, record)})"
    write_record(root, asset, files)
    why = "the hub's checksums agree" if asset.kind == "hub" else "its checksum was not known"
    return f"fetched to {asset.path}; {why}, and what was seen first is recorded in {RECORD}"


def work_folder(asset: Asset, root: Path) -> Path:
    """Where its parts are until it is whole: beside its place, so that a renaming is enough."""
    path = root / asset.path
    return path.with_name(f".{path.name}.incoming")


def arrived(work: Path) -> int:
    """Bytes that are here of what is on its way."""
    parts = [path for path in work.rglob("*") if path.is_file() and path.suffix != ".etag"]
    return sum(path.stat().st_size for path in parts)


def fetch(asset: Asset, work: Path, *, quiet: bool) -> Path:
    """The file or folder as it will be placed, below `work`. Raises TransferError or OSError.

    Of an archive it is the folder in it that has the asset's name, or all.
    """
    content = work / "content"
    came = work / "came"
    progress = not quiet and sys.stderr.isatty()

    def bring() -> None:
        if asset.kind == "hub":
            fetch_hub(asset, content, progress=progress)
        elif asset.drive:
            fetch_drive(asset, came, progress=progress)
        else:
            fetch_url(asset.url, came, most=most_of(asset), progress=progress)

    def say(text: str) -> None:
        if not quiet:
            print(f"{asset.name}: {text}", file=sys.stderr)

    patiently(bring, lambda: arrived(work), say)
    if asset.kind == "hub":
        return content
    if asset.kind == "file":
        return came
    sha256 = sha256_of(came)
    if asset.sha256 not in ("", sha256):
        raise Refused(f"the sha256 of the archive is {sha256}, not {asset.sha256}: {DAMAGED}")
    shutil.rmtree(content, ignore_errors=True)
    unpack(came, content)
    named = content / Path(asset.path).name
    return named if named.is_dir() else content


def compare(asset: Asset, files: Hashes, record: Record) -> None:
    """Raises Refused when what came is not what is known in advance, or not what was first seen."""
    wrong = problem(asset, files, known(asset))
    if wrong:
        raise Refused(f"{wrong}: {DAMAGED}")
    wrong = problem(asset, files, expected(asset, record))
    if wrong:
        seen = record[asset.name]
        raise Refused(
            f"{wrong}, which was first seen on {seen['date']} (from {seen['source']}): thrown "
            f"away. If the new one is meant, take {asset.name} out of {RECORD}"
        )
