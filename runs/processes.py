"""The processes that `accelerate launch` started together, or this one alone."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

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
