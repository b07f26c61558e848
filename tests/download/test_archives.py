"""Archives: unpacked beside their place, and refused when a member would not stay there."""

import gzip
import io
import json
import shutil
import stat
import sys
import tarfile
import zipfile
from collections import namedtuple

import gdown
import pytest
import requests
from gdown.exceptions import FileURLRetrievalError

from memorization_suite.download.assets import RECORD
from tests.download.conftest import leftovers, sha256

GOOD = {"gt/gt_images/7/0.png": b"picture", "gt/list.jsonl": b"{}"}
Usage = namedtuple("Usage", "total used free")


def tar(members: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return data.getvalue()


def zipped(members: dict[str, bytes], mode: int = stat.S_IFREG | 0o644) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return data.getvalue()


def odd(kind: bytes, name: str = "gt/odd", target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def gt(server, table):
    """gt(archive): the table of one archive with that content; it goes to gt/ and must have
    gt_images.
    """

    def make(content: bytes, **changes):
        return table(
            gt={
                "kind": "archive",
                "url": server.put("gt", content),
                "path": "gt",
                "main": "gt_images",
            }
            | changes
        )

    return make


@pytest.mark.parametrize(
    "content",
    [
        tar(GOOD),
        zipped(GOOD),
        zipped({name.removeprefix("gt/"): data for name, data in GOOD.items()}),
    ],
)
def test_an_archive_is_unpacked_to_its_place(gt, fetch, root, content):
    gt(content)
    said = fetch("gt")
    assert said.code == 0 and "seen first" in said.out and not said.err
    assert {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in (root / "gt").rglob("*")
        if path.is_file()
    } == GOOD
    assert json.loads((root / RECORD).read_text())["gt"]["files"] == {
        "gt_images/7/0.png": sha256(b"picture"),
        "list.jsonl": sha256(b"{}"),
    }
    assert not leftovers(root) and sorted(path.name for path in root.iterdir()) == [
        "checkpoints",
        "gt",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (tar(GOOD | {"../x": b"x"}), "'../x' would lie outside"),
        (zipped(GOOD | {"../x": b"x"}), "'../x' would lie outside"),
        (tar(GOOD | {"gt/../../x": b"x"}), "would lie outside"),
        (tar(GOOD | {"/x": b"x"}), "'/x' would lie outside"),
        (zipped(GOOD | {"//x": b"x"}), "'//x' would lie outside"),
        (zipped(GOOD | {"/x": b"x"}), "'/x' would lie outside"),
        (zipped(GOOD | {"gt\\..\\..\\x": b"x"}), "would lie outside"),
        (tar(GOOD, odd(tarfile.SYMTYPE)), "'gt/odd' is a link"),
        (tar(GOOD, odd(tarfile.SYMTYPE, target="list.jsonl")), "is a link"),
        (tar(GOOD, odd(tarfile.LNKTYPE)), "is a link"),
        (tar(GOOD, odd(tarfile.CHRTYPE)), "or a device"),
        (tar(GOOD, odd(tarfile.FIFOTYPE)), "or a device"),
        (zipped({"gt/odd": b"/etc/passwd"}, stat.S_IFLNK | 0o777), "'gt/odd' is a link"),
        (b"<html>over quota</html>", "neither a zip nor a tar"),
        (zipped(GOOD).replace(b"picture", b"forgery"), "damaged"),
        (tar(GOOD)[:-30], "damaged"),
        (zipped({"gt/list.jsonl": b"{}"}), "there is no gt_images"),
    ],
)
def test_an_archive_is_refused(gt, fetch, root, content, told):
    gt(content)
    said = fetch("gt")
    assert said.code == 1 and told in said.err and said.err.count("\n") == 1
    assert sorted(path.name for path in root.rglob("*")) == [
        ".fetch.lock",
        "checkpoints",
    ]  # nothing half-unpacked, nothing outside
    assert not (root.parent / "x").exists()


def packed(content: bytes, how) -> bytes:
    """A tar of one large file of zeros."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{how}") as archive:
        info = tarfile.TarInfo("gt/zeros")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def deflated(content: bytes) -> bytes:
    """A zip of the same."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("gt/zeros", content)
    return data.getvalue()


ZEROS = bytes(20_000_000)


@pytest.mark.parametrize(
    "content",
    [
        deflated(ZEROS),
        packed(ZEROS, "gz"),
        packed(ZEROS, "bz2"),
        packed(ZEROS, "xz"),
        # After the end of the members, and in the header of one.
        gzip.compress(packed(b"", "") + ZEROS + packed(b"x", "")),
        gzip.compress(tarfile.TarInfo("x").tobuf() + ZEROS + packed(b"x", "")),
    ],
    ids=["zip", "gz", "bz2", "xz", "behind", "between"],
)
def test_what_would_become_a_thousand_times_as_large(gt, fetch, root, content):
    gt(content)
    said = fetch("gt")
    told = ("would become more than", "neither a zip nor a tar", "there is no gt_images")
    assert said.code == 1 and any(text in said.err for text in told)
    assert sum(path.stat().st_size for path in root.rglob("*")) < 10_000
    assert not leftovers(root)


@pytest.mark.parametrize("how", ["", "gz", "bz2", "xz"])
def test_a_tar_of_any_packing(gt, fetch, root, how):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{how}") as archive:
        for name, content in (GOOD | {"gt/zeros": bytes(100_000)}).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    gt(data.getvalue())
    assert fetch("gt").code == 0 and (root / "gt" / "zeros").stat().st_size == 100_000


def test_a_known_checksum_of_the_archive(gt, fetch, root):
    gt(tar(GOOD), sha256=sha256(b"other"))
    said = fetch("gt")
    assert (
        said.code == 1
        and "the sha256 of the archive" in said.err
        and not (root / "gt").exists()
        and not leftovers(root)
    )


def test_no_room_to_unpack_keeps_the_archive(gt, fetch, root, server, monkeypatch):
    gt(tar(GOOD))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: Usage(10, 8, 2))
        said = fetch("gt")
    assert said.code == 1 and "no space: 0.009 kB are to come" in said.err
    assert not (root / "gt").exists()
    assert fetch("gt").code == 0 and server.ranges == [None, f"bytes={len(server.files['gt'])}-"]


