"""Processes: those that `accelerate launch` started together, or this one; and which lives."""

from __future__ import annotations

import os
import socket
import sys
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from memorization_suite.runs.lazy import psutil

# What launchers say how many processes there are.
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# And which one this is.
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


class Alone:
    """One process, with what is used of accelerate's PartialState."""

    num_processes = 1
    process_index = 0
    is_main_process = True

    def wait_for_everyone(self) -> None:
        """There is nobody to wait for."""


def is_first() -> bool:
    """Whether this is the one of several processes that speaks for all."""
    return all(int(os.environ.get(name) or 0) == 0 for name in RANKS)


def launched() -> bool:
    """Whether this is one of several processes."""
    return any(int(os.environ.get(name) or 1) > 1 for name in SIZES)


def processes(*, cpu: bool) -> Any:
    """This process among those that were launched; accelerate is imported only for several.

    cpu: whether they work on the CPU.
    """
    if not launched():
        return Alone()
    from accelerate import PartialState

    # Per-sample work is uneven, so processes wait long for each other.
    return PartialState(cpu=cpu, timeout=timedelta(days=7))


def of_main(state: Any, value: Any) -> Any:
    """The main process's value, for all of them: what each finds on a shared disk may differ."""
    if state.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


# --- who lives ---


@cache
def this_machine() -> str:
    """The machine since it was booted, and the namespace of its process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return socket.gethostname()


def began(pid: int) -> float:
    """When a process of this user began, in ticks since boot or in seconds; -1: it has ended."""
    if sys.platform == "linux":
        try:
            words = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2]
        except OSError:
            return -1.0
        state, *rest = words.split()
        return -1.0 if state in "ZX" else float(rest[18])
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return -1.0
