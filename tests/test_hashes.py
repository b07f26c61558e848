"""Hashes of whole files: right after every kind of change, and a large file is read once."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memorization_suite.runs import hashes
from memorization_suite.runs.hashes import content_hash, content_hashes, hash_of_all

SIZE = hashes.LARGE + 12345


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The folder of the cache, which is empty, of a process that has seen no file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "SEEN", {})
    return tmp_path / "cache" / "memorization-suite" / "hashes"


@pytest.fixture
def settled(monkeypatch) -> None:
    """What was just written counts as written long ago."""
    monkeypatch.setattr(hashes, "SETTLED", 0)


@pytest.fixture
def large(tmp_path) -> Path:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(os.urandom(SIZE))
    return file


def expected(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def reading(monkeypatch) -> list[Path]:
    """The files that are read from now on."""
    read = []
    whole = hashes.read_hash

    def noted(path, stop):
        read.append(path)
        return whole(path, stop)

    monkeypatch.setattr(hashes, "read_hash", noted)
    return read


def test_it_is_the_sha256_of_the_whole_file(tmp_path, large):
    small = tmp_path / "config.json"
    small.write_bytes(b"{}")
    empty = tmp_path / "empty"
    empty.touch()
    files = [small, large, empty, large]
    assert content_hashes(files) == {file: expected(file) for file in files}
    assert content_hash(large) == expected(large)
    with pytest.raises(OSError, match="nowhere"):
        content_hash(tmp_path / "nowhere")


def test_a_large_file_is_read_once(large, cache, settled, monkeypatch):
    """Also by a process that begins later."""
    first = content_hash(large)
    read = reading(monkeypatch)
    assert content_hash(large) == first
    hashes.SEEN.clear()
    assert content_hash(large) == first and read == []
    (entry,) = cache.iterdir()
    assert json.loads(entry.read_text())["path"] == str(large)
    small = large.with_name("small")
    small.write_bytes(b"x")
    content_hash(small)
    content_hash(small)
    assert read == [small, small] and len(list(cache.iterdir())) == 1


def rewritten(file: Path) -> None:
    """Other content of the same size, in the same file, that was changed at the same time."""
    before = file.stat()
    with open(file, "r+b") as opened:
        opened.seek(SIZE - 1)
        opened.write(bytes([file.read_bytes()[-1] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(file: Path) -> None:
    """The same in another file that takes the name."""
    other = Path(shutil.copy2(file, file.with_name("other")))
    rewritten(other)
    os.replace(other, file)


def linked(file: Path) -> None:
    """The same behind a link."""
    other = file.with_name("behind")
    shutil.copy2(file, other)
    rewritten(other)
    file.unlink()
    file.symlink_to(other)


@pytest.mark.parametrize("known", ["in the process", "in the cache"])
@pytest.mark.parametrize("change", [rewritten, replaced, linked])
def test_every_change_is_seen(large, settled, change, known):
    before = content_hash(large)
    change(large)
    if known == "in the cache":
        hashes.SEEN.clear()
    assert content_hash(large) == expected(large) != before
    assert content_hash(large) == expected(large)


def test_what_changed_just_now_is_not_kept(large, cache):
    """It may change again within one tick of the clock."""
    assert content_hash(large) == expected(large)
    assert not hashes.SEEN and not cache.exists()


@pytest.mark.parametrize("place", ["/dev/null", "/proc/nowhere"])
def test_without_a_cache_it_is_known_in_the_process(large, settled, monkeypatch, place):
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    first = content_hash(large)
    read = reading(monkeypatch)
    assert content_hash(large) == first == expected(large) and read == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"path": 3}', '{"sha256": "zz"}', "\udcff", "half"]
)
def test_a_damaged_entry_is_no_entry(large, cache, settled, content):
    content_hash(large)
    (entry,) = cache.iterdir()
    text = entry.read_text()
    half = text[: len(text) // 2]
    entry.write_bytes(os.fsencode(half if content == "half" else content))
    hashes.SEEN.clear()
    assert content_hash(large) == expected(large)
    assert entry.read_text() == text


def test_the_entry_of_another_path_is_none(large, cache, settled):
    content_hash(large)
    (entry,) = cache.iterdir()
    stored = json.loads(entry.read_text())
    entry.write_text(json.dumps(stored | {"path": "/elsewhere", "sha256": 64 * "0"}))
    hashes.SEEN.clear()
    assert content_hash(large) == expected(large)


def test_a_file_that_changes_while_it_is_read_is_told(large, monkeypatch):
    states = iter([(1, 2, 3, 4), (1, 2, 5, 4)])
    monkeypatch.setattr(hashes.State, "of", lambda file: hashes.State(*next(states)))
    with pytest.raises(OSError, match="changes while it is read"):
        hashes.read_hash(large, hashes.threading.Event())


def test_what_takes_long_is_said_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hashes, "PATIENCE", 0)
    monkeypatch.setattr(hashes, "BLOCK", 16)
    files = [tmp_path / "model" / name for name in ("a.bin", "b.bin")]
    files[0].parent.mkdir()
    for file in files:
        file.write_bytes(os.urandom(SIZE))
    assert content_hashes(files) == {file: expected(file) for file in files}
    error = capsys.readouterr().err
    assert error.startswith(f"reading 0.0 GB of {tmp_path}/model to know it by its content\n")
    assert error.count("\n") == 1


def test_a_fault_ends_the_other_reading(large, tmp_path, monkeypatch):
    monkeypatch.setattr(hashes, "kept_hash", lambda path: None)
    locked = tmp_path / "folder"
    locked.mkdir()
    with pytest.raises(OSError, match="folder"):
        content_hashes([large, locked])


def test_several_processes_fill_the_cache_at_once(large, cache, tmp_path):
    script = (
        "import sys; from pathlib import Path; from memorization_suite.runs import hashes;"
        "hashes.SETTLED = 0; print(hashes.content_hash(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", script, str(large)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = {process.communicate()[0].strip() for process in started}
    assert told == {expected(large)}
    assert [path.suffix for path in cache.iterdir()] == [".json"]


def test_one_hash_over_several():
    assert hash_of_all({"a": "1", "b": "2"}) != hash_of_all({"a": "2", "b": "1"})
    assert hash_of_all({"a": "1"}) != hash_of_all({"b": "1"})
