"""The embedded model's networks: Stable Diffusion's own classes and block structure in small."""

from __future__ import annotations

from memorization_suite.runs.lazy import Lazy, nn

diffusers = Lazy("diffusers")
transformers = Lazy("transformers")

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


def build_vae(channels=(16, 32)) -> diffusers.AutoencoderKL:
    """32 x 32 x 3 -> 16 x 16 x 4: factor 2 (Stable Diffusion: 8); another factor of 2 with each
    further entry of channels.
    """
    return diffusers.AutoencoderKL(
        block_out_channels=tuple(channels),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=16 * 2 ** (len(channels) - 1),
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        mid_block_add_attention=False,
    )


def build_unet(
    channels=(32, 64, 128), heads=(1, 2, 4), cross_attention_dim=128
) -> diffusers.UNet2DConditionModel:
    """Cross-attention in the three upper levels and in the middle; every head has 32 channels (SD
    2: 64).

    A fourth entry of channels adds SD's lowest level, which has none; the embedded models do
    without, their third is 4 x 4.
    """
    lowest = len(channels) - 3
    return diffusers.UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=tuple(channels),
        norm_num_groups=16,
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=heads,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",) * lowest,
        up_block_types=("UpBlock2D",) * lowest + ("CrossAttnUpBlock2D",) * 3,
    )


def build_text_encoder(
    vocab_size: int, bos: int, eos: int, width=128
) -> transformers.CLIPTextModel:
    """Two layers, 77 positions. CLIP's conventions: begin token, end token, padding by the end
    token.
    """
    config = transformers.CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    return transformers.CLIPTextModel(config)


def build_scheduler(kind: str, prediction_type: str):
    """DDIM exactly as SD 1.4's script makes it, or Euler as SD 2's config yields it."""
    if kind == "ddim":
        return diffusers.DDIMScheduler(
            **SCHEDULE,
            prediction_type=prediction_type,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        )
    return diffusers.EulerDiscreteScheduler(**SCHEDULE, prediction_type=prediction_type)


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
