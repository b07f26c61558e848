"""What the user must hear of: a line on stderr, once in a job.

A job is a block of `listening`, which every command is, and every function that makes results. A
block inside another belongs to it, so that a sweep says once what is true of all its runs.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from memorization_suite.runs.processes import is_first

NUMBER = re.compile(r"\d+")
# In a folder of processes that work together.
FILE = "notices.txt"


class Notices:
    """The lines of the job that runs."""

    def __init__(self) -> None:
        # Background threads say things, too.
        self.lock = threading.RLock()
        # Blocks that are open, one inside the other.
        self.depth = 0
        self.said: set[str] = set()
        # Where the lines are kept, too: whoever watches this process reads them there.
        self.file: Path | None = None
        # Whether what is said now is not for the user.
        self.is_trial = False


JOB = Notices()


@contextmanager
def listening(file: Path | None = None) -> Iterator[None]:
    """A job. file: gets its lines, too, each at its end."""
    with JOB.lock:
        if JOB.depth == 0:
            JOB.said.clear()
            JOB.file = file
        JOB.depth += 1
    try:
        yield
    finally:
        with JOB.lock:
            JOB.depth -= 1
            if JOB.depth == 0:
                JOB.file = None


@contextmanager
def trial() -> Iterator[None]:
    """A block that only tries something: nothing is said in it."""
    before = JOB.is_trial
    JOB.is_trial = True
    try:
        yield
    finally:
        JOB.is_trial = before


def say(line: str, *, alike: str = "") -> None:
    """The line, on stderr; not again in this job, and by one of the processes that were launched
    together. alike: what tells two lines apart, in the place of all of it.
    """
    if JOB.is_trial or not is_first():
        return
    kind = alike or line
    with JOB.lock:
        if JOB.depth and kind in JOB.said:
            return
        JOB.said.add(kind)
        print(line, file=sys.stderr, flush=True)
        if JOB.file is not None:
            keep(line, JOB.file)


def without_numbers(text: str) -> str:
    """What two lines have in common that differ in numbers alone."""
    return NUMBER.sub("0", text)


def keep(line: str, file: Path) -> None:
    """Adds the line to a file that several processes add to; one write is not torn apart."""
    with suppress(OSError):  # it is on stderr
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, f"{line}\n".encode())
        finally:
            os.close(handle)


class Relay:
    """Says what other processes put into a file, from when this is made."""

    def __init__(self, file: Path):
        self.file = file
        # How much of it was read, in bytes.
        self.read = file.stat().st_size if file.exists() else 0

    def say(self) -> None:
        """The lines that are new."""
        try:
            with open(self.file, "rb") as opened:
                opened.seek(self.read)
                fresh = opened.read()
        except FileNotFoundError:
            return
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self.read += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            say(line)
