"""What the search measures: how strongly each value neuron answers to a prompt, and how alike the
maps of predicted noise are.

Activations depend on the text alone, so no UNet pass is needed. Memorized prompts give the same
structure on every seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from memorization_suite.mitigation.nemo.ms_ssim import ms_ssim
from memorization_suite.runs.lazy import no_grad, torch
from memorization_suite.sampling.denoiser import Denoiser

# --- activations ---


@no_grad
def activations(model: Denoiser, embeds: torch.Tensor) -> dict[str, torch.Tensor]:
    """Cross-attention -> a_j = mean over tokens of |V_j|, (n, width) float32.

    embeds: (n, tokens, dim).
    """
    active = {}
    for name in model.attention_names():
        values = model.value_projection(name)(embeds)
        active[name] = values.float().abs().mean(dim=1)
    return active


def mean_and_std(
    batches: Iterable[dict[str, torch.Tensor]],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Layer -> mean and unbiased std of its activations over all prompts, (width,) float32.

    Sums are in float64, so that no batch has to stay. Raises ValueError for fewer than two prompts.
    """
    count = 0
    sums: dict[str, Any] = defaultdict(float)
    squares: dict[str, Any] = defaultdict(float)
    for batch in batches:
        count += len(next(iter(batch.values())))
        for name, active in batch.items():
            values = active.double().cpu()
            sums[name] += values.sum(0)
            squares[name] += values.square().sum(0)
    if count < 2:
        raise ValueError(f"statistics need at least two ordinary prompts, not {count}")
    means = {}
    stds = {}
    for name, total in sums.items():
        mean = total / count
        deviations = squares[name] - count * mean**2
        variance = deviations.clamp(min=0) / (count - 1)
        means[name] = mean.float()
        stds[name] = variance.sqrt().float()
    return means, stds


# --- similarity of maps ---


def scaled_maps(noise_pred: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """e(x, c) - x with each channel stretched to 0..1 over h and w; a constant one becomes 0, and
    one that is not finite stays so.

    (n, 4, h, w) float32.
    """
    y = noise_pred.float() - x.float()
    low = y.amin((2, 3), keepdim=True)
    high = y.amax((2, 3), keepdim=True)
    stretched = (y - low) / (high - low)
    return torch.where(high == low, 0.0, stretched)


def pair_similarities(maps: torch.Tensor) -> torch.Tensor:
    """MS-SSIM of all pairs of a prompt's maps, (n, n) symmetric; the diagonal is minus infinity.

    All pairs share one data range at each scale, as in the official code.
    """
    n = len(maps)
    first, second = torch.triu_indices(n, n, offset=1)
    table = torch.full((n, n), -torch.inf)
    table[first, second] = ms_ssim(maps[first], maps[second]).cpu()
    return torch.maximum(table, table.T)
