"""Another padding token and masked end token: Kim and No, CVPR Findings 2026."""

from __future__ import annotations

import contextlib

from memorization_suite.mitigation.base import Mitigation, flag, quirks, register
from memorization_suite.runs.lazy import torch
from memorization_suite.sampling import Batch, Denoiser, NoisePredictor


@register(
    "clip_padding",
    paper="Kim and No, CVPR Findings 2026",
    cost="2N",
    compared="equal with --official padded_uncond",
)
class ClipPadding(Mitigation):
    """The prompt is padded with "!" instead of the end token, whose embedding is masked; or part of
    the padding is masked.

    CLIP learned the end token as the summary of a text, and Stable Diffusion 1 pads with it, so
    that one summary fills most of the 77 positions. Stable Diffusion 2 pads with "!" already.

    Source: abstract (both strategies) and official code. Masked embeddings are set to zero; of the
    padding, these are the first `mask_padding` of what follows the end token, rounded down.
    Strategy 1: the defaults. Strategy 2: --padding end --mask_end 0 --mask_padding 0.7 (the code
    also names 0.4).

    Ours: the two strategies can be mixed. --mask_by attention takes masked tokens out of the
    cross-attention of the prompt's rows, where a zero embedding stays in with logit 0 and value 0.
    The empty prompt keeps its own padding.
    """

    padding: str = flag(
        "exclamation",
        "padding: the token '!' or the end token",
        short="pad",
        choices=("exclamation", "end"),
    )
    mask_end: bool = flag(True, "1: mask the end token; 0: leave it", short="end")
    mask_padding: float = flag(
        0.0, "share of the padding that is masked", short="share", at_least=0.0, at_most=1.0
    )
    mask_by: str = flag(
        "zero",
        "zero: embeddings set to zero; attention: no attention to them",
        short="by",
        choices=("zero", "attention"),
        always_named=False,
    )
    official: str = quirks(padded_uncond="the empty prompt gets the new padding too")

    def edit_embeddings(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> dict[str, torch.Tensor]:
        model = predictor.model
        masked = self.masked(model, batch)
        embeds = self.encode(model, batch.texts()).to(predictor.tokens("text"))
        if self.mask_by == "zero":
            embeds = embeds.masked_fill(masked.to(embeds.device)[:, :, None], 0.0)
        predictor.set_tokens("text", embeds)
        if self.official:
            self.pad_uncond(predictor, batch)
        ends = torch.tensor(batch.end_tokens(model))
        return {"masked_tokens": masked.sum(1), "padding_tokens": model.max_tokens - 1 - ends}

    def pad_uncond(self, predictor: NoisePredictor, batch: Batch) -> None:
        """--official padded_uncond: our padding for the empty prompt too. Raises ValueError."""
        uncond = predictor.tokens("uncond")
        empty = predictor.model.encode([""]).tokens.to(uncond)
        if not torch.allclose(uncond, empty, atol=1e-2):
            raise ValueError(
                "--official padded_uncond pads the empty prompt anew, so it does not go with a "
                "negative prompt"
            )
        padded = self.encode(predictor.model, [""] * len(batch))
        predictor.set_tokens("uncond", padded.to(uncond))

    def patch(self, predictor: NoisePredictor, batch: Batch) -> contextlib.AbstractContextManager:
        if self.mask_by == "zero":
            return contextlib.nullcontext()
        model = predictor.model
        masked = self.masked(model, batch)

        def hide(name: str, logits: torch.Tensor) -> torch.Tensor:
            call = predictor.call
            hidden = masked[call.image_of_row()] & call.rows_of("text")[:, None]
            return logits.masked_fill(hidden.to(logits.device)[:, None, None], -torch.inf)

        return model.open_attention(model.attention_names(), edit=hide)

    def masked(self, model: Denoiser, batch: Batch) -> torch.Tensor:
        """Which positions of each image's prompt are masked, (n, tokens) bool."""
        tokens = model.max_tokens
        masked = torch.zeros(len(batch), tokens, dtype=torch.bool)
        for row, end in zip(masked, batch.end_tokens(model)):
            padding = end + 1
            count = int((tokens - padding) * self.mask_padding)
            row[end] = self.mask_end
            row[padding : padding + count] = True
        return masked

    def encode(self, model: Denoiser, prompts: list[str]) -> torch.Tensor:
        """Embeddings (n, tokens, dim) of the prompts with our padding. Raises ValueError."""
        token = "!" if self.padding == "exclamation" else model.end_token
        try:
            return model.encode(prompts, padding=token).tokens
        except ValueError as error:
            raise ValueError(
                f"--padding {self.padding}: {error}; --padding end is possible"
            ) from error
