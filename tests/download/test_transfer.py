"""Single files from a server that breaks off, changes its mind, or is not there."""

import errno
import io
import json

import pytest
from filelock import FileLock

import memorization_suite.download.place
import memorization_suite.download.transfer
from memorization_suite import ROOT
from memorization_suite.commands.fetch import main
from memorization_suite.download.assets import RECORD
from tests.download.conftest import leftovers, sha256

CONTENT = bytes(range(256)) * 40
HERE = "checkpoints/thing.bin"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(memorization_suite.download.transfer, "CHUNK", 1000)


@pytest.fixture
def thing(server, table):
    """thing(**changes): the table of one asset `thing`, on the server, with its checksum known
    unless it is changed.
    """

    def make(content=CONTENT, **changes):
        return table(
            thing={"url": server.put("thing.bin", content), "path": HERE, "sha256": sha256(CONTENT)}
            | changes
        )

    make()
    return make


def test_a_file_is_fetched_verified_and_placed(server, thing, fetch, root):
    said = fetch("thing")
    assert said.code == 0 and not said.err and "known" in said.out
    assert (root / HERE).read_bytes() == CONTENT and not leftovers(root)
    assert not (root / RECORD).exists()


@pytest.mark.parametrize(
    ("used_by", "command"),
    [
        (
            "generate_images.py --model_id models/x, metrics/",
            "generate_images.py --model_id models/x",
        ),
        ("metrics/compute_fid.py", "metrics/compute_fid.py --help"),
    ],
)
def test_what_one_would_do_next(thing, root, tmp_path, capsys, used_by, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    table = thing(used_by=used_by)
    assert main(["thing", "--root", str(root), "--assets", str(table)]) == 0
    assert capsys.readouterr().err.endswith(f"\nnext: python {command}\n")


def test_what_is_whole_is_not_asked_for_again(server, thing, fetch):
    fetch("thing")
    said = fetch("thing")
    assert said.code == 0 and "already there and whole" in said.out and len(server.requests) == 1


def test_a_broken_transfer_goes_on_where_it_stopped(server, thing, fetch, root):
    server.break_after["thing.bin"] = 5500
    said = fetch("thing")
    assert (
        said.code == 1
        and said.err.count("\n") == 1
        and f"after 5000 of {len(CONTENT)} bytes" in said.err
    )
    assert not (root / HERE).exists()
    assert fetch("thing").code == 0
    assert server.ranges == [None, "bytes=5000-"] and server.sent == [
        len(CONTENT),
        len(CONTENT) - 5000,
    ]
    assert (root / HERE).read_bytes() == CONTENT and not leftovers(root)


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(server, thing, fetch, root):
    thing(sha256="")
    server.break_after["thing.bin"] = 5500
    fetch("thing")
    server.put("thing.bin", CONTENT[::-1])
    assert fetch("thing").code == 0
    assert server.ranges == [None, "bytes=5000-"] and (root / HERE).read_bytes() == CONTENT[::-1]


def test_without_a_version_a_transfer_starts_again(server, thing, fetch, root):
    server.etags = False
    server.break_after["thing.bin"] = 5500
    assert [fetch("thing").code, fetch("thing").code] == [1, 0]
    assert server.ranges == [None, None] and (root / HERE).read_bytes() == CONTENT


def test_a_part_that_is_everything_is_enough(server, thing, fetch, root, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            memorization_suite.download.place,
            "files_of",
            lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        said = fetch("thing")
    assert said.code == 1 and "interrupted" in said.err and not (root / HERE).exists()
    assert fetch("thing").code == 0 and server.ranges == [None, f"bytes={len(CONTENT)}-"]
    assert (root / HERE).read_bytes() == CONTENT


def test_a_wrong_checksum_is_thrown_away(server, thing, fetch, root):
    thing(content=b"something else")
    said = fetch("thing")
    assert said.code == 1 and said.err.count("\n") == 1
    assert sha256(CONTENT) in said.err and sha256(b"something else") in said.err
    assert not (root / HERE).exists() and not leftovers(root)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda server: server.files.clear(), "404 Not Found"),
        (
            lambda server: setattr(server, "content_type", "text/html; charset=utf-8"),
            "is a web page",
        ),
    ],
)
def test_an_answer_that_is_not_the_file(server, thing, fetch, root, change, told):
    change(server)
    said = fetch("thing")
    assert said.code == 1 and said.err.count("\n") == 1 and told in said.err
    assert not (root / HERE).exists() and not leftovers(root)


