"""Adam under one cycle of the learning rate: how the VAE and the text encoder are trained."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

from memorization_suite.runs.lazy import nn, torch
from memorization_suite.tiny import checkpoints

log = logging.getLogger("tiny.train")
CHECKPOINT_EVERY = 200


def fit(
    name: str,
    module: nn.Module,
    loss_at: Callable[[int], torch.Tensor],
    *,
    settings: dict,
    warm_up: float,
    clip: float = math.inf,
    checkpoint: Path | None = None,
) -> None:
    """Trains the module in place, from the checkpoint if there is one.

    loss_at: step -> loss. settings: table of config.toml with `lr` and `steps`. warm_up: share of
    the steps in which the rate rises. clip: largest norm of the gradient.
    """
    optimizer = torch.optim.AdamW(
        module.parameters(), settings["lr"], betas=(0.9, 0.99), fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["lr"], settings["steps"] + 1, pct_start=warm_up
    )
    parts = {"module": module, "optimizer": optimizer, "schedule": schedule}
    first = checkpoints.resume(checkpoint, parts) if checkpoint else 0
    start = time.time()
    for step in range(first, settings["steps"]):
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            log.info("%s step %d loss %.4f %.0f s", name, step, loss.item(), time.time() - start)
        if checkpoint and (step + 1) % CHECKPOINT_EVERY == 0:
            checkpoints.save(checkpoint, parts, step + 1)
