"""Patching a UNet's attention for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memorization_suite.lazy import torch


def attention_names(unet, *, cross: bool = True, contains: str = "") -> list[str]:
    """Names of the cross-attention (or self-attention) modules whose name contains a text, e.g.
    'down_blocks.0', in the order of their calls.
    """
    ending = "attn2.processor" if cross else "attn1.processor"
    found = [
        name.removesuffix(".processor")
        for name in unet.attn_processors
        if name.endswith(ending) and contains in name
    ]
    return sorted(
        found, key=lambda name: ("down", "mid", "up").index(name.split("_")[0])
    )  # stable: inside a part as listed


@contextmanager
def patched_attention(
    unet, make_processor: Callable[[str], object], names: list[str]
) -> Iterator[None]:
    """Sets `make_processor(name)` on the named modules; the old processors come back, also after an
    exception.

    Raises ValueError for a name that the UNet does not have.
    """
    before = unet.attn_processors
    unknown = [name for name in names if f"{name}.processor" not in before]
    if unknown:
        raise ValueError(
            f"the UNet has no attention module {unknown[0]!r}; it has "
            f"{', '.join(attention_names(unet))}"
        )
    try:
        unet.set_attn_processor(
            before | {f"{name}.processor": make_processor(name) for name in names}
        )
        yield
    finally:
        unet.set_attn_processor(dict(before))


class OpenAttention:
    """Attention with its logits in the open: softmax(edit(Q K^T / sqrt(d))) V, equal to diffusers'
    processors to rounding.

    edit(name, logits) may change the logits, see(name, probs) may keep the probabilities: (rows,
    heads, queries, tokens), in float32 where the UNet is not. `NoisePredictor.call` tells what the
    rows are.
    """

    def __init__(
        self,
        name: str,
        *,
        edit: Callable[[str, torch.Tensor], torch.Tensor] | None = None,
        see: Callable[[str, torch.Tensor], None] | None = None,
    ):
        self.name, self.edit, self.see = name, edit, see

    def __call__(
        self,
        attn,
        hidden_states: torch.Tensor,
        encoder_hidden_states=None,
        attention_mask=None,
        temb=None,
    ) -> torch.Tensor:
        if (
            hidden_states.ndim != 3
            or attention_mask is not None
            or attn.group_norm is not None
            or attn.residual_connection
        ):
            raise ValueError(
                f"{self.name} is not an attention of a Stable Diffusion transformer block"
            )
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            heads_apart(projected, attn.heads)
            for projected in (attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text))
        )
        logits = (query @ key.transpose(-1, -2)).float() * attn.scale
        if self.edit is not None:
            logits = self.edit(self.name, logits)
        probs = logits.softmax(-1)
        if self.see is not None:
            self.see(self.name, probs)
        mixed = (probs.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](mixed)) / attn.rescale_output_factor


def heads_apart(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(rows, n, heads * d) -> (rows, heads, n, d)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def last_token(tokenizer, prompt: str) -> int:
    """Position of the end token: begin token, prompt, end token, cut to the tokenizer's length."""
    return min(len(tokenizer(prompt, truncation=True).input_ids), tokenizer.model_max_length) - 1