def test_a_server_that_cannot_be_reached(thing, fetch, root):
    thing(url="http://127.0.0.1:1/thing.bin")
    said = fetch("thing")
    assert said.code == 1 and said.err.count("\n") == 1 and "cannot be reached" in said.err
    assert not (root / HERE).exists() and not leftovers(root)


def test_a_redirect_is_followed(server, thing, fetch, root):
    server.moved["old.bin"] = "thing.bin"
    thing(url=f"{server.url}/old.bin")
    assert fetch("thing").code == 0 and (root / HERE).read_bytes() == CONTENT


class Full(io.FileIO):
    """A file on a disk with room for 3000 bytes."""

    def write(self, data):
        if self.tell() >= 3000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk(server, thing, fetch, root, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(memorization_suite.download.transfer, "open", Full, raising=False)
        said = fetch("thing")
    assert (
        said.code == 1
        and said.err.count("\n") == 1
        and "no space is left" in said.err
        and not (root / HERE).exists()
    )
    assert (
        fetch("thing").code == 0
        and server.ranges == [None, "bytes=3000-"]
        and (root / HERE).read_bytes() == CONTENT
    )


def test_what_has_no_room_is_not_begun(server, thing, fetch):
    thing(size=10**18)
    said = fetch("thing")
    assert said.code == 2 and "1e+09 GB are to come" in said.err and not server.requests


def test_the_first_checksum_seen_is_recorded_and_said_to_be_that(server, thing, fetch, root):
    thing(sha256="")
    said = fetch("thing")
    assert (
        said.code == 0
        and "its checksum was not known, and what was seen first is recorded" in said.out
    )
    entry = json.loads((root / RECORD).read_text())["thing"]
    assert entry["files"] == {"": sha256(CONTENT)} and entry["source"] == f"{server.url}/thing.bin"
    assert "first seen" in fetch("thing").out and len(server.requests) == 1


def test_another_file_than_the_first_seen_is_refused(server, thing, fetch, root):
    thing(sha256="")
    fetch("thing")
    (root / HERE).unlink()
    server.put("thing.bin", b"another")
    said = fetch("thing")
    assert (
        said.code == 1 and "first seen on" in said.err and f"take thing out of {RECORD}" in said.err
    )
    assert not (root / HERE).exists() and not leftovers(root)
    (root / RECORD).unlink()
    assert fetch("thing").code == 0 and (root / HERE).read_bytes() == b"another"


def test_a_file_that_was_there_before_is_recorded_not_replaced(server, thing, fetch, root):
    thing(sha256="")
    (root / "checkpoints").mkdir()
    (root / HERE).write_bytes(b"mine")
    said = fetch("thing")
    assert said.code == 0 and "recorded as the first seen" in said.out and not server.requests
    assert json.loads((root / RECORD).read_text())["thing"]["files"] == {"": sha256(b"mine")}


def test_what_is_there_and_not_whole_is_replaced_on_demand_only(server, thing, fetch, root):
    (root / "checkpoints").mkdir()
    (root / HERE).write_bytes(b"mine")
    said = fetch("thing")
    assert (
        said.code == 1
        and "--overwrite" in said.err
        and (root / HERE).read_bytes() == b"mine"
        and not server.requests
    )
    assert fetch("thing", "--overwrite").code == 0 and (root / HERE).read_bytes() == CONTENT


def test_a_failed_replacement_leaves_what_was_there(server, thing, fetch, root):
    (root / "checkpoints").mkdir()
    (root / HERE).write_bytes(b"mine")
    server.put("thing.bin", b"wrong as well")
    assert fetch("thing", "--overwrite").code == 1 and (root / HERE).read_bytes() == b"mine"


def test_a_fault_of_one_does_not_keep_the_others(server, table, fetch, root):
    table(
        gone={"url": f"{server.url}/gone", "path": "gone"},
        good={"url": server.put("good", b"good"), "path": "good"},
    )
    said = fetch("things")
    assert (
        said.code == 1
        and said.err.count("\n") == 1
        and "gone: " in said.err
        and (root / "good").read_bytes() == b"good"
    )


def test_by_hand(table, fetch):
    table(thing={"path": HERE, "by_hand": "ask the authors"})
    said = fetch("thing")
    assert said.code == 1 and f"{HERE} has to be fetched by hand: ask the authors" in said.err


def test_two_fetches_at_once(server, thing, fetch, root):
    (root / "checkpoints").mkdir()
    with FileLock(root / "checkpoints" / ".fetch.lock"):
        said = fetch("thing")
    assert said.code == 1 and "another fetch" in said.err and not server.requests


# --- sizes


def test_an_endless_answer_stops_at_the_stated_size(server, thing, fetch, root):
    thing(size=50_000)
    server.endless.add("thing.bin")
    said = fetch("thing")
    assert said.code == 1 and said.err.count("\n") == 1
    assert "more comes than the 50 kB that are stated: stopped at 51000 bytes" in said.err
    assert not (root / HERE).exists() and not leftovers(root)


def test_an_endless_answer_without_any_size_stops_too(server, thing, fetch, root, monkeypatch):
    monkeypatch.setattr(memorization_suite.download.transfer, "UNSTATED", 30_000)
    server.endless.add("thing.bin")
    said = fetch("thing")
    assert said.code == 1 and "does not end: 30 kB came, and no size is stated" in said.err
    assert not (root / HERE).exists() and not leftovers(root)


def test_a_file_that_is_announced_too_large_is_not_begun(server, thing, fetch, root):
    thing(size=len(CONTENT) // 2)
    said = fetch("thing")
    assert said.code == 1 and f"stopped at {len(CONTENT)} bytes" in said.err
    assert not leftovers(root)


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) - 50, 10 * len(CONTENT), 0])
def test_a_stated_size_may_be_rounded(thing, fetch, root, size):
    thing(size=size)
    assert fetch("thing").code == 0 and (root / HERE).read_bytes() == CONTENT


