"""Jain et al., CVPR 2025: dynamic transition point and opposite guidance, one image after the
other, told in loops. Imports nothing of the suite.
"""

import math

import torch

from tests.reference.han2025 import alpha_bars, both_halves, ddim_step, ddim_timesteps


def first_minimum(values: list[float]) -> int | None:
    """Index of the first value below both its neighbors."""
    for k in range(1, len(values) - 1):
        if values[k] < values[k - 1] and values[k] < values[k + 1]:
            return k
    return None


@torch.no_grad()
def dynamic(
    unet,
    x: torch.Tensor,
    empty: torch.Tensor,
    text: torch.Tensor,
    *,
    num_steps: int,
    guidance_scale: float,
    before: float,
    latest: int,
    v_model: bool = False,
    raw: bool = False,
) -> tuple[torch.Tensor, int]:
    """Final latents (1, 4, h, w) and the first guided step (-1: none) of one image.

    Scale `before` while no magnitude so far has two larger neighbors, and at the latest from step
    `latest` on the scale of guidance. v_model: the network predicts v. raw: as the script has it,
    the magnitude is of what the network gives, whatever that is.
    """
    bars = alpha_bars()
    magnitudes = []
    start = -1
    for i, t in enumerate(ddim_timesteps(num_steps)):
        uncond, cond = both_halves(unet, x, t, torch.cat([empty, text]))
        given = math.sqrt(float(((cond - uncond) ** 2).sum()))
        if v_model:
            a = math.sqrt(bars[t])
            s = math.sqrt(1 - bars[t])
            uncond = a * uncond + s * x
            cond = a * cond + s * x
        of_noise = math.sqrt(float(((cond - uncond) ** 2).sum()))
        magnitudes.append(given if raw else of_noise)
        if start < 0 and (first_minimum(magnitudes) is not None or i >= latest):
            start = i
        scale = before if start < 0 else guidance_scale
        x = ddim_step(x, uncond + scale * (cond - uncond), t, num_steps, bars)
    return x, start


@torch.no_grad()
def opposite_until(
    unet,
    x: torch.Tensor,
    empty: torch.Tensor,
    text: torch.Tensor,
    *,
    num_steps: int,
    guidance_scale: float,
    s: float,
    tau: float,
) -> torch.Tensor:
    """Final latents of one image: away from the prompt while t > tau."""
    bars = alpha_bars()
    for t in ddim_timesteps(num_steps):
        uncond, cond = both_halves(unet, x, t, torch.cat([empty, text]))
        scale = -s if t > tau else guidance_scale
        x = ddim_step(x, uncond + scale * (cond - uncond), t, num_steps, bars)
    return x


@torch.no_grad()
def cosine_changes(
    unet, x: torch.Tensor, empty: torch.Tensor, text: torch.Tensor, *, num_steps: int, s: float
) -> list[float]:
    """1 - cos(x_{i+1}, x_i) of one image over a whole pass of opposite guidance."""
    bars = alpha_bars()
    changes = []
    for t in ddim_timesteps(num_steps):
        uncond, cond = both_halves(unet, x, t, torch.cat([empty, text]))
        after = ddim_step(x, uncond - s * (cond - uncond), t, num_steps, bars)
        a = after.flatten().double()
        b = x.flatten().double()
        changes.append(1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)))
        x = after
    return changes
