"""Bringing bytes here: a url, a file of Google Drive, a snapshot of the hub.

All go on where they stopped.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization_suite.download.assets import Asset

if TYPE_CHECKING:
    from requests import Response

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without a byte
# Seconds before each further try; they begin anew when so many bytes came.
PAUSES = (1.0, 3.0, 9.0)
PROGRESS = 1_000_000
# Answers of a server that is busy, or out of order for a moment.
BUSY = (408, 425, 429, 500, 502, 503, 504)
# How much more than the stated size may come, as some of them are rounded; and the most bytes of a
# file of which neither the table nor the server tells the size.
ROUNDED = 0.01
UNSTATED = 20_000_000_000


class TransferError(Exception):
    """An asset could not be fetched or placed, and why. Nothing with its final name was changed."""


class Refused(TransferError):
    """What came is not what was asked for. It is thrown away: to go on from it makes no sense."""


class Broken(TransferError):
    """A transfer that may succeed when it is tried again."""


def patiently(
    bring: Callable[[], None], here: Callable[[], int], say: Callable[[str], None]
) -> None:
    """Brings something, and tries again after growing pauses. here: bytes that have come. say: of
    the tries. Raises TransferError, or OSError.
    """
    pauses = iter(PAUSES)
    while True:
        before = here()
        try:
            return bring()
        except Broken as error:
            if here() - before >= PROGRESS:
                pauses = iter(PAUSES)
            pause = next(pauses, None)
            if pause is None:
                resumes = ". Rerun the command to resume." if here() else ""
                raise TransferError(f"{error}{resumes}") from error
            say(f"{error}; trying again in {pause:g} s")
            time.sleep(pause)


def most_of(asset: Asset) -> int:
    """The most bytes that may come of an asset; 0: its size is not known."""
    return int(asset.size * (1 + ROUNDED))


def check_size(size: int, most: int) -> None:
    """Raises Refused when more bytes come, or are announced, than may. most: as of `most_of`."""
    if most and size > most:
        raise Refused(
            f"more comes than the {size_text(int(most / (1 + ROUNDED)))} that are stated: stopped "
            f"at {size} bytes and thrown away"
        )


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


def fetch_url(url: str, path: Path, *, most: int = 0, progress: bool = False) -> None:
    """Brings the file to `path`, where a part of it may be. most: as of `most_of`.

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
            receive(answer, path, here, most, progress=progress)
    except requests.RequestException as error:
        raise Broken(f"{url} cannot be reached ({type(error).__name__})") from error


def check_answer(answer: Response) -> None:
    """Raises TransferError for an answer that is not the file, nor a part of it."""
    if not answer.ok:
        kind = Broken if answer.status_code in BUSY else TransferError
        raise kind(f"{answer.url}: the server says {answer.status_code} {answer.reason}")
    if "text/html" in answer.headers.get("Content-Type", ""):
        raise TransferError(f"{answer.url} is a web page, not the file")


def receive(answer: Response, path: Path, here: int, most: int, *, progress: bool) -> None:
    """Adds an answer to the bytes that are here of a file. most: as of `most_of`. Raises
    TransferError or OSError.
    """
    from requests import RequestException
    from tqdm import tqdm

    length = int(answer.headers.get("Content-Length", 0))  # 0: not told
    total = here + length if length else None
    check_size(total or here, most)
    bar = tqdm(total=total, initial=here, unit="B", unit_scale=True, disable=not progress)
    with bar, open(path, "ab" if here else "wb") as file:
        try:
            for chunk in answer.iter_content(CHUNK):
                check_size(file.tell() + len(chunk), most)
                if total is None and not most and file.tell() > UNSTATED:
                    raise Refused(
                        f"{answer.url} does not end: {size_text(UNSTATED)} came, and no size is "
                        "stated. Stopped and thrown away; state one in the table of assets"
                    )
                file.write(chunk)
                bar.update(len(chunk))
        except RequestException as error:
            raise Broken(
                f"{answer.url} broke off after {file.tell()} of {total or '?'} bytes"
            ) from error
        file.flush()
        os.fsync(file.fileno())


def fetch_drive(asset: Asset, path: Path, *, progress: bool = False) -> None:
    """Brings a file of Google Drive to `path`.

    Raises TransferError that tells how to get it by hand, or OSError.
    """
    import gdown
    from requests import RequestException

    def look(came: int, total: int | None) -> None:
        check_size(max(came, total or 0), most_of(asset))

    try:
        gdown.download(
            id=asset.drive,
            output=str(path),
            quiet=not progress,
            use_cookies=False,
            resume=True,
            timeout=TIMEOUT,
            progress=look,
        )
    except (gdown.exceptions.DownloadError, RequestException) as error:
        refused = isinstance(error, gdown.exceptions.FileURLRetrievalError)
        by_hand = asset.by_hand or f"https://drive.google.com/file/d/{asset.drive}/view"
        kind = TransferError if refused else Broken
        raise kind(
            f"Google Drive does not hand it out ({type(error).__name__}). Try again later, or by "
            f"hand: {by_hand}"
        ) from error


def fetch_hub(asset: Asset, folder: Path, *, progress: bool = False) -> None:
    """Brings the asset's files into `folder` and compares them with the hub's checksums.

    Raises TransferError, or OSError.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HTTPError, XetDownloadError
    from huggingface_hub.utils import disable_progress_bars, tqdm

    class Measured(tqdm):
        """A bar of bytes that ends the transfer when more come than may."""

        def __init__(self, *args: Any, **more: Any):
            super().__init__(*args, **more)
            self.of_bytes = more.get("unit") == "B"
            self.came = 0

        def update(self, n: float | None = 1) -> bool | None:
            if self.of_bytes:
                nonlocal began
                began = True
                self.came += int(n or 0)
                announced = int(self.total * (1 + ROUNDED)) + CHUNK if self.total else 0
                check_size(self.came, most_of(asset) or announced)
            return super().update(n)

    began = False
    if not progress:
        disable_progress_bars()
    repo, revision, wanted = asset.repo, asset.revision, list(asset.files)
    try:
        snapshot_download(
            repo, revision=revision, local_dir=folder, allow_patterns=wanted, tqdm_class=Measured
        )
        sums = HfApi().verify_repo_checksums(repo, revision=revision, local_dir=folder)
    except (OSError, HTTPError, XetDownloadError) as error:
        if getattr(error, "errno", None):  # a full disk, not the hub
            raise
        # The library itself asks again a hub that does not answer.
        kind = Broken if began else TransferError
        raise kind(
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
