"""Activations of value neurons: how strongly each answers to a prompt.

They depend on the text alone, so no UNet pass is needed.
"""

from __future__ import annotations

from collections.abc import Iterable

from memorization_suite.lazy import no_grad, torch
from memorization_suite.sampling.attention import attention_names


@no_grad
def activations(unet, embeds: torch.Tensor) -> dict[str, torch.Tensor]:
    """Cross-attention -> a_j = mean over tokens of |V_j|, (n, width) float32.

    embeds: (n, tokens, dim).
    """
    active = {}
    for name in attention_names(unet):
        values = unet.get_submodule(f"{name}.to_v")(embeds)
        active[name] = values.float().abs().mean(dim=1)
    return active


def mean_and_std(
    batches: Iterable[dict[str, torch.Tensor]],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Layer -> mean and unbiased std of its activations over all prompts, (width,) float32.

    Sums are in float64, so that no batch has to stay. Raises ValueError for fewer than two prompts.
    """
    count = 0
    sums: dict[str, torch.Tensor] = {}
    squares: dict[str, torch.Tensor] = {}
    for batch in batches:
        count += len(next(iter(batch.values())))
        for name, active in batch.items():
            values = active.double().cpu()
            sums[name] = values.sum(0) + sums.get(name, 0.0)
            squares[name] = (values**2).sum(0) + squares.get(name, 0.0)
    if count < 2:
        raise ValueError(f"statistics need at least two ordinary prompts, not {count}")
    means = {}
    stds = {}
    for name, total in sums.items():
        mean = total / count
        variance = (squares[name] - count * mean**2).clamp(min=0) / (count - 1)
        means[name] = mean.float()
        stds[name] = variance.sqrt().float()
    return means, stds
