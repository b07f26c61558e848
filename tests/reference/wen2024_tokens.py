"""Token-wise significance of Wen et al., ICLR 2024, told in loops (epsilon models, DDIM). Imports
nothing of the suite.

What counts as official here: the prompt's embedding stands where the empty one belongs and the
other way round; one norm over all images of the prompt; gradients of the whole stack of 2n
embeddings, of which the last row alone is connected; first the norm per row and token, then the
mean over the rows.
"""

import math

import torch

from tests.reference.han2025 import alpha_bars, ddim_step, ddim_timesteps


def correct_significance(
    unet,
    prompt: torch.Tensor,
    empty: torch.Tensor,
    noise: torch.Tensor,
    *,
    num_steps: int,
    watched: int,
    guidance_scale: float,
) -> torch.Tensor:
    """One prompt, each image for itself. prompt, empty: (1, tokens, dim); noise: (n, 4, h, w).
    Scores of the images, (n, tokens).
    """
    bars = alpha_bars()
    scores = torch.zeros(len(noise), prompt.shape[1])
    for b in range(len(noise)):
        x = noise[b : b + 1]
        for t in ddim_timesteps(num_steps)[:watched]:
            c = prompt.clone().requires_grad_(True)
            e_text = unet(x, t, encoder_hidden_states=c).sample
            with torch.no_grad():
                e_empty = unet(x, t, encoder_hidden_states=empty).sample
            ((e_text - e_empty) ** 2).sum().sqrt().backward(inputs=[c])
            for i in range(prompt.shape[1]):
                scores[b, i] += math.sqrt(float((c.grad[0, i] ** 2).sum())) / watched
            e_text = e_text.detach()
            x = ddim_step(x, e_empty + guidance_scale * (e_text - e_empty), t, num_steps, bars)
    return scores


def official_significance(
    unet,
    prompt: torch.Tensor,
    empty: torch.Tensor,
    noise: torch.Tensor,
    *,
    num_steps: int,
    watched: int,
    guidance_scale: float,
) -> torch.Tensor:
    """One prompt as the official code takes it: scores of the prompt, (tokens,)."""
    n = len(noise)
    bars = alpha_bars()
    each_step = []
    x = noise
    for t in ddim_timesteps(num_steps)[:watched]:
        stack = torch.cat([empty] * n + [prompt] * n).requires_grad_(True)
        first = stack[-1:].repeat(n, 1, 1)
        second = stack[:1].detach().repeat(n, 1, 1)
        in_empty_place, in_prompt_place = unet(
            torch.cat([x, x]), t, encoder_hidden_states=torch.cat([first, second])
        ).sample.chunk(2)
        difference = in_prompt_place - in_empty_place
        (gradient,) = torch.autograd.grad((difference**2).sum().sqrt(), stack)
        each_step.append(sum((gradient[row] ** 2).sum(-1).sqrt() for row in range(2 * n)) / (2 * n))
        x = ddim_step(
            x, (in_empty_place + guidance_scale * difference).detach(), t, num_steps, bars
        )
    return sum(each_step) / watched
