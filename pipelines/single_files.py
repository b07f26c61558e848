"""Checkpoints of one .safetensors file, known by the names and shapes of their tensors. No weights
are read.

A file holds no configurations: `layouts.toml` has those of the models that are known.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from memorization_suite import ROOT
from memorization_suite.runs.pointers import pointer_fault
from memorization_suite.runs.text import first_of
from memorization_suite.runs.whole import tensors_fault, tensors_header

LAYOUTS = ROOT / "pipelines" / "layouts.toml"
INDEX = {"_class_name": "StableDiffusionPipeline"}
# How the names of tensors begin: of the UNet, its averaged copy, and the VAE.
UNET = "model.diffusion_model."
AVERAGED = "model_ema."
VAE = "first_stage_model."
# Tensors of the UNet that tell its channels, and the width of its text.
FIRST = f"{UNET}input_blocks.0.0.weight"
TEXT_KEYS = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
# The first bytes of a pickle, and of a zip with one.
PICKLES = (b"\x80", b"PK\x03\x04")
PICKLE_NAMES = (".ckpt", ".pt", ".pth", ".bin")
# What else a file may be, in the order of asking, and what in a name of a tensor says so.
OTHERS = {
    "a LoRA, changes of a model and no model": (
        "lora_",
        ".lora.",
        ".lora_A.",
        ".hada_w1",
        ".lokr_w1",
    ),
    "a ControlNet": ("control_model.", "controlnet_cond_embedding.", "input_hint_block."),
    "Stable Diffusion 3": ("joint_blocks.",),
    "Flux": ("double_blocks.", "double_stream_modulation", "single_transformer_blocks."),
    "Stable Diffusion XL": ("conditioner.embedders.", "add_embedding."),
    "a model of moving pictures": ("motion_modules.",),
    "an embedding of textual inversion": ("emb_params", "string_to_param"),
}
# Parts of a model alone, by names that are all of a part's.
ALONE: dict[str, tuple[str, ...]] = {
    "the UNet of a diffusers folder alone (--unet_id takes such a folder)": ("time_embedding.",),
    "a VAE alone": ("encoder.conv_in.", "decoder.conv_in.", VAE),
    "a text encoder alone": ("text_model.", "encoder.layers.", "cond_stage_model."),
}
# Channels that the UNet of another model of the same layout reads.
CHANNELS = {
    5: "a model that reads a depth map",
    7: "a model that enlarges pictures",
    8: "a model that edits pictures (InstructPix2Pix)",
    9: "an inpainting model",
}
# Values of `modelspec.prediction_type` in a file's header.
SAID = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon", "eps": "epsilon"}
TAKES = "--model_id takes a diffusers folder, a hub id, or one file of Stable Diffusion 1 or 2"


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint that can be loaded."""

    path: Path
    # Name of a tensor -> its shape.
    shapes: Mapping[str, tuple[int, ...]]
    # Of layouts.toml.
    layout: Mapping[str, Any]
    # `epsilon`, `v_prediction`; None where only its network can tell.
    predicts: str | None

    @cached_property
    def is_averaged(self) -> bool:
        """Whether there is an averaged copy of the whole UNet, with which images are made."""
        names = [name for name in self.shapes if name.startswith(UNET)]
        return all(averaged_name(name) in self.shapes for name in names)

    def read(self, name: str) -> dict:
        """What a folder of this model has in a JSON file. Raises ValueError for another name."""
        part = name.partition("/")[0]
        if part == "model_index.json":
            return dict(INDEX)
        if part not in ("unet", "vae", "text_encoder", "scheduler"):
            raise ValueError(f"{self.path} has no {name}")
        return self.config(part, self.predicts)

    def config(self, part: str, predicts: str | None) -> dict:
        """The configuration of a part of a model that predicts this, if that is known."""
        config = config_of(self.layout, part, predicts)
        if part == "scheduler" and "ztsnr" in self.shapes:
            config["rescale_betas_zero_snr"] = True
        return config

    def open_fault(self) -> str:
        """What cannot be told without its network; empty if all can."""
        if self.predicts or not self.layout.get("same_tensors"):
            return ""
        return (
            f"{self.path} is {self.layout['title']}, whose models of 512 and of 768 pixels have "
            "the same tensors, and its header does not tell which it is"
        )


def read_single_file(path: Path) -> SingleFile:
    """A checkpoint by its header. Raises ValueError that says what the file is, if no such."""
    fault = pointer_fault(path) or fault_of_format(path)
    if fault:
        raise ValueError(fault)
    header, _ = tensors_header(path)
    told = header.pop("__metadata__", None) or {}
    try:
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
        fault = fault_of_kind(shapes)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{path} is no safetensors file: it does not say its shapes") from error
    if fault:
        raise ValueError(f"{path} is {fault}. {TAKES}")
    layout, fault = layout_of(shapes)
    if layout is None:
        raise ValueError(f"{path} is {fault}. {TAKES}")
    return SingleFile(path, shapes, layout, prediction(told, shapes, layout))


