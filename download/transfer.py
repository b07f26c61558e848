"""Bringing bytes here: a url (pooch), a file of Google Drive (gdown), a snapshot of the hub
(huggingface_hub). All go on where they stopped.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

from memorization_suite.download.assets import Asset

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without a byte


class TransferError(Exception):
    """An asset could not be fetched or placed, and why. Nothing with its final name was changed."""


class Refused(TransferError):
    """What came is not what was asked for. It is thrown away: to go on from it makes no sense."""


class Part:
    """A file on its way, and the version of it (ETag) that the server was sending: bytes of two
    versions are never joined.
    """

    def __init__(self, path: Path):
        self.path, self.version = path, path.with_name(path.name + ".etag")
        self.start, self.total = (
            0,
            None,
        )  # bytes: here at the beginning, and in the end; None: unknown

    def headers(self) -> dict[str, str]:
        """Asks for the rest if the server still has the same version, else for everything."""
        plain = {"Accept-Encoding": "identity"}
        version = self.version.read_text(encoding="latin-1") if self.version.exists() else ""
        return (
            plain | {"Range": f"bytes={self.start}-", "If-Range": version}
            if self.start and version
            else plain
        )

    def begin(self, response, file: BinaryIO) -> None:
        """Called with each answer before its body is read. Raises TransferError for an answer that
        is not the file.
        """
        if response.status_code not in (200, 206):
            return  # a redirect, or an error that is raised later
        if "text/html" in response.headers.get("Content-Type", ""):
            raise TransferError(f"{response.url} is a web page, not the file")
        if response.status_code == 206 and not response.headers.get("Content-Range", "").startswith(
            f"bytes {self.start}-"
        ):
            raise TransferError(
                f"{response.url}: the server sent another part than the one asked for"
            )
        if response.status_code == 200:
            self.restart(file, response.headers.get("ETag", ""))
        length = response.headers.get("Content-Length")
        self.total = None if length is None else self.start + int(length)

    def is_whole(self, response) -> bool:
        """Whether an answer says that there is nothing after the bytes that are here."""
        return (
            response.status_code == 416
            and response.headers.get("Content-Range") == f"bytes */{self.start}"
        )

    def restart(self, file: BinaryIO, etag: str) -> None:
        """Empties the part. A weak ETag does not name one sequence of bytes, so it is not kept."""
        self.start = 0
        file.seek(0)
        file.truncate()
        self.version.write_text("" if etag.startswith("W/") else etag, encoding="latin-1")


def fetch_url(url: str, path: Path, *, progress: bool = False) -> None:
    """Brings the file to `path`, where a part of it may be. Raises TransferError, or OSError, e.g.
    on a full disk; what came is kept.
    """
    import pooch
    from requests import HTTPError, RequestException

    part = Part(path)
    with open(path, "ab") as file:
        part.start = file.tell()
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
            if not part.is_whole(error.response):
                raise TransferError(
                    f"{url}: the server says {error.response.status_code} {error.response.reason}"
                ) from error
        except RequestException as error:
            if part.total is None:
                raise TransferError(f"{url} cannot be reached ({type(error).__name__})") from error
        if part.total not in (None, file.tell()):
            raise TransferError(
                f"{url} broke off after {file.tell()} of {part.total} bytes; the same command goes "
                "on there"
            )
        file.flush()
        os.fsync(file.fileno())


def fetch_drive(asset: Asset, path: Path, *, progress: bool = False) -> None:
    """Brings a file of Google Drive to `path`. Raises TransferError that tells how to get it by
    hand, or OSError.
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


def fetch_hub(asset: Asset, folder: Path, *, progress: bool = False) -> None:
    """Brings the asset's files from the hub into `folder` and compares them with the hub's
    checksums. Raises TransferError, or OSError.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HTTPError, XetDownloadError
    from huggingface_hub.utils import disable_progress_bars, logging

    if not progress:
        disable_progress_bars()
        logging.set_verbosity_error()
    try:
        snapshot_download(
            asset.repo, revision=asset.revision, local_dir=folder, allow_patterns=list(asset.files)
        )
        found = HfApi().verify_repo_checksums(asset.repo, revision=asset.revision, local_dir=folder)
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
    if found.mismatches:
        raise Refused(
            f"{found.mismatches[0]['path']} has not the checksum that the hub gives: thrown away. "
            "Try again"
        )
    shutil.rmtree(folder / ".cache", ignore_errors=True)
