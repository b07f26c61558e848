"""Bringing bytes here: a url (pooch), a file of Google Drive (gdown), a snapshot of the hub
(huggingface_hub). All go on where they stopped.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

from memorization_suite.download.assets import Asset

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without a byte


class TransferError(Exception):
    """An asset could not be fetched or placed, and why. Nothing with its final name was changed."""


class Refused(TransferError):
    """What came is not what was asked for. It is thrown away: to go on from it makes no sense."""


# --- a url ---


class Part:
    """A file on its way, and the version of it (ETag) that the server was sending.

    Bytes of two versions are never joined.
    """

    def __init__(self, path: Path):
        self.path = path
        self.version = path.with_name(path.name + ".etag")
        # Bytes that were here at the beginning.
        self.start = 0
        # Bytes in the end; None: unknown.
        self.total: int | None = None

    def headers(self) -> dict[str, str]:
        """Asks for the rest if the server still has the same version, else for everything."""
        plain = {"Accept-Encoding": "identity"}
        version = self.version.read_text(encoding="latin-1") if self.version.exists() else ""
        if not self.start or not version:
            return plain
        return plain | {"Range": f"bytes={self.start}-", "If-Range": version}

    def begin(self, response, file: BinaryIO) -> None:
        """Called with each answer before its body is read.

        Raises TransferError for an answer that is not the file.
        """
        status = response.status_code
        headers = response.headers
        if status not in (200, 206):
            return  # a redirect, or an error that is raised later
        if "text/html" in headers.get("Content-Type", ""):
            raise TransferError(f"{response.url} is a web page, not the file")
        wanted = headers.get("Content-Range", "").startswith(f"bytes {self.start}-")
        if status == 206 and not wanted:
            raise TransferError(
                f"{response.url}: the server sent another part than the one asked for"
            )
        if status == 200:
            self.restart(file, headers.get("ETag", ""))
        length = headers.get("Content-Length")
        self.total = None if length is None else self.start + int(length)

    def is_whole(self, response) -> bool:
        """Whether an answer says that there is nothing after the bytes that are here."""
        ends_here = response.headers.get("Content-Range") == f"bytes */{self.start}"
        return response.status_code == 416 and ends_here

    def restart(self, file: BinaryIO, etag: str) -> None:
        """Empties the part. A weak ETag does not name one sequence of bytes, so it is not kept."""
        self.start = 0
        file.seek(0)
        file.truncate()
        self.version.write_text("" if etag.startswith("W/") else etag, encoding="latin-1")


def fetch_url(url: str, path: Path, *, progress: bool = False) -> None:
    """Brings the file to `path`, where a part of it may be.

    Raises TransferError, or OSError, e.g. on a full disk; what came is kept.
    """
    part = Part(path)
    with open(path, "ab") as file:
        part.start = file.tell()
        download(url, file, part, progress=progress)
        if part.total not in (None, file.tell()):
            raise TransferError(
                f"{url} broke off after {file.tell()} of {part.total} bytes; the same command goes "
                "on there"
            )
        file.flush()
        os.fsync(file.fileno())


def download(url: str, file: BinaryIO, part: Part, *, progress: bool) -> None:
    """Adds what the server sends to the file. Raises TransferError or OSError.

    It also returns when the transfer broke off.
    """
    import pooch
    from requests import HTTPError, RequestException

    fetch = pooch.HTTPDownloader(
        progressbar=progress,
        chunk_size=CHUNK,
        timeout=TIMEOUT,
        headers=part.headers(),
        hooks={"response": lambda response, **_: part.begin(response, file)},
    )
    try:
        fetch(url, file, None)
    except HTTPError as error:
        answer: Any = error.response
        if not part.is_whole(answer):
            raise TransferError(
                f"{url}: the server says {answer.status_code} {answer.reason}"
            ) from error
    except RequestException as error:
        if part.total is None:
            raise TransferError(f"{url} cannot be reached ({type(error).__name__})") from error


# --- Google Drive ---


def fetch_drive(asset: Asset, path: Path, *, progress: bool = False) -> None:
    """Brings a file of Google Drive to `path`.

    Raises TransferError that tells how to get it by hand, or OSError.
    """
    import gdown
    from gdown.exceptions import DownloadError
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
    except (DownloadError, RequestException) as error:
        by_hand = asset.by_hand or f"https://drive.google.com/file/d/{asset.drive}/view"
        raise TransferError(
            f"Google Drive does not hand it out ({type(error).__name__}). Try again later, or by "
            f"hand: {by_hand}"
        ) from error


# --- the hub ---


def fetch_hub(asset: Asset, folder: Path, *, progress: bool = False) -> None:
    """Brings the asset's files into `folder` and compares them with the hub's checksums.

    Raises TransferError, or OSError.
    """
    mismatch = snapshot(asset, folder, progress=progress)
    absent = [file for file in asset.files if not (folder / file).is_file()]
    if absent:
        raise TransferError(f"{asset.repo} at {asset.revision} has no {', '.join(absent)}")
    if mismatch:
        raise Refused(f"{mismatch} has not the checksum that the hub gives: thrown away. Try again")
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def snapshot(asset: Asset, folder: Path, *, progress: bool) -> str:
    """Fetches what the hub has of the asset's files.

    Returns the first file whose checksum disagrees with the hub's, empty when none does. Raises
    TransferError, or OSError.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HTTPError, XetDownloadError
    from huggingface_hub.utils import disable_progress_bars, logging

    if not progress:
        disable_progress_bars()
        logging.set_verbosity_error()
    wanted = list(asset.files)
    try:
        snapshot_download(
            asset.repo, revision=asset.revision, local_dir=folder, allow_patterns=wanted
        )
        sums = HfApi().verify_repo_checksums(asset.repo, revision=asset.revision, local_dir=folder)
    except (OSError, HTTPError, XetDownloadError) as error:
        if getattr(error, "errno", None):  # a full disk, not the hub
            raise
        raise TransferError(
            f"the hub does not hand out {asset.repo}: {type(error).__name__}. Is it reachable, and "
            "may you read it?"
        ) from error
    return sums.mismatches[0]["path"] if sums.mismatches else ""
