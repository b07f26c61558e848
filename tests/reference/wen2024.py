"""Wen et al., ICLR 2024, prompt-embedding adjustment, as its official code runs it (SD 1.4, DDIM),
told in loops. Imports nothing of the suite.

What counts as official here: one embedding for all images of a prompt; both halves in every UNet
call; the loss is the joint norm over the images; it is checked (<=) before an update; AdamW with
decay 0.01; the begin token's gradient is zeroed, its decay is not; the last embedding is not
evaluated.
"""

import torch

from tests.reference.han2025 import alpha_bars, both_halves, ddim_step, ddim_timesteps


class PlainAdamW:
    """AdamW of one tensor, written out: decay, first and second moment, bias correction."""

    def __init__(self, lr: float, weight_decay: float = 0.01):
        self.lr = lr
        self.weight_decay = weight_decay
        self.updates = 0
        self.mean = 0.0
        self.square = 0.0

    def step(self, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        self.updates += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean = self.mean / (1 - 0.9**self.updates)
        square = self.square / (1 - 0.999**self.updates)
        return value * (1 - self.lr * self.weight_decay) - self.lr * mean / (square.sqrt() + 1e-8)


def official_embedding(
    unet,
    x: torch.Tensor,
    t: int,
    empty: torch.Tensor,
    embedding: torch.Tensor,
    *,
    lr: float,
    target_loss: float,
    optim_iters: int,
    mask: torch.Tensor | None = None,
    decay_begin: bool = True,
) -> tuple[torch.Tensor, list[float]]:
    """Adjusted embedding (1, 77, dim) of the images x of one prompt, and the loss before each
    update (and the last, if it met the target).

    mask: (n, 1, h, w), for the masked loss of Chen et al.; its mean is over all images.
    decay_begin=False: the begin token's row stays.
    """
    current = embedding.clone()
    optimizer = PlainAdamW(lr)
    losses = []
    for _ in range(optim_iters):
        leaf = current.clone().requires_grad_(True)
        uncond, text = both_halves(unet, x, t, torch.cat([empty] * len(x) + [leaf] * len(x)))
        difference = text - uncond
        loss = (
            torch.norm(difference)
            if mask is None
            else torch.norm(difference * mask) / torch.mean(mask)
        )
        losses.append(float(loss.detach()))
        if losses[-1] <= target_loss:
            break
        (gradient,) = torch.autograd.grad(loss, leaf)
        gradient[:, 0] = gradient[:, 0] * 0
        current = optimizer.step(current, gradient)
        if not decay_begin:
            current[:, 0] = embedding[:, 0]
    return current, losses


@torch.no_grad()
def sample(
    unet,
    x: torch.Tensor,
    empty: torch.Tensor,
    embedding: torch.Tensor,
    *,
    num_steps: int,
    guidance_scale: float,
) -> torch.Tensor:
    """Plain guidance with this embedding from x, all steps."""
    bars = alpha_bars()
    for t in ddim_timesteps(num_steps):
        uncond, text = both_halves(unet, x, t, torch.cat([empty] * len(x) + [embedding] * len(x)))
        x = ddim_step(x, uncond + guidance_scale * (text - uncond), t, num_steps, bars)
    return x