def test_what_is_missing_later_is_broken_and_put_back_on_demand(gt, fetch, root):
    gt(zipped(GOOD))
    fetch("gt")
    (root / "gt" / "list.jsonl").unlink()
    said = fetch("--check")
    assert said.code == 1 and "broken" in said.out and "there is no file list.jsonl" in said.out
    assert fetch("gt").code == 1 and fetch("gt", "--overwrite").code == 0
    assert (
        (root / "gt" / "list.jsonl").exists() and fetch("--check").code == 0 and not leftovers(root)
    )


def test_another_archive_than_the_first_seen_is_refused(gt, fetch, root):
    gt(zipped(GOOD))
    fetch("gt")
    shutil.rmtree(root / "gt")
    gt(zipped(GOOD | {"gt/list.jsonl": b"changed"}))
    said = fetch("gt")
    assert said.code == 1 and "first seen on" in said.err and not (root / "gt").exists()


def test_a_file_of_google_drive(table, fetch, root, monkeypatch):
    calls = []

    def download(**options):
        calls.append(options)
        with open(options["output"], "wb") as file:
            file.write(zipped(GOOD))

    monkeypatch.setattr(gdown, "download", download)
    table(gt={"kind": "archive", "drive": "some-id", "path": "gt", "main": "gt_images"})
    assert (
        fetch("gt").code == 0
        and (root / "gt" / "gt_images" / "7" / "0.png").read_bytes() == b"picture"
    )
    assert (
        calls[0]["id"] == "some-id" and calls[0]["resume"] is True and not calls[0]["use_cookies"]
    )


