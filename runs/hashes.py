"""Hashes of whole files, each computed once.

The hash of a large file is kept in a cache of the user, beside what the file system says of the
file: its size, its times and its number. While that stays, the file is not read again. A file that
is being written may change twice within one tick of the file system's clock, so what changed just
now is read each time. Small files always are: that is as quick as to look into the cache.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO

from memorization_suite.runs.files import write_json
from memorization_suite.runs.parse import json_of

# Bytes from which a file's hash is kept.
LARGE = 2**22
# Seconds without a change after which a file counts as written.
SETTLED = 2.0
# Seconds of reading after which it is said.
PATIENCE = 2.0
# Files that are read at the same time, and bytes of each at once.
THREADS = 4
BLOCK = 2**20


@dataclass(frozen=True)
class State:
    """What the file system says of a file. Nobody can set `changed`, the time of the last change of
    its content or its name.
    """

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, file: BinaryIO) -> State:
        """Of an open file: to open it makes a network's file system ask for what is new."""
        facts = os.fstat(file.fileno())
        return cls(facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)

    def is_settled(self) -> bool:
        """Whether nothing changed for a while."""
        return time.time_ns() - self.changed > SETTLED * 10**9


# Path -> (state, hash) of the large files that this process has seen.
SEEN: dict[str, tuple[State, str]] = {}


def content_hash(path: Path) -> str:
    """The sha256 of a whole file, 64 hexadecimal digits. Raises OSError."""
    return content_hashes([path])[path]


def content_hashes(paths: Iterable[Path]) -> dict[Path, str]:
    """The sha256 of each file. Raises OSError, also for one that changes while it is read."""
    found: dict[Path, str | None] = {path: kept_hash(path) for path in paths}
    fresh = [path for path, known in found.items() if known is None]
    read = read_hashes(fresh)
    return {path: known or read[path] for path, known in found.items()}


def hash_of_all(hashes: Mapping[str, str]) -> str:
    """One hash over the names and hashes of several files, in their order."""
    digest = hashlib.sha256()
    for name, sha256 in hashes.items():
        digest.update(f"{name}\0{sha256}\n".encode())
    return digest.hexdigest()


# --- reading ---


class Stopped(OSError):
    """The hash is not wanted any more."""


def read_hashes(paths: list[Path]) -> dict[Path, str]:
    """The hashes of files that are read now, several at a time, the largest first."""
    sizes = {path: path.stat().st_size for path in paths}
    total = sum(sizes.values())
    stop = threading.Event()
    if total < LARGE:
        return {path: read_hash(path, stop) for path in paths}
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            jobs: dict[Path, Future[str]] = {}
            for path in sorted(paths, key=lambda path: -sizes[path]):
                jobs[path] = pool.submit(read_hash, path, stop)
            _, waiting = wait(jobs.values(), PATIENCE)
            if waiting:
                say_reading(paths, total)
            return {path: job.result() for path, job in jobs.items()}
        finally:
            stop.set()  # after a fault or Ctrl-C the others end at once


def say_reading(paths: list[Path], total: int) -> None:
    """Says on stderr what takes so long."""
    where = os.path.commonpath([path.absolute() for path in paths])
    print(
        f"reading {total / 10**9:.1f} GB of {where} to know it by its content",
        file=sys.stderr,
        flush=True,
    )


def read_hash(path: Path, stop: threading.Event) -> str:
    """The hash of a file that is read now, and kept. Raises OSError."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(BLOCK))
    with open(path, "rb", buffering=0) as file:
        before = State.of(file)
        settled = before.is_settled()
        while count := file.readinto(block):
            if stop.is_set():
                raise Stopped(f"{path} was not read to its end")
            digest.update(block[:count])
        if State.of(file) != before:
            raise OSError(f"{path} changes while it is read: wait until it is written")
    if settled and before.size >= LARGE:
        keep(path, before, digest.hexdigest())
    return digest.hexdigest()


# --- the cache ---


def kept_hash(path: Path) -> str | None:
    """The hash of a large file that is as it was; None where it has to be read. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        state = State.of(file)
    if state.size < LARGE:
        return None
    name = os.path.realpath(path)
    known = SEEN.get(name) or entry_of(name)
    if known is None or known[0] != state:
        return None
    SEEN[name] = known
    return known[1]


def keep(path: Path, state: State, sha256: str) -> None:
    """Notes a hash, for this process and, where the cache can be written, for later ones."""
    name = os.path.realpath(path)
    SEEN[name] = state, sha256
    entry = entry_file(name)
    if entry is None:
        return
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        write_json(entry, {"path": name, "state": astuple(state), "sha256": sha256})


def entry_of(name: str) -> tuple[State, str] | None:
    """What the cache says of a path; None for nothing, and for what is no entry of it."""
    entry = entry_file(name)
    try:
        stored = json_of(entry.read_text(encoding="utf-8")) if entry else {}
        sha256 = str(stored["sha256"])
        if stored["path"] != name or len(bytes.fromhex(sha256)) != 32:
            return None
        return State(*stored["state"]), sha256
    except (OSError, ValueError, TypeError, KeyError):
        return None


def entry_file(name: str) -> Path | None:
    """Where the cache has what it knows of a path; None where there can be no cache."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    try:
        root = Path(folder) if os.path.isabs(folder) else Path.home() / ".cache"
    except RuntimeError:  # the user has no home
        return None
    short = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return root / "memorization-suite" / "hashes" / f"{short}.json"
