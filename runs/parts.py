"""Files that are being written: their names tell whose they are, so that those of a process that
was killed can be told from those of one that lives.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from functools import cache
from pathlib import Path

from memorization_suite.runs.processes import began, this_machine

# Bytes of a name that every file system takes; the path's own name may have as many.
NAME_MAX = 255
# The machine that `this_machine` means, and the process.
NAME = re.compile(r"\..+\.([0-9a-f]{8})\.(\d+)\.part")


def part_of(path: Path) -> Path:
    """Where a process writes what will be at `path`, in the same folder."""
    name = path.name.removeprefix(".")
    whose = f"{socket.gethostname()}.{machine_tag()}.{os.getpid()}.part"
    if len(os.fsencode(f".{name}.{whose}")) > NAME_MAX:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}.{whose}")


@cache
def machine_tag() -> str:
    """The machine since it was booted, in eight letters."""
    return hashlib.sha256(this_machine().encode()).hexdigest()[:8]


def writer_lives(name: str) -> bool | None:
    """Whether the process that wrote a part is at work; None where that cannot be known, as of one
    on another machine. name: of the file. A process that has its number now passes for it.
    """
    match = NAME.fullmatch(name)
    if not match or match[1] != machine_tag():
        return None
    return began(int(match[2])) >= 0
