"""--check: what it says of each state, and that it changes nothing."""

import pytest

from memorization_suite.download.assets import RECORD
from tests.download.conftest import sha256


@pytest.fixture
def things(server, table, root):
    """Five assets, one in each state."""

    def entry(name, **more):
        return {"url": server.put(name, name.encode()), "path": f"checkpoints/{name}", **more}

    table(
        whole=entry("whole", sha256=sha256(b"whole")),
        there=entry("there"),
        missing=entry("missing"),
        broken=entry("broken", sha256=sha256(b"x")),
        part=entry("part"),
    )
    (root / "checkpoints").mkdir()
    for name in ("whole", "there", "broken"):
        (root / "checkpoints" / name).write_bytes(name.encode())
    (root / "checkpoints" / ".part.incoming").mkdir()
    (root / "checkpoints" / ".part.incoming" / "came").write_bytes(b"p" * 1000)
    return server


@pytest.mark.parametrize(
    ("name", "state", "why", "code"),
    [
        ("whole", "whole", "checksum: known", 0),
        ("there", "there", "checksum: not known yet", 0),
        ("missing", "missing", "python download/fetch.py missing", 1),
        ("part", "missing", "1 kB of it are here", 1),
        ("broken", "broken", "the sha256 of broken is", 1),
    ],
)
def test_states(things, fetch, name, state, why, code):
    said = fetch("--check", name)
    assert (
        said.code == code
        and said.out.split()[:3] == [name, state, f"checkpoints/{name}"]
        and why in said.out
        and not said.err
    )


def test_all_by_default_and_nothing_is_changed(things, fetch, root):
    before = sorted(root.rglob("*"))
    said = fetch("--check")
    assert said.code == 1 and len(said.out.splitlines()) == 5
    assert sorted(root.rglob("*")) == before and not things.requests


def test_first_seen(things, fetch):
    assert fetch("there").code == 0
    assert (
        "checksum: first seen 2" in fetch("--check", "there").out
        and "first seen 2" in fetch("--list", "there").out
    )


def test_a_folder_in_the_place_of_a_file_is_broken(things, fetch, root):
    (root / "checkpoints" / "missing").mkdir()
    assert fetch("--check", "missing").out.split()[1] == "broken"


@pytest.mark.parametrize("text", ["{", "[]", '{"there": 1}', '{"there": {"files": {}}}'])
@pytest.mark.parametrize("argv", [("--check",), ("--list",), ("whole", "there")])
def test_a_damaged_record_is_said_to_be_that(things, fetch, root, text, argv):
    (root / RECORD).write_text(text)
    said = fetch(*argv)
    assert (
        said.code == 2
        and "the record of checksums, cannot be read" in said.err
        and said.err.count("\n") == 1
    )