def test_google_drive_that_refuses(table, fetch, root, monkeypatch):
    def download(**options):
        raise FileURLRetrievalError(
            "Cannot retrieve the public link of the file.\nYou may need ..."
        )

    monkeypatch.setattr(gdown, "download", download)
    table(gt={"kind": "archive", "drive": "some-id", "path": "gt", "by_hand": "open the page"})
    said = fetch("gt")
    assert (
        said.code == 1
        and "Google Drive does not hand it out" in said.err
        and said.err.endswith("by hand: open the page\n")
    )
    assert not (root / "gt").exists()


FORM = """<html><body><p>Google Drive cannot scan this file for viruses.</p>
<form id="download-form" action="{url}/download" method="get">
<input type="hidden" name="id" value="some-id"><input type="hidden" name="confirm" value="t">
</form></body></html>"""


@pytest.fixture
def drive(server, table, monkeypatch):
    """Google Drive's own pages on the server, for gdown itself: a large file comes after a page
    that asks to confirm.
    """
    real = requests.Session.get
    monkeypatch.setattr(
        requests.Session,
        "get",
        lambda self, url, **more: real(
            self, url.replace("https://drive.google.com", server.url), **more
        ),
    )
    server.put("uc?id=some-id", "".join(FORM.format(url=server.url).splitlines()).encode())
    server.headers["uc?id=some-id"] = {"Content-Type": "text/html; charset=utf-8"}
    server.put(
        "download?id=some-id&confirm=t", zipped(GOOD | {"gt/large": bytes(range(256)) * 100})
    )
    server.headers["download?id=some-id&confirm=t"] = {
        "Content-Disposition": 'attachment; filename="gt.zip"'
    }
    table(
        gt={
            "kind": "archive",
            "drive": "some-id",
            "path": "gt",
            "main": "gt_images",
            "by_hand": "open the page",
        }
    )
    return server


def test_google_drive_to_the_end(drive, fetch, root):
    assert (
        fetch("gt").code == 0
        and (root / "gt" / "gt_images" / "7" / "0.png").read_bytes() == b"picture"
        and not leftovers(root)
    )
    assert [path for path, _ in drive.requests] == [
        "uc?id=some-id",
        "download?id=some-id&confirm=t",
    ]


def test_google_drive_that_breaks_off_goes_on(drive, fetch, root, monkeypatch):
    monkeypatch.setattr(
        sys.modules["gdown.download"], "CHUNK_SIZE", 1000
    )  # only whole chunks are kept
    drive.break_after["download?id=some-id&confirm=t"] = 9000
    said = fetch("gt")
    assert (
        said.code == 1
        and said.err.count("\n") == 1
        and "Google Drive does not hand it out (DownloadError)" in said.err
    )
    assert not (root / "gt").exists() and "9 kB of it are here" in fetch("--check", "gt").out
    assert fetch("gt").code == 0 and drive.ranges[-1] == "bytes=9000-" and not leftovers(root)


def test_a_file_of_google_drive_that_is_larger_than_stated(drive, table, fetch, root):
    entry = {"kind": "archive", "drive": "some-id", "path": "gt", "main": "gt_images"}
    table(gt=entry | {"size": 5000})
    said = fetch("gt")
    assert said.code == 1 and "more comes than the 5 kB that are stated" in said.err
    assert not leftovers(root)


def test_a_quota_page_of_google_drive(drive, fetch, root):
    drive.put(
        "uc?id=some-id",
        b'<p class="uc-error-subcaption">Too many users have viewed or downloaded this file '
        b"recently.</p>",
    )
    said = fetch("gt")
    assert (
        said.code == 1
        and said.err.count("\n") == 1
        and said.err.endswith("by hand: open the page\n")
        and not leftovers(root)
    )
