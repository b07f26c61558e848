"""Passes through the network that become smaller when memory does not suffice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from memorization_suite.runs.lazy import torch

T = TypeVar("T")


def items_in_pass(items: int, rows: int, limit: int | None) -> int:
    """How many of the items go through the network together, each with so many rows.

    The passes are as few as the limit allows, and of one size but for the last, which may be
    smaller. limit: rows in a pass; None: no limit. A pass has at least one item.
    """
    if limit is None:
        return items
    most = max(1, limit // rows)
    if items <= most:
        return items
    passes = math.ceil(items / most)
    return math.ceil(items / passes)


class Passes:
    """Passes of one kind, with or without gradients, for the images of a batch.

    evaluations: counts NFE, (n,); what a failed pass counted is taken back.
    """

    def __init__(self, evaluations: torch.Tensor):
        self.evaluations = evaluations
        # Rows in a pass since memory did not suffice; None: as planned.
        self.rows: int | None = None
        # The same for each image that was in a smaller pass than planned, (n,); else nan.
        self.used = torch.full(evaluations.shape, torch.nan)

    def run(
        self,
        function: Callable[[torch.Tensor], T],
        items: torch.Tensor,
        *,
        planned: int,
        rows: int,
        images_of: Callable[[torch.Tensor], torch.Tensor],
    ) -> list[T]:
        """What the function gives for each part of the items.

        planned: items in a part. rows: of an item. images_of: their images in the batch. Raises
        torch.OutOfMemoryError when not even one item fits.
        """
        results = []
        while len(items):
            size = planned if self.rows is None else min(planned, max(1, self.rows // rows))
            part = items[:size]
            before = self.evaluations.clone()
            try:
                results.append(function(part))
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
            else:
                if self.rows is not None and size < planned:
                    self.used[images_of(part)] = size * rows
                items = items[size:]
                continue
            # Not where the error is caught: it holds what the failed pass had allocated.
            self.evaluations.copy_(before)
            self.rows = (len(part) + 1) // 2 * rows
            torch.cuda.empty_cache()
        return results
