"""Noto emoji artwork from the npm package `emoji-datasource-google`, fetched with npm and verified.

Artwork: Google's Noto Emoji (images Apache-2.0, fonts OFL 1.1), packaged by iamcal/emoji-data
(MIT).
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

from memorization_suite.runs.lazy import Image

PACKAGE = "emoji-datasource-google"
VERSION = "16.0.0"
SHA256 = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"


def fetch(folder: Path) -> Path:
    """Path of the verified package archive; downloaded with `npm pack` when it is not in `folder`
    yet.

    Raises RuntimeError when npm is missing or fails, or when the archive is not the expected one.
    """
    archive = folder / f"{PACKAGE}-{VERSION}.tgz"
    if not archive.exists():
        download(archive)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise RuntimeError(
            f"{archive} has sha256 {digest}, expected {SHA256}: delete it and try again"
        )
    return archive


def download(archive: Path) -> None:
    """Fetches the package with npm, which chooses the file's name. Raises RuntimeError without
    npm.
    """
    if shutil.which("npm") is None:
        raise RuntimeError(
            f"npm is needed to fetch {PACKAGE}@{VERSION}: install Node.js, or put the archive at "
            f"{archive}"
        )
    archive.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"],
        cwd=archive.parent,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def load(archive: Path, names: list[str]) -> dict[str, Image.Image]:
    """Artwork by short name: 64 x 64 RGBA, cropped to what is drawn.

    Raises KeyError for an unknown name.
    """
    artwork = {}
    with tarfile.open(archive) as tar:
        table = json.load(tar.extractfile("package/emoji.json"))
        files = {entry["short_name"]: entry["image"] for entry in table}
        wanted = {f"package/img/google/64/{files[name]}": name for name in names}
        for member in tar:
            if member.name not in wanted:
                continue
            content = io.BytesIO(tar.extractfile(member).read())
            picture = Image.open(content).convert("RGBA")
            artwork[wanted[member.name]] = picture.crop(picture.getbbox())
    return artwork
