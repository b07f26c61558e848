"""Patching a UNet's cross-attention for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from memorization_suite.runs.lazy import torch
from memorization_suite.sampling.checkpointing import is_recomputing
from memorization_suite.sampling.denoiser import PARTS, Edit, See

PROCESSOR = ".processor"


def part_of(name: str) -> str:
    """Which of PARTS a module is in."""
    return name.split("_")[0]


def cross_attentions(unet, parts: Sequence[str] = PARTS) -> list[str]:
    """Names of the cross-attention modules in these parts, in the order of their calls."""
    ending = f"attn2{PROCESSOR}"
    processors = [name for name in unet.attn_processors if name.endswith(ending)]
    names = [name.removesuffix(PROCESSOR) for name in processors if part_of(name) in parts]
    # Sorting is stable: inside a part they stay as the UNet lists them.
    return sorted(names, key=lambda name: PARTS.index(part_of(name)))


@contextmanager
def patched_attention(
    unet, make_processor: Callable[[str], object], names: Sequence[str]
) -> Iterator[None]:
    """Sets `make_processor(name)` on the named modules.

    The old processors come back, also after an exception. Raises ValueError for a name that the
    UNet does not have.
    """
    before = unet.attn_processors
    patched = dict(before)
    for name in names:
        if name + PROCESSOR not in before:
            raise ValueError(
                f"the UNet has no attention module {name!r}; it has "
                f"{', '.join(cross_attentions(unet))}"
            )
        patched[name + PROCESSOR] = make_processor(name)
    try:
        unet.set_attn_processor(patched)
        yield
    finally:
        unet.set_attn_processor(dict(before))


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

        if query.dtype == torch.float16:
            # Unscaled products may be larger than its numbers can be.
            query, key = query.float(), key.float()
        logits = (query @ key.transpose(-1, -2)).float() * attn.scale
        if self.edit is not None:
            logits = self.edit(self.name, logits)
        probs = logits.softmax(-1)
        if self.see is not None and not is_recomputing():
            self.see(self.name, probs)

        mixed = (probs.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        projection, dropout = attn.to_out
        return dropout(projection(mixed)) / attn.rescale_output_factor


def heads_apart(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(rows, n, heads * d) -> (rows, heads, n, d)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)
