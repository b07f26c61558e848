"""Cross-attention scaling: Ren et al., ECCV 2024."""

from __future__ import annotations

import contextlib
import math

from memorization_suite.mitigation.base import Mitigation, flag, register
from memorization_suite.runs.lazy import torch
from memorization_suite.sampling import Batch, Denoiser, NoisePredictor


@register(
    "cross_attention",
    paper="Ren et al., ECCV 2024",
    cost="2N",
    code="renjie3/MemAttn",
    compared="equal for one image a call; right for any number",
)
class CrossAttention(Mitigation):
    """Rows with a prompt attend more to the begin token. No row attends to the padding behind the
    prompt's end token.

    In every cross-attention and step, with logits l = Q K^T / sqrt(d): l_0 <- C l_0 for rows with a
    prompt, and l_k <- -inf for k >= the prompt's length, also for the empty prompt.

    Differs from the official code: rows are chosen by what they are. The official code takes every
    second one, which is right for one image per call. Kept from it: where l_0 is negative, C > 1
    lowers the attention. --bos_mode add does not; it is not the paper's.
    """

    bos_scale: float = flag(
        1.25,
        "C: the begin token's logit times C (official: --c1), or with --bos_mode add plus ln C",
        short="C",
        above=0.0,
    )
    bos_mode: str = flag(
        "multiply",
        "multiply: as published; add: right for negative logits too",
        choices=("multiply", "add"),
        always_named=False,
    )
    cross_attn_mask: bool = flag(True, "1: no attention to padding; 0: leave it", short="mask")
    mask_length_minis1: bool = flag(
        False,
        "1: none to the end token either (the official name)",
        short="noend",
        always_named=False,
    )

    def patch(self, predictor: NoisePredictor, batch: Batch) -> contextlib.AbstractContextManager:
        model = predictor.model
        lengths = self.lengths(model, batch) if self.cross_attn_mask else None

        def edit(name: str, logits: torch.Tensor) -> torch.Tensor:
            factor, shift = self.factor_and_shift(predictor, lengths, logits.shape[-1])
            return logits * factor.to(logits.device) + shift.to(logits.device)

        return model.open_attention(model.attention_names(), edit=edit)

    def lengths(self, model: Denoiser, batch: Batch) -> torch.Tensor:
        """Tokens that an image's rows attend to, (n,)."""
        ends = batch.end_tokens(model)
        return torch.tensor([end + 1 - self.mask_length_minis1 for end in ends])

    def factor_and_shift(
        self, predictor: NoisePredictor, lengths: torch.Tensor | None, tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the logits of the running call are multiplied by and what is added.

        (rows, 1, 1, tokens) each.
        """
        conditional = ~predictor.call.rows_of("uncond")
        factor = torch.ones(len(conditional), tokens)
        shift = torch.zeros(len(conditional), tokens)
        if self.bos_mode == "multiply":
            factor[conditional, 0] = self.bos_scale
        else:
            shift[conditional, 0] = math.log(self.bos_scale)
        if lengths is not None:
            length_of_row = lengths[predictor.call.image_of_row()]
            is_padding = torch.arange(tokens) >= length_of_row[:, None]
            shift[is_padding] = -torch.inf
        return factor[:, None, None], shift[:, None, None]

    def check(self, num_steps: int) -> None:
        if self.mask_length_minis1 and not self.cross_attn_mask:
            raise ValueError(
                "--mask_length_minis1 1 needs --cross_attn_mask 1: without a mask there is nothing "
                "to shorten"
            )
