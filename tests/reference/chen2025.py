"""Chen et al., ICLR 2025 (Bright Ending) and CVPR 2025 (PRSS), as their official code runs them
(SD 1.4, DDIM), told in loops.

Imports nothing of the suite. What counts as official here: the mask is the end token's attention at
the last step, conditional half, mean over the heads and over the down path's finest
cross-attentions, not made binary; the search takes the first caption that is good enough, else the
best; re-anchoring computes the original prompt's prediction at every step; one image at a time
(norms over all images of a prompt are norms of one).
"""

import math

import torch

from tests.reference.han2025 import alpha_bars, both_halves, ddim_step, ddim_timesteps


@torch.no_grad()
def end_token_mask(
    unet,
    x: torch.Tensor,
    t: int,
    embedding: torch.Tensor,
    end: int,
    layers: list[str],
    size: tuple[int, int],
) -> torch.Tensor:
    """Attention of each query to the token `end` at (x, t), (1, 1, *size), of one image. layers:
    names of the cross-attentions that are averaged.
    """
    seen = {}

    def keep(name):
        def hook(module, args, kwargs):
            queries = module.to_q(args[0])[0]
            keys = module.to_k(kwargs["encoder_hidden_states"])[0]
            width = queries.shape[1] // module.heads
            total = torch.zeros(len(queries))
            for head in range(module.heads):
                part = slice(head * width, (head + 1) * width)
                logits = queries[:, part] @ keys[:, part].T / math.sqrt(width)
                total += torch.exp(logits[:, end]) / torch.exp(logits).sum(1)
            seen[name] = total / module.heads

        return hook

    handles = [
        unet.get_submodule(name).register_forward_pre_hook(keep(name), with_kwargs=True)
        for name in layers
    ]
    unet(x, t, encoder_hidden_states=embedding)
    for handle in handles:
        handle.remove()
    return (sum(seen.values()) / len(layers)).reshape(1, 1, *size)


@torch.no_grad()
def first_run_mask(
    unet,
    x: torch.Tensor,
    empty: torch.Tensor,
    embedding: torch.Tensor,
    end: int,
    layers: list[str],
    size: tuple[int, int],
    *,
    num_steps: int,
    guidance_scale: float,
) -> torch.Tensor:
    """The mask of one image: plain guidance until the last step, whose attention is looked at."""
    bars = alpha_bars()
    timesteps = ddim_timesteps(num_steps)
    for t in timesteps[:-1]:
        uncond, text = both_halves(unet, x, t, torch.cat([empty, embedding]))
        x = ddim_step(x, uncond + guidance_scale * (text - uncond), t, num_steps, bars)
    return end_token_mask(unet, x, timesteps[-1], embedding, end, layers, size)


def magnitude(difference: torch.Tensor, mask: torch.Tensor | None) -> float:
    """Norm of one image's conditional noise, or its masked norm over the mask's mean."""
    if mask is None:
        return float(torch.norm(difference))
    return float(torch.norm(difference * mask) / torch.mean(mask))


@torch.no_grad()
def semantic_search(
    unet,
    x: torch.Tensor,
    t: int,
    empty: torch.Tensor,
    captions: list[torch.Tensor],
    target: float,
    mask: torch.Tensor | None = None,
) -> tuple[int, bool, list[float]]:
    """Which caption (0: the original) is taken for one image, whether one was too large before, and
    the magnitudes that were measured.
    """
    trigger = False
    measured = []
    for j in range(len(captions)):
        uncond, text = both_halves(unet, x, t, torch.cat([empty, captions[j]]))
        measured.append(magnitude(text - uncond, mask))
        if measured[j] <= target:
            return j, trigger, measured
        trigger = True
    return measured.index(min(measured)), trigger, measured


@torch.no_grad()
def re_anchored(
    unet,
    x: torch.Tensor,
    empty: torch.Tensor,
    found: torch.Tensor,
    original: torch.Tensor,
    trigger: bool,
    *,
    low: float,
    high: float,
    num_steps: int,
    guidance_scale: float,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, int]:
    """Last latent of one image, and in how many steps guidance was re-anchored."""
    bars = alpha_bars()
    steps = 0
    s = guidance_scale
    for t in ddim_timesteps(num_steps):
        uncond, modified = both_halves(unet, x, t, torch.cat([empty, found]))
        _, anchor = both_halves(unet, x, t, torch.cat([empty, original]))
        mag = magnitude(modified - uncond, mask)
        if trigger and mag > low:
            kappa = (s * low - high) / (s - 1)
            s_pr = min(s * (mag - kappa) / (high - kappa), s)
            e = anchor + s_pr * (modified - anchor) + (s - s_pr) * (modified - uncond)
            steps += 1
        else:
            e = uncond + s * (modified - uncond)
        x = ddim_step(x, e, t, num_steps, bars)
    return x, steps
