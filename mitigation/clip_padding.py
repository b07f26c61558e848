"""Another padding token and masked end token: Kim and No, CVPR Findings 2026."""

from __future__ import annotations

import contextlib

from memorization_suite.lazy import no_grad, torch
from memorization_suite.mitigation.base import Mitigation, flag, quirks, register
from memorization_suite.sampling import Batch, NoisePredictor
from memorization_suite.sampling.attention import (
    attention_names,
    encoded_texts,
    last_token,
    last_tokens,
    open_attention,
)


@register("clip_padding", paper="Kim and No, CVPR Findings 2026", cost="2N")
class ClipPadding(Mitigation):
    """The prompt is padded with "!" instead of the end token, whose embedding is masked; or part of
    the padding is masked.

    CLIP learned the end token as the summary of a text, and Stable Diffusion 1 pads with it, so
    that one summary fills most of the 77 positions. Stable Diffusion 2 pads with "!" already.

    Source: abstract (both strategies) and official code: masked embeddings are set to zero, of the
    padding the first `mask_padding` of what follows the end token, rounded down. Strategy 1: the
    defaults. Strategy 2: --padding end --mask_end 0 --mask_padding 0.7 (the code also names 0.4).

    Ours: the two can be mixed; --mask_by attention takes masked tokens out of the conditional rows'
    cross-attention (a zero embedding stays in it: logit 0, value 0); the empty prompt keeps its own
    padding (official code: that is "!" too, see --official).
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
    official: str = quirks("padded_uncond")

    def edit_embeddings(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> dict[str, torch.Tensor]:
        masked = self.masked(batch)
        embeds = self.encode(batch.pipe, encoded_texts(batch), predictor.embeds["text"])
        if self.mask_by == "zero":
            embeds = embeds.masked_fill(masked.to(embeds.device)[:, :, None], 0.0)
        predictor.embeds["text"] = embeds
        if self.official:
            self.pad_uncond(predictor, batch)
        return {"masked_tokens": masked.sum(1)}

    def pad_uncond(self, predictor: NoisePredictor, batch: Batch) -> None:
        """--official padded_uncond: our padding for the empty prompt too. Raises ValueError."""
        uncond = predictor.embeds["uncond"]
        empty = batch.pipe.encode([""]).to(uncond)
        if not torch.allclose(uncond, empty, atol=1e-2):
            raise ValueError(
                "--official padded_uncond pads the empty prompt anew, so it does not go with a "
                "negative prompt"
            )
        predictor.embeds["uncond"] = self.encode(batch.pipe, [""] * len(batch), uncond)

    def patch(self, predictor: NoisePredictor, batch: Batch) -> contextlib.AbstractContextManager:
        if self.mask_by == "zero":
            return contextlib.nullcontext()
        masked = self.masked(batch)

        def hide(name: str, logits: torch.Tensor) -> torch.Tensor:
            call = predictor.call
            hidden = masked[call.image_of_row()] & call.rows_of("text")[:, None]
            return logits.masked_fill(hidden.to(logits.device)[:, None, None], -torch.inf)

        return open_attention(predictor.unet, attention_names(predictor.unet), edit=hide)

    def masked(self, batch: Batch) -> torch.Tensor:
        """Which positions of each image's prompt are masked, (n, tokens) bool.

        Raises ValueError without a tokenizer.
        """
        if batch.pipe is None:
            raise ValueError(
                "clip_padding needs the tokenizer and the text encoder: sample with a pipeline"
            )
        tokens = batch.pipe.tokenizer.model_max_length
        masked = torch.zeros(len(batch), tokens, dtype=torch.bool)
        for row, end in zip(masked, last_tokens(batch)):
            padding = end + 1
            count = int((tokens - padding) * self.mask_padding)
            row[end] = self.mask_end
            row[padding : padding + count] = True
        return masked

    @no_grad
    def encode(self, pipe, prompts: list[str], like: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, tokens, dim) of the prompts with our padding, each encoded once, as
        diffusers' `encode_prompt` does it.
        """
        tokenizer = pipe.tokenizer
        different = list(dict.fromkeys(prompts))
        tokens = tokenizer(
            different,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        for ids, prompt in zip(tokens.input_ids, different):
            ids[last_token(tokenizer, prompt) + 1 :] = self.padding_id(tokenizer)
        attention = None
        if getattr(pipe.text_encoder.config, "use_attention_mask", False):
            attention = tokens.attention_mask.to(like.device)
        embeds = pipe.text_encoder(tokens.input_ids.to(like.device), attention_mask=attention)[0]
        return embeds[[different.index(prompt) for prompt in prompts]].to(like)

    def padding_id(self, tokenizer) -> int:
        """The padding token's id. Raises ValueError when the tokenizer does not know it."""
        if self.padding == "end":
            return tokenizer.eos_token_id
        token = tokenizer.convert_tokens_to_ids("!")
        if token is None or token == tokenizer.unk_token_id:
            raise ValueError(
                "--padding exclamation: this model's tokenizer has no token '!'; --padding end is "
                "possible"
            )
        return token
