"""Activations of value neurons: how strongly each answers to a prompt. They depend on the text
alone, so no UNet pass is needed.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from memorization_suite.sampling.attention import attention_names


@torch.no_grad()
def activations(unet, embeds: torch.Tensor) -> dict[str, torch.Tensor]:
    """Cross-attention -> a_j = mean over tokens of |V_j|, (n, width) float32. embeds: (n, tokens,
    dim).
    """
    return {
        name: unet.get_submodule(f"{name}.to_v")(embeds).float().abs().mean(dim=1)
        for name in attention_names(unet)
    }


def mean_and_std(
    batches: Iterable[dict[str, torch.Tensor]],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Layer -> mean and unbiased std of its activations over all prompts, (width,) float32; sums in
    float64, so that nothing is kept.

    Raises ValueError for fewer than two prompts.
    """
    count = 0
    sums: dict[str, torch.Tensor] = {}
    squares: dict[str, torch.Tensor] = {}
    for batch in batches:
        count += len(next(iter(batch.values())))
        for name, values in batch.items():
            values = values.double().cpu()
            sums[name] = values.sum(0) + sums.get(name, 0.0)
            squares[name] = (values**2).sum(0) + squares.get(name, 0.0)
    if count < 2:
        raise ValueError(f"statistics need at least two ordinary prompts, not {count}")
    means = {name: total / count for name, total in sums.items()}
    stds = {
        name: ((squares[name] - count * mean**2).clamp(min=0) / (count - 1)).sqrt()
        for name, mean in means.items()
    }
    return {name: mean.float() for name, mean in means.items()}, {
        name: std.float() for name, std in stds.items()
    }
