"""Stable Diffusion's architectures with random weights, made on the device without a download.

They cost what the trained models cost. What they sample is no picture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memorization_suite import tiny
from memorization_suite.pipelines.single_files import config_of, layouts
from memorization_suite.pipelines.stable_diffusion import pipeline_class
from memorization_suite.runs.lazy import Lazy, nn, torch
from memorization_suite.tiny.models import build_scheduler

if TYPE_CHECKING:
    from memorization_suite.pipelines.stable_diffusion.pipeline import MemorizationPipeline

diffusers = Lazy("diffusers")
transformers = Lazy("transformers")

# The same blocks in narrow, and images of 64 pixels.
REDUCED: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 8,
        "block_out_channels": (32, 64, 64, 64),
        "layers_per_block": 1,
        "cross_attention_dim": 64,
    },
    "vae": {
        "sample_size": 64,
        "block_out_channels": (32, 32, 32, 32),
        "layers_per_block": 1,
    },
    "text_encoder": {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
}


@dataclass(frozen=True)
class Architecture:
    """The networks of a model."""

    title: str
    # Its table in pipelines/layouts.toml.
    layout: str
    # "epsilon" or "v_prediction".
    predicts: str
    # What diffusers calls attention_head_dim: heads, in the UNet of the reduced size.
    reduced_heads: int | tuple[int, ...]
    is_reduced: bool = False

    def reduced(self) -> Architecture:
        """A narrow, small variant for a CPU."""
        return replace(self, title=f"{self.title}, reduced", is_reduced=True)

    def settings(self, part: str) -> dict[str, Any]:
        """The settings of a network, as its config.json has them."""
        settings = config_of(layouts()[self.layout], part, self.predicts)
        settings.pop("_class_name", None)
        if self.is_reduced:
            settings |= REDUCED[part]
        if self.is_reduced and part == "unet":
            settings["attention_head_dim"] = self.reduced_heads
        return settings

    def networks(self) -> dict[str, nn.Module]:
        """The UNet, the VAE and the text encoder, on torch's default device and in its dtype."""
        text = transformers.CLIPTextConfig(**self.settings("text_encoder"))
        made = {
            "unet": diffusers.UNet2DConditionModel(**self.settings("unet")),
            "vae": diffusers.AutoencoderKL(**self.settings("vae")),
            "text_encoder": transformers.CLIPTextModel(text),
        }
        return {name: network.eval() for name, network in made.items()}


ARCHITECTURES = {
    "sd14": Architecture(
        title="Stable Diffusion 1.4's architecture with random weights",
        layout="sd1",
        predicts="epsilon",
        reduced_heads=2,
    ),
    "sd2": Architecture(
        title="Stable Diffusion 2.1's architecture with random weights",
        layout="sd2",
        predicts="v_prediction",
        reduced_heads=(1, 2, 2, 2),
    ),
}


@contextlib.contextmanager
def made_in(dtype: torch.dtype) -> Iterator[None]:
    """New parameters inside the block have this dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build(
    architecture: Architecture, *, device: str, dtype: torch.dtype, seed: int = 0
) -> MemorizationPipeline:
    """The model with a DDIM sampler and the embedded model's tokenizer, frozen.

    Its weights are drawn on the device in this dtype; there is no copy in the CPU's memory.
    """
    torch.manual_seed(seed)
    with torch.device(device), made_in(dtype):
        networks = architecture.networks()
    return assembled(architecture, networks)


def assembled(architecture: Architecture, networks: dict[str, nn.Module]) -> MemorizationPipeline:
    """The networks with a sampler and a tokenizer."""
    for network in networks.values():
        network.requires_grad_(False)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tiny.MODELS["tiny"] / "tokenizer")
    return pipeline_class()(
        **networks,
        tokenizer=tokenizer,
        scheduler=build_scheduler("ddim", architecture.predicts),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
