"""Patching a UNet's attention for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from memorization_suite.lazy import torch

if TYPE_CHECKING:
    from memorization_suite.sampling.batch import Batch

PARTS = ("down", "mid", "up")  # of a UNet, in the order of their calls
# (name, logits or probabilities), both (rows, heads, queries, tokens).
Edit = Callable[[str, "torch.Tensor"], "torch.Tensor"]
See = Callable[[str, "torch.Tensor"], None]


def attention_names(unet, *, cross: bool = True, contains: str = "") -> list[str]:
    """Names of the cross-attention (or self-attention) modules, in the order of their calls.

    contains: what a name must contain, for example 'down_blocks.0'.
    """
    ending = "attn2.processor" if cross else "attn1.processor"
    processors = [name for name in unet.attn_processors if name.endswith(ending)]
    names = [name.removesuffix(".processor") for name in processors if contains in name]
    # Sorting is stable: inside a part they stay as the UNet lists them.
    return sorted(names, key=lambda name: PARTS.index(name.split("_")[0]))


@contextmanager
def patched_attention(
    unet, make_processor: Callable[[str], object], names: list[str]
) -> Iterator[None]:
    """Sets `make_processor(name)` on the named modules.

    The old processors come back, also after an exception. Raises ValueError for a name that the
    UNet does not have.
    """
    before = unet.attn_processors
    patched = dict(before)
    for name in names:
        if f"{name}.processor" not in before:
            raise ValueError(
                f"the UNet has no attention module {name!r}; it has "
                f"{', '.join(attention_names(unet))}"
            )
        patched[f"{name}.processor"] = make_processor(name)
    try:
        unet.set_attn_processor(patched)
        yield
    finally:
        unet.set_attn_processor(dict(before))


def open_attention(
    unet, names: list[str], *, edit: Edit | None = None, see: See | None = None
) -> AbstractContextManager[None]:
    """`OpenAttention` in the named modules, inside the block."""
    return patched_attention(unet, lambda name: OpenAttention(name, edit=edit, see=see), names)


class OpenAttention:
    """Attention with its logits in the open: softmax(edit(Q K^T / sqrt(d))) V.

    Without an edit it equals diffusers' processors to rounding. edit(name, logits) may change the
    logits, see(name, probs) may keep the probabilities: (rows, heads, queries, tokens), in float32
    where the UNet is not. `NoisePredictor.call` tells what the rows are.
    """

    def __init__(self, name: str, *, edit: Edit | None = None, see: See | None = None):
        self.name = name
        self.edit = edit
        self.see = see

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
        query = heads_apart(attn.to_q(hidden_states), attn.heads)
        key = heads_apart(attn.to_k(text), attn.heads)
        value = heads_apart(attn.to_v(text), attn.heads)

        logits = (query @ key.transpose(-1, -2)).float() * attn.scale
        if self.edit is not None:
            logits = self.edit(self.name, logits)
        probs = logits.softmax(-1)
        if self.see is not None:
            self.see(self.name, probs)

        mixed = (probs.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        projection, dropout = attn.to_out
        return dropout(projection(mixed)) / attn.rescale_output_factor


def heads_apart(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(rows, n, heads * d) -> (rows, heads, n, d)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def last_token(tokenizer, prompt: str) -> int:
    """Position of the end token: begin token, prompt, end token, cut to the tokenizer's length."""
    tokens = tokenizer(prompt, truncation=True).input_ids
    return min(len(tokens), tokenizer.model_max_length) - 1


def encoded_texts(batch: Batch) -> list[str]:
    """What is encoded for each image: the prompts, or what a method made of them."""
    return batch.encoded or batch.prompts


def last_tokens(batch: Batch) -> list[int]:
    """Position of the end token in each image's encoded text."""
    texts = encoded_texts(batch)
    positions = {text: last_token(batch.pipe.tokenizer, text) for text in set(texts)}
    return [positions[text] for text in texts]
