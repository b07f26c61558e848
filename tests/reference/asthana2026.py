"""Asthana and Belagiannis, ICLR 2026: the score on pure noise and an embedding that lowers it, told
in loops. Imports nothing of the suite.
"""

import math

import torch

from tests.reference.han2025 import alpha_bars, both_halves, ddim_step, ddim_timesteps
from tests.reference.wen2024 import PlainAdamW


def mean_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Number by number: cosine over the channels at each pixel of one image, averaged. a, b:
    (1, c, h, w).
    """
    _, channels, height, width = a.shape
    total = 0.0
    for i in range(height):
        for j in range(width):
            dot = sum(float(a[0, c, i, j]) * float(b[0, c, i, j]) for c in range(channels))
            lengths = [
                math.sqrt(sum(float(v[0, c, i, j]) ** 2 for c in range(channels))) for v in (a, b)
            ]
            total += dot / (lengths[0] * lengths[1])
    return total / (height * width)


def score(
    unet,
    x: torch.Tensor,
    first: int,
    late: int,
    empty: torch.Tensor,
    embedding: torch.Tensor,
    gamma1: float,
    gamma2: float,
) -> torch.Tensor:
    """gamma1 ||guidance at the first timestep|| + gamma2 mean cosine of unconditional noise and
    guidance at the late one, same x, of one image.
    """
    pair = torch.cat([empty, embedding])
    uncond, text = both_halves(unet, x, first, pair)
    length = torch.sqrt(((text - uncond) ** 2).sum())
    uncond, text = both_halves(unet, x, late, pair)
    guidance = text - uncond
    cosines = (uncond * guidance).sum(1) / (
        torch.sqrt((uncond**2).sum(1)) * torch.sqrt((guidance**2).sum(1))
    )
    return gamma1 * length + gamma2 * cosines.mean()


def adjusted_embedding(
    unet,
    x: torch.Tensor,
    first: int,
    late: int,
    empty: torch.Tensor,
    embedding: torch.Tensor,
    *,
    gamma1: float,
    gamma2: float,
    lr: float,
    target: float,
    optim_iters: int,
) -> tuple[torch.Tensor, list[float]]:
    """The best embedding of one image that AdamW on the score found, the begin token's row left
    alone, and all scores, of the start first.
    """
    current = embedding.clone()
    optimizer = PlainAdamW(lr)
    scores = []
    found = []
    for update in range(optim_iters + 1):
        leaf = current.clone().requires_grad_(True)
        value = score(unet, x, first, late, empty, leaf, gamma1, gamma2)
        scores.append(float(value.detach()))
        found.append(current)
        if scores[-1] <= target or update == optim_iters:
            break
        (gradient,) = torch.autograd.grad(value, leaf)
        current = optimizer.step(current, gradient)
        current[:, 0] = embedding[:, 0]
    return found[scores.index(min(scores))], scores


def length(values: torch.Tensor) -> float:
    """L2 norm, number by number."""
    return math.sqrt(sum(float(value) ** 2 for value in values.flatten()))


@torch.no_grad()
def official_score(
    unet,
    x: torch.Tensor,
    empty: torch.Tensor,
    text: torch.Tensor,
    *,
    num_steps: int,
    watched: int,
    guidance_scale: float,
    norm_weight: float,
    cosine_weight: float,
    mode: str = "x,c|x",
    second_branch: bool,
    v_model: bool,
) -> float:
    """The score of one image, (1, 4, h, w), as the released code makes it: the mean over the first
    `watched` latents of the guided trajectory.

    second_branch: what the code does where the version is not 1. Then the norm is of differences of
    (alpha out - x) / sigma^2, whatever the network gives; the cosine is of what it gives, as ever.
    """
    bars = alpha_bars()
    stacked = torch.cat([empty, text])
    late = ddim_timesteps(num_steps)[-3]
    norms = []
    cosines = []
    for t in ddim_timesteps(num_steps)[:watched]:
        a = math.sqrt(bars[t])
        s = math.sqrt(1 - bars[t])
        uncond, cond = both_halves(unet, x, t, stacked)
        if second_branch:
            norms.append(length((a * cond - x) / s**2 - (a * uncond - x) / s**2))
        else:
            norms.append(length(cond - uncond))

        late_uncond, late_cond = both_halves(unet, x, late, stacked)
        compared = {
            "x,c|x": (late_uncond, late_cond - late_uncond),
            "x,x|c": (late_uncond, late_cond),
            "x|c,c|x": (late_cond, late_cond - late_uncond),
        }
        cosines.append(mean_cosine(*compared[mode]))

        given = uncond + guidance_scale * (cond - uncond)
        noise = a * given + s * x if v_model else given
        x = ddim_step(x, noise, t, num_steps, bars)
    return (norm_weight * sum(norms) + cosine_weight * sum(cosines)) / watched
