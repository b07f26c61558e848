"""Maps of predicted noise, and how alike they are: memorized prompts give the same structure on
every seed.
"""

from __future__ import annotations

import torch

BETAS = (0.33, 0.33, 0.33)  # three scales, of equal weight
KERNEL, SIGMA = 11, 1.5  # of the Gaussian window
SMALLEST = 12  # side of a map that three scales fit into


def kernel_size(side: int) -> int:
    """Largest odd window of at most 11 that three scales allow (11 for sides from 44, so for Stable
    Diffusion; 3 for 16). Raises ValueError.
    """
    if side < SMALLEST:
        raise ValueError(
            f"the noise maps are {side} x {side}, too small for three scales; the least is "
            f"{SMALLEST} x {SMALLEST}"
        )
    return min(KERNEL, (side // 4 - 1) // 2 * 2 + 1)


def scaled_maps(noise_pred: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """e(x, c) - x with each channel stretched to 0..1 over h and w; a constant channel becomes 0.
    (n, 4, h, w) float32.
    """
    y = noise_pred.float() - x.float()
    low, high = y.amin((2, 3), keepdim=True), y.amax((2, 3), keepdim=True)
    return torch.where(high > low, (y - low) / (high - low), 0.0)


def similarity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """MS-SSIM of a[i] and b[i], (n,) for maps (n, 4, h, w). Source: the official settings of
    torchmetrics.

    The data range is taken from all n maps at each scale, as torchmetrics does, so n maps belong to
    one prompt and one set of blocked neurons.
    """
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure as ms_ssim,
    )

    kernel = kernel_size(min(a.shape[2:]))
    return ms_ssim(
        a, b, reduction="none", kernel_size=kernel, sigma=SIGMA * kernel / KERNEL, betas=BETAS
    ).reshape(len(a))


def pair_similarities(maps: torch.Tensor) -> torch.Tensor:
    """MS-SSIM of all pairs of a prompt's maps, (n, n) symmetric; the diagonal is minus infinity."""
    first, second = torch.triu_indices(len(maps), len(maps), offset=1)
    table = torch.full((len(maps), len(maps)), -torch.inf)
    table[first, second] = similarity(maps[first], maps[second]).cpu()
    return torch.maximum(table, table.T)