# --- further tries


class Often(dict):
    """Every answer breaks off after so many bytes."""

    def pop(self, path, default):
        return self.get(path, default)


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that were waited; no time passes."""
    waited = []
    monkeypatch.setattr(memorization_suite.download.transfer, "PAUSES", (1.0, 3.0, 9.0))
    monkeypatch.setattr(memorization_suite.download.transfer.time, "sleep", waited.append)
    return waited


def test_a_transfer_that_breaks_off_again_and_again_comes_to_its_end(
    server, thing, fetch, root, pauses
):
    server.break_after = Often({"thing.bin": 3500})
    assert fetch("thing").code == 0 and (root / HERE).read_bytes() == CONTENT
    assert pauses == [1.0, 3.0, 9.0]
    assert server.ranges == [None, "bytes=3000-", "bytes=6000-", "bytes=9000-"]


def test_a_transfer_that_never_ends_gives_up_and_keeps_what_came(server, thing, fetch, pauses):
    server.break_after = Often({"thing.bin": 1500})
    said = fetch("thing")
    assert said.code == 1 and pauses == [1.0, 3.0, 9.0]
    assert f"after 4000 of {len(CONTENT)} bytes. Rerun the command to resume." in said.err
    server.break_after = {}
    assert fetch("thing").code == 0 and server.ranges[-1] == "bytes=4000-"


def test_much_that_came_begins_the_pauses_anew(server, thing, fetch, root, pauses, monkeypatch):
    monkeypatch.setattr(memorization_suite.download.transfer, "PROGRESS", 1000)
    server.break_after = Often({"thing.bin": 1500})
    assert fetch("thing").code == 0 and set(pauses) == {1.0} and len(pauses) == 9


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again(server, thing, fetch, root, pauses, code):
    server.faults["thing.bin"] = [code, code]
    assert fetch("thing").code == 0 and pauses == [1.0, 3.0]


def test_what_is_not_there_is_not_asked_for_again(server, thing, fetch, pauses):
    server.files.clear()
    assert fetch("thing").code == 1 and not pauses


def test_further_tries_are_said(server, thing, root, capsys, pauses):
    server.faults["thing.bin"] = [503]
    assert main(["thing", "--root", str(root), "--assets", str(thing())]) == 0
    assert "503 Service Unavailable; trying again in 1 s" in capsys.readouterr().err
