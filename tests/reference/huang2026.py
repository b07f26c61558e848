"""Huang et al., KDD 2026, as read from its description, one image after the other, told in loops.
Imports nothing of the suite.

A step is outside when the norm of its update is more than gamma standard deviations from the
ordinary mean. Then the estimate of the clean latent gets its ordinary norm and the step is taken
anew; from `severe` standard deviations on, the update's norm and then the new latent's are put into
their regions as well. DDIM only: its latents are of unit variance.
"""

import math

import torch

from tests.reference.han2025 import alpha_bars, both_halves, ddim_step, ddim_timesteps


def norm(x: torch.Tensor) -> float:
    """L2 norm over everything."""
    return math.sqrt(float((x.double() ** 2).sum()))


def into(value: float, low: float, high: float) -> float:
    """The nearest number in [low, high]."""
    return min(max(value, low), high)


@torch.no_grad()
def norms(
    unet, x: torch.Tensor, pair: torch.Tensor, *, num_steps: int, guidance_scale: float
) -> dict[str, list[float]]:
    """Norms of every step of one image's plain run: of the update, of the latent after it, and of
    the clean estimate.
    """
    bars = alpha_bars()
    found = {"update": [], "latent": [], "clean": []}
    for t in ddim_timesteps(num_steps):
        uncond, text = both_halves(unet, x, t, pair)
        e = uncond + guidance_scale * (text - uncond)
        after = ddim_step(x, e, t, num_steps, bars)
        found["update"].append(norm(after - x))
        found["latent"].append(norm(after))
        found["clean"].append(norm((x - math.sqrt(1 - bars[t]) * e) / math.sqrt(bars[t])))
        x = after
    return found


@torch.no_grad()
def corrected(
    unet,
    x: torch.Tensor,
    pair: torch.Tensor,
    *,
    num_steps: int,
    guidance_scale: float,
    mean: dict[str, float],
    sd: dict[str, float],
    gamma: float,
    severe: float,
) -> tuple[torch.Tensor, list[float]]:
    """Final latents (1, 4, h, w), and how many standard deviations each step's update would have
    been off without its correction.

    mean, sd: of each norm, here the same for all steps.
    """
    bars = alpha_bars()
    off = []
    for t in ddim_timesteps(num_steps):
        uncond, text = both_halves(unet, x, t, pair)
        e = uncond + guidance_scale * (text - uncond)
        after = ddim_step(x, e, t, num_steps, bars)
        off.append(abs(norm(after - x) - mean["update"]) / sd["update"])
        if off[-1] > gamma:
            a = math.sqrt(bars[t])
            s = math.sqrt(1 - bars[t])
            clean = (x - s * e) / a
            clean = clean * (mean["clean"] / norm(clean))
            after = ddim_step(x, (x - a * clean) / s, t, num_steps, bars)
        if off[-1] > severe:
            update = after - x
            low = mean["update"] - gamma * sd["update"]
            high = mean["update"] + gamma * sd["update"]
            after = x + update * (into(norm(update), low, high) / norm(update))
            low = mean["latent"] - gamma * sd["latent"]
            high = mean["latent"] + gamma * sd["latent"]
            after = after * (into(norm(after), low, high) / norm(after))
        x = after
    return x, off
