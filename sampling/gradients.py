"""Gradients with respect to inputs only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from memorization_suite.lazy import torch

T = TypeVar("T")


@contextmanager
def frozen(module: torch.nn.Module) -> Iterator[None]:
    """Parameters take no part in gradients inside the block."""
    learning = [p for p in module.parameters() if p.requires_grad]
    for p in learning:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)


def in_parts(
    evaluate: Callable[[torch.Tensor], T], rows: torch.Tensor, size: int
) -> tuple[list[tuple[torch.Tensor, T]], int]:
    """`evaluate` over all rows, `size` at once, fewer when the memory does not suffice; each part
    with its result, and that number.
    """
    while True:
        try:
            return [(part, evaluate(part)) for part in rows.split(size)], size
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size = (size + 1) // 2
