"""Bringing bytes here: a url, a file of Google Drive, a snapshot of the hub.

All go on where they stopped.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from memorization_suite.download.assets import Asset

if TYPE_CHECKING:
    from requests import Response

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without a byte


class TransferError(Exception):
    """An asset could not be fetched or placed, and why. Nothing with its final name was changed."""


class Refused(TransferError):
    """What came is not what was asked for. It is thrown away: to go on from it makes no sense."""


def check_space(size: int, folder: Path) -> None:
    """Raises TransferError when so many bytes have no room on the folder's disk."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise TransferError(
            f"no space: {size_text(size)} are to come, {size_text(free)} are free in {folder}"
        )


def size_text(size: int) -> str:
    """Bytes in a unit that suits them; 0: unknown."""
    if not size:
        return "? MB"
    for factor, unit in ((1e9, "GB"), (1e6, "MB")):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"


def fetch_url(url: str, path: Path, *, progress: bool = False) -> None:
    """Brings the file to `path`, where a part of it may be.

    The part's version (ETag) stands beside it, so that bytes of two versions are never joined.
    Raises TransferError, or OSError, e.g. on a full disk; what came is kept.
    """
    import requests

    here = path.stat().st_size if path.exists() else 0
    version = path.with_suffix(".etag")
    etag = version.read_text() if version.exists() else ""
    headers = {"Accept-Encoding": "identity"}
    if here and etag:
        headers |= {"Range": f"bytes={here}-", "If-Range": etag}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            part = answer.headers.get("Content-Range", "")
            if part == f"bytes */{here}":
                return  # there is nothing after what is here
            check_answer(answer)
            if not part:  # not the rest but everything
                here = 0
                etag = answer.headers.get("ETag", "")
                # A weak one does not name one sequence of bytes.
                version.write_text("" if etag.startswith("W/") else etag)
            elif not part.startswith(f"bytes {here}-"):
                raise TransferError(f"{url}: the server sent another part than the one asked for")
            receive(answer, path, here, progress=progress)
    except requests.RequestException as error:
        raise TransferError(f"{url} cannot be reached ({type(error).__name__})") from error


def check_answer(answer: Response) -> None:
    """Raises TransferError for an answer that is not the file, nor a part of it."""
    if not answer.ok:
        raise TransferError(f"{answer.url}: the server says {answer.status_code} {answer.reason}")
    if "text/html" in answer.headers.get("Content-Type", ""):
        raise TransferError(f"{answer.url} is a web page, not the file")


def receive(answer: Response, path: Path, here: int, *, progress: bool) -> None:
    """Adds an answer to the bytes that are here of a file. Raises TransferError or OSError."""
    from requests import RequestException
    from tqdm import tqdm

    length = int(answer.headers.get("Content-Length", 0))  # 0: not told
    total = here + length if length else None
    bar = tqdm(total=total, initial=here, unit="B", unit_scale=True, disable=not progress)
    with bar, open(path, "ab" if here else "wb") as file:
        try:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        except RequestException as error:
            raise TransferError(
                f"{answer.url} broke off after {file.tell()} of {total or '?'} bytes. Rerun the "
                "command to resume."
            ) from error
        file.flush()
        os.fsync(file.fileno())


def fetch_drive(asset: Asset, path: Path, *, progress: bool = False) -> None:
    """Brings a file of Google Drive to `path`.

    Raises TransferError that tells how to get it by hand, or OSError.
    """
    import gdown
    from requests import RequestException

    try:
        gdown.download(
            id=asset.drive,
            output=str(path),
            quiet=not progress,
            use_cookies=False,
            resume=True,
            timeout=TIMEOUT,
        )
    except (gdown.exceptions.DownloadError, RequestException) as error:
        by_hand = asset.by_hand or f"https://drive.google.com/file/d/{asset.drive}/view"
        raise TransferError(
            f"Google Drive does not hand it out ({type(error).__name__}). Try again later, or by "
            f"hand: {by_hand}"
        ) from error


def fetch_hub(asset: Asset, folder: Path, *, progress: bool = False) -> None:
    """Brings the asset's files into `folder` and compares them with the hub's checksums.

    Raises TransferError, or OSError.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HTTPError, XetDownloadError
    from huggingface_hub.utils import disable_progress_bars

    if not progress:
        disable_progress_bars()
    repo, revision, wanted = asset.repo, asset.revision, list(asset.files)
    try:
        snapshot_download(repo, revision=revision, local_dir=folder, allow_patterns=wanted)
        sums = HfApi().verify_repo_checksums(repo, revision=revision, local_dir=folder)
    except (OSError, HTTPError, XetDownloadError) as error:
        if getattr(error, "errno", None):  # a full disk, not the hub
            raise
        raise TransferError(
            f"the hub does not hand out {asset.repo}: {type(error).__name__}. Is it reachable, and "
            "may you read it?"
        ) from error
    absent = [file for file in asset.files if not (folder / file).is_file()]
    if absent:
        raise TransferError(f"{asset.repo} at {asset.revision} has no {', '.join(absent)}")
    if sums.mismatches:
        file = sums.mismatches[0]["path"]
        raise Refused(f"{file} has not the checksum that the hub gives: thrown away. Try again")
    shutil.rmtree(folder / ".cache", ignore_errors=True)
