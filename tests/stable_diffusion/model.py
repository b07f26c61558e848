"""A folder like Stable Diffusion 1.4's on the hub with narrow layers: its files, the entries of its
configurations, the names of its tensors, random weights.

Old files have old names: the VAE's attention says query, key, value and proj_attn, the text encoder
stores position_ids, and model_index.json names a safety checker that is not fetched.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from memorization_suite.tiny.tokenizer import BOS, EOS, train_tokenizer

WIDTH = 32  # of the text's embedding
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.2.2",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.7.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [32, 64, 64, 64],
    "center_input_sample": False,
    "cross_attention_dim": WIDTH,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "block_out_channels": [32, 32, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TEXT = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": WIDTH,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 1,
    "torch_dtype": "float32",
    "transformers_version": "4.21.0.dev0",
}
IMAGES = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def write_model(folder: Path, captions: list[str]) -> None:
    """The files that download/assets.toml names of it. captions: what its tokenizer learns from."""
    import diffusers
    import transformers

    write(folder / "model_index.json", INDEX)
    write(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    write(folder / "feature_extractor" / "preprocessor_config.json", IMAGES)
    entries = write_tokenizer(folder / "tokenizer", captions)

    write(folder / "unet" / "config.json", UNET)
    unet = diffusers.UNet2DConditionModel.from_config(UNET)
    store(unet.state_dict(), folder / "unet" / "diffusion_pytorch_model.safetensors")

    write(folder / "vae" / "config.json", VAE)
    vae = diffusers.AutoencoderKL.from_config(VAE).state_dict()
    store(renamed(vae), folder / "vae" / "diffusion_pytorch_model.safetensors")

    text = TEXT | {"vocab_size": entries}
    write(folder / "text_encoder" / "config.json", text)
    encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig(**text)).state_dict()
    named = {f"text_model.{name.removeprefix('text_model.')}": encoder[name] for name in encoder}
    named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    store(named, folder / "text_encoder" / "model.safetensors")


def write_tokenizer(folder: Path, captions: list[str]) -> int:
    """CLIP's four files. Returns the number of entries."""
    kept = folder.with_name("kept")
    tokenizer = train_tokenizer(captions, 600, kept)
    folder.mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(kept / name, folder)
    shutil.rmtree(kept)
    special = {}
    for name, content in (("bos_token", BOS), ("eos_token", EOS), ("unk_token", EOS)):
        plain = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        special[name] = {"content": content, **plain}
    special["pad_token"] = EOS
    write(folder / "special_tokens_map.json", special)
    settings = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace"}
    settings |= {"model_max_length": 77, "name_or_path": "openai/clip-vit-large-patch14"}
    settings |= {"special_tokens_map_file": "./special_tokens_map.json", "pad_token": EOS}
    settings["tokenizer_class"] = "CLIPTokenizer"
    for name in ("bos_token", "eos_token", "unk_token"):
        settings[name] = {"__type": "AddedToken", **special[name]}
    write(folder / "tokenizer_config.json", settings)
    return len(tokenizer)


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The VAE's tensors by their names of 2022."""
    old = {}
    for name, tensor in state.items():
        if ".attentions." in name:
            for ours, theirs in OLD_NAMES.items():
                name = name.replace(f".{ours}.", f".{theirs}.")
        old[name] = tensor
    return old


def write(path: Path, content: dict) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def store(state: dict[str, torch.Tensor], path: Path) -> None:
    """A safetensors file."""
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
