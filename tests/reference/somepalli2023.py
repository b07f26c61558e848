"""Somepalli et al., NeurIPS 2023: random insertions and embedding noise at inference, told in
loops. Imports nothing of the suite.

The official script draws from the process's generators; here `draw(k)` gives the next whole number
of 0..k-1. Its order: first the string, then its place.
"""

import torch

from tests.reference.han2025 import alpha_bars, both_halves, ddim_step, ddim_timesteps


def insert_at(prompt: str, place: int, string: str) -> str:
    """The prompt with the string between its words number place - 1 and place, which single spaces
    separate.
    """
    before = prompt.split(" ")[:place]
    after = prompt.split(" ")[place:]
    return " ".join(before + [string] + after)


def augmentation(prompt: str, style: str, repeats: int, decode, tokens: list[int], draw) -> str:
    """The augmented prompt. decode: a list of ids -> text; tokens: which ids may be drawn."""
    text = prompt
    for _ in range(repeats):
        if style == "rand_word_add":
            string = decode([tokens[draw(len(tokens))]])
        elif style == "rand_numb_add":
            string = f"{draw(100000):d}"
        else:
            vocabulary = prompt.split(" ")
            string = vocabulary[draw(len(vocabulary))]
        text = insert_at(text, draw(text.count(" ") + 2), string)
    return text


@torch.no_grad()
def guided_run(
    unet, x: torch.Tensor, stacked: torch.Tensor, *, num_steps: int, guidance_scale: float
) -> torch.Tensor:
    """Final latents of plain guidance under DDIM. stacked: unconditional embeddings, then those of
    the prompts, (2n, 77, dim).
    """
    bars = alpha_bars()
    for t in ddim_timesteps(num_steps):
        uncond, text = both_halves(unet, x, t, stacked)
        x = ddim_step(x, uncond + guidance_scale * (text - uncond), t, num_steps, bars)
    return x


def noised(stacked: torch.Tensor, lam: float, draws: list[torch.Tensor]) -> torch.Tensor:
    """Every row of the stacked embeddings with its own noise: draws[row], (77, dim)."""
    rows = []
    for row, draw in zip(stacked, draws, strict=True):
        rows.append(row + lam * draw)
    return torch.stack(rows)
