"""Adam under one cycle of the learning rate: how the VAE and the text encoder are trained."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable

from memorization_suite.runs.lazy import nn, torch

log = logging.getLogger("tiny.train")


def fit(
    name: str,
    parameters: Iterable[nn.Parameter],
    loss_at: Callable[[int], torch.Tensor],
    *,
    settings: dict,
    warm_up: float,
    clip: float = math.inf,
) -> None:
    """Trains in place.

    loss_at: step -> loss. settings: table of config.toml with `lr` and `steps`. warm_up: share of
    the steps in which the rate rises. clip: largest norm of the gradient.
    """
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, settings["lr"], betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["lr"], settings["steps"] + 1, pct_start=warm_up
    )
    start = time.time()
    for step in range(settings["steps"]):
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            log.info("%s step %d loss %.4f %.0f s", name, step, loss.item(), time.time() - start)
