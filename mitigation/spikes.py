"""Spike attenuation: tokens that draw far more cross-attention than the others are held back.

Zhao et al., ICML 2026.
"""

from __future__ import annotations

import contextlib

from memorization_suite.runs.lazy import torch
from memorization_suite.sampling import Denoiser, NoisePredictor
from memorization_suite.sampling.denoiser import PARTS
from memorization_suite.sampling.noise_predictor import per_image

BLOCKS = ("early", "all")  # down blocks and the middle; every cross-attention


def names_in(model: Denoiser, blocks: str) -> list[str]:
    """Names of the cross-attentions in these blocks, in the order of their calls."""
    return model.attention_names(PARTS if blocks == "all" else ("down", "mid"))


def spikes(logits: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which tokens stand out, per row and head.

    (rows, heads, queries, tokens) -> (rows, heads, 1, tokens) bool. M_k = max over queries of the
    logits; k is a spike when (M_k - mean) / (std + 1e-6) > threshold. Mean and unbiased std run
    over the tokens k >= 1, padding included; the begin token is never one.
    """
    highest = logits.amax(dim=2, keepdim=True)
    others = highest[..., 1:]
    mean = others.mean(-1, keepdim=True)
    std = others.std(-1, keepdim=True)
    z = (highest - mean) / (std + 1e-6)
    z[..., 0] = -torch.inf
    return z > threshold


def attenuated_spikes(
    predictor: NoisePredictor, half: str, *, threshold: float, attenuation: float, blocks: str
) -> contextlib.AbstractContextManager:
    """Inside the block, the logits of spike tokens are multiplied by `attenuation` in the rows of
    one half.

    blocks: 'early' (down blocks and the middle) or 'all'. As in the official code, multiplying
    raises a logit that is negative.
    """

    def edit(name: str, logits: torch.Tensor) -> torch.Tensor:
        rows = predictor.call.rows_of(half)
        if not rows.any():
            return logits
        chosen = spikes(logits.detach(), threshold) & per_image(rows.to(logits.device))
        return torch.where(chosen, logits * attenuation, logits)

    return predictor.model.open_attention(names_in(predictor.model, blocks), edit=edit)
