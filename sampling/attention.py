"""Patching a UNet's attention for the length of a `with` block."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


def attention_names(unet, *, cross: bool = True, contains: str = "") -> list[str]:
    """Names of the cross-attention (or self-attention) modules whose name contains a text, e.g. 'down_blocks.0'."""
    ending = "attn2.processor" if cross else "attn1.processor"
    return [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith(ending) and contains in name]


@contextmanager
def patched_attention(unet, make_processor: Callable[[str], object], names: list[str]) -> Iterator[None]:
    """Sets `make_processor(name)` on the named modules; the old processors come back, also after an exception.

    Raises ValueError for a name that the UNet does not have.
    """
    before = unet.attn_processors
    unknown = [name for name in names if f"{name}.processor" not in before]
    if unknown:
        raise ValueError(f"the UNet has no attention module {unknown[0]!r}; it has {', '.join(attention_names(unet))}")
    try:
        unet.set_attn_processor(before | {f"{name}.processor": make_processor(name) for name in names})
        yield
    finally:
        unet.set_attn_processor(dict(before))
