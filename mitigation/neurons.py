"""Value neurons of cross-attention: outputs of `to_v`, one a channel, and the file that lists some
of them for each prompt.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from memorization_suite.lazy import torch
from memorization_suite.sampling.attention import attention_names

Neurons = dict[str, list[int]]  # name of a cross-attention -> channels of its to_v


def read_neurons(path: Path) -> dict[str, Neurons]:
    """Caption -> neurons, of a file by localize_neurons.py. Raises ValueError when it is none.

    The file: {"model": ..., "settings": ..., "prompts": {caption: {layer: [channels]}}}.
    """
    try:
        prompts = json.loads(path.read_text(encoding="utf-8"))["prompts"]
        listed = [channels for layers in prompts.values() for channels in layers.values()]
        if not all(are_channels(channels) for channels in listed):
            raise ValueError("neurons are whole numbers of at least 0")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is no neuron file of localize_neurons.py ({type(error).__name__}: {error})"
        ) from error
    return prompts


def are_channels(values) -> bool:
    """Whether this is a list of whole numbers of at least 0."""
    return isinstance(values, list) and all(type(c) is int and c >= 0 for c in values)


def value_factors(unet, blocked: list[Neurons], factor: float) -> dict[str, torch.Tensor]:
    """Name of a cross-attention -> (n, width): `factor` for the neurons blocked[i] of image i, else
    1.

    Layers without any are left out. Raises ValueError for a layer or channel that the UNet does not
    have.
    """
    factors: dict[str, torch.Tensor] = {}
    for i, neurons in enumerate(blocked):
        for name, channels in neurons.items():
            if not channels:
                continue
            if name not in factors:
                factors[name] = torch.ones(len(blocked), width_of(unet, name))
            width = factors[name].shape[1]
            if max(channels) >= width:
                raise ValueError(
                    f"the neuron list names channel {max(channels)} of {name}, which has {width}: "
                    "it belongs to another model"
                )
            factors[name][i, channels] = factor
    return factors


def width_of(unet, name: str) -> int:
    """Channels of a cross-attention's to_v. Raises ValueError for a layer that there is not."""
    if name not in attention_names(unet):
        raise ValueError(
            f"the neuron list names the layer {name}, which this UNet does not have: it belongs to "
            "another model"
        )
    return unet.get_submodule(f"{name}.to_v").out_features


@contextlib.contextmanager
def scaled_values(
    unet, factors: dict[str, torch.Tensor], images: Callable[[], torch.Tensor]
) -> Iterator[None]:
    """Inside the block, values of image i are multiplied by factors[layer][i], at every token.

    images(): each UNet row's image, (rows,).
    """

    def scale(name: str):
        def hook(module, args, values: torch.Tensor) -> torch.Tensor:
            factor = factors[name][images()].to(values.device, values.dtype)
            return values * factor[:, None]

        return hook

    with contextlib.ExitStack() as hooks:
        for name in factors:
            handle = unet.get_submodule(f"{name}.to_v").register_forward_hook(scale(name))
            hooks.callback(handle.remove)
        yield
