"""Processes that train side by side, each with a part of every batch; torchrun starts them.

On a CPU, cores are busier with rows of their own than with shares of every small operation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from memorization_suite.runs.lazy import Lazy, torch

distributed = Lazy("torch.distributed")

# How long the others may wait for what the first does alone.
PATIENCE = timedelta(days=2)


def started() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one model."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls) -> Ranks:
        """Meets the others, where torchrun started several."""
        ranks = cls(int(os.environ.get("RANK", 0)), started())
        if ranks.count > 1:
            distributed.init_process_group("gloo", timeout=PATIENCE)
            torch.set_num_threads(os.cpu_count() or 1)  # torchrun gives one
        return ranks

    def leave(self) -> None:
        """Ends together: what ends while others still talk to it may end them."""
        if self.count > 1:
            self.wait()
            distributed.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this one writes, and speaks for all."""
        return self.rank == 0

    def share_cores(self) -> None:
        """From here on all work at once."""
        if self.count > 1:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.count))

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first goes through it alone; then the others, who find what it wrote."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def mean(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The means over all processes."""
        if self.count == 1:
            return list(tensors)
        together = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(together)
        parts = (together / self.count).split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors)]


# Of a training that torchrun did not start.
ALONE = Ranks()
