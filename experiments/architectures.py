"""Stable Diffusion's architectures with random weights, made on the device without a download.

They cost what the trained models cost. What they sample is no picture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memorization_suite import tiny
from memorization_suite.pipelines.stable_diffusion import pipeline_class
from memorization_suite.runs.lazy import Lazy, nn, torch
from memorization_suite.tiny.models import build_scheduler

if TYPE_CHECKING:
    from memorization_suite.pipelines.stable_diffusion.pipeline import MemorizationPipeline

diffusers = Lazy("diffusers")
transformers = Lazy("transformers")

VAE: dict[str, Any] = {
    "sample_size": 512,
    "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
# Of CLIP's vocabulary and positions.
TEXT: dict[str, Any] = {"vocab_size": 49408, "max_position_embeddings": 77}
# The same blocks in narrow, and images of 64 pixels.
REDUCED_UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 64,
}
REDUCED_VAE: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (32, 32, 32, 32),
    "layers_per_block": 1,
}
REDUCED_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@dataclass(frozen=True)
class Architecture:
    """The settings of a model's networks, as its config.json files have them."""

    title: str
    # "epsilon" or "v_prediction".
    predicts: str
    unet: dict[str, Any]
    text: dict[str, Any]
    vae: dict[str, Any]
    # What diffusers calls attention_head_dim: heads, in the UNet of the reduced size.
    reduced_heads: int | tuple[int, ...]

    def reduced(self) -> Architecture:
        """A narrow, small variant for a CPU."""
        return replace(
            self,
            title=f"{self.title}, reduced",
            unet=self.unet | REDUCED_UNET | {"attention_head_dim": self.reduced_heads},
            text=self.text | REDUCED_TEXT,
            vae=self.vae | REDUCED_VAE,
        )

    def networks(self) -> dict[str, nn.Module]:
        """The UNet, the VAE and the text encoder, on torch's default device and in its dtype."""
        made = {
            "unet": diffusers.UNet2DConditionModel(**self.unet),
            "vae": diffusers.AutoencoderKL(**self.vae),
            "text_encoder": transformers.CLIPTextModel(transformers.CLIPTextConfig(**self.text)),
        }
        return {name: network.eval() for name, network in made.items()}


ARCHITECTURES = {
    "sd14": Architecture(
        title="Stable Diffusion 1.4's architecture with random weights",
        predicts="epsilon",
        unet={
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        text=TEXT
        | {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "hidden_act": "quick_gelu",
        },
        vae=VAE,
        reduced_heads=2,
    ),
    "sd2": Architecture(
        title="Stable Diffusion 2.1's architecture with random weights",
        predicts="v_prediction",
        unet={
            "sample_size": 96,
            "block_out_channels": (320, 640, 1280, 1280),
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        text=TEXT
        | {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
        },
        vae=VAE | {"sample_size": 768},
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