def averaged_name(name: str) -> str:
    """What the averaged copy of a tensor of the UNet is called."""
    return AVERAGED + name.removeprefix("model.").replace(".", "")


# --- what is refused ---


def fault_of_format(path: Path) -> str:
    """Why a file is no safetensors file that is whole, as a sentence; empty if it is."""
    fault = tensors_fault(path)
    if not fault:
        return ""
    if path.suffix == ".safetensors":
        return f"{path} {fault}"
    with open(path, "rb") as file:
        start = file.read(4)
    if path.suffix in PICKLE_NAMES or start.startswith(PICKLES):
        return (
            f"{path} is a pickle, which can run programs when it is loaded. Where its source has a "
            f".safetensors file, take that; else {safe_copy(path)}"
        )
    return f"{path} is a file and no .safetensors checkpoint. {TAKES}"


def safe_copy(path: Path) -> str:
    """How the tensors of a pickle are taken out of it, without running what else is in it."""
    out = path.with_suffix(".safetensors")
    return (
        'make one, with nothing but its tensors: python -c "import torch; from safetensors.torch '
        f"import save_file; d = torch.load('{path}', map_location='cpu', weights_only=True); d = "
        "d.get('state_dict', d); save_file({k: v.contiguous().clone() for k, v in d.items() if "
        f"hasattr(v, 'shape')}}, '{out}')\""
    )


def fault_of_kind(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What a file is that is no Stable Diffusion 1 or 2; empty if it may be one."""
    if not shapes:
        return "empty: it has no tensors"
    for what, signs in OTHERS.items():
        if any(sign in name for name in shapes for sign in signs):
            return what
    if FIRST in shapes:
        return fault_of_channels(shapes) or fault_of_parts(shapes)
    for what, begins in ALONE.items():
        if any(name.startswith(begins) for name in shapes):
            return what
    return f"of a kind that is not known; its tensors are {first_of(sorted(shapes), 3)}"


def fault_of_channels(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Which other model a UNet is of, by what it reads; empty if it reads latents alone."""
    channels = shapes[FIRST][1]
    if channels != 4:
        return CHANNELS.get(channels, f"a model that reads {channels} channels")
    if any(name.startswith(f"{UNET}label_emb.") for name in shapes):
        return "a model that needs class labels, sizes or an image (label_emb)"
    return ""


def fault_of_parts(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Which part is not in a file; empty if all are."""
    parts = {"VAE": VAE, "text encoder": "cond_stage_model."}
    missing = []
    for part, begin in parts.items():
        if not any(name.startswith(begin) for name in shapes):
            missing.append(f"{part} ({begin}*)")
    return f"Stable Diffusion without its {' and its '.join(missing)}" if missing else ""


# --- what is loaded ---


def layouts() -> dict[str, dict[str, Any]]:
    """What layouts.toml has."""
    return tomllib.loads(LAYOUTS.read_text(encoding="utf-8"))


def config_of(layout: Mapping[str, Any], part: str, predicts: str | None) -> dict[str, Any]:
    """The configuration of a part, of a layout whose network predicts this, if that is known."""
    return {**layout[part], **layout["predicts"].get(predicts, {}).get(part, {})}


def layout_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Any] | None, str]:
    """(the layout with these names and widths, or what the file is instead)."""
    known = []
    for layout in layouts().values():
        if not any(name.startswith(layout["text"]) for name in shapes):
            continue
        widths = (layout["unet"]["block_out_channels"][0], layout["unet"]["cross_attention_dim"])
        if widths == (shapes[FIRST][0], shapes.get(TEXT_KEYS, (0, 0))[-1]):
            return layout, ""
        known.append(f"{layout['title']} has {widths[0]} and {widths[1]}")
    if not known:
        return None, "Stable Diffusion with a text encoder that is not known"
    found = f"{shapes[FIRST][0]} channels and text of width {shapes.get(TEXT_KEYS, (0, 0))[-1]}"
    return None, f"of a width that is not known: {found}; {', '.join(known)}"


def prediction(
    told: Mapping[str, Any], shapes: Mapping[str, Any], layout: Mapping[str, Any]
) -> str | None:
    """What a model predicts, by its header; None where that does not say it.

    told: its metadata. Trainers that mean v add a tensor of this name.
    """
    said = SAID.get(str(told.get("modelspec.prediction_type", "")).lower())
    if said:
        return said
    architecture = str(told.get("modelspec.architecture", ""))
    if "v_pred" in shapes or architecture.startswith("stable-diffusion-v2-768-v"):
        return "v_prediction"
    if architecture.startswith("stable-diffusion-v2-512"):
        return "epsilon"
    return None if layout.get("same_tensors") else next(iter(layout["predicts"]))
