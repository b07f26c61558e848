"""Models by name: the embedded ones, a local diffusers folder, or a hub id. Checks that need no heavy import come first."""
from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
EMBEDDED = {name: ROOT / "tiny" / "weights" / name for name in ("tiny", "tiny-v")}
PRESETS = ROOT / "pipelines" / "presets.toml"


def resolve_model(model_id: str) -> str:
    """Folder or hub id to load from. Raises ValueError for a folder that is no diffusers model, or a name that is neither."""
    if model_id in EMBEDDED:
        if not EMBEDDED[model_id].is_dir():
            raise ValueError(f"the embedded model {model_id} is not in {EMBEDDED[model_id]}: this checkout lacks it (make train-tiny builds it)")
        model_id = str(EMBEDDED[model_id])
    if Path(model_id).exists():
        check_model_folder(Path(model_id))
        return model_id
    if model_id.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", model_id):
        raise ValueError(f"there is no model {model_id!r}: give a diffusers folder, a hub id like owner/name, "
                         f"or an embedded model ({', '.join(EMBEDDED)})")
    return model_id


def check_model_folder(folder: Path) -> None:
    """Raises ValueError when the folder lacks what a Stable Diffusion pipeline needs."""
    index = folder / "model_index.json"
    try:
        parts = dict(json.loads(index.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder} is no diffusers model: it has no readable model_index.json") from error
    missing = [part for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler") if part not in parts or not (folder / part).is_dir()]
    if missing:
        raise ValueError(f"{folder} is no Stable Diffusion model: it has no {', '.join(missing)}")


def load_preset(preset: str, model_id: str) -> tuple[str, dict[str, dict]]:
    """(where it is from, tables `generate` and one a method) for --preset. Raises ValueError for an unreadable file.

    `auto`: presets.toml in the model's folder, else ours for known hub ids, else nothing. `none`: nothing. Else a file.
    """
    if preset == "none":
        return "none", {}
    if preset != "auto":
        return preset, read_toml(Path(preset))
    own = Path(str(EMBEDDED.get(model_id, model_id))) / "presets.toml"
    if own.is_file():
        return f"{model_id}'s own", read_toml(own)
    known = read_toml(PRESETS)
    return (f"ours for {model_id}", known[model_id]) if model_id in known else ("none", {})


def read_toml(path: Path) -> dict[str, dict]:
    """Tables of a TOML file. Raises ValueError when it cannot be read."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the preset {path}: {error}") from error
    return tables


def load_pipeline(model_id: str, *, unet_id: str | None, dtype: str, device: str, scheduler: str):
    """A MemorizationPipeline, frozen, without a safety checker. dtype: fp32, bf16, fp16; scheduler: ddim, euler, keep.

    Raises ValueError when the model is neither here nor can be fetched.
    """
    import diffusers
    import torch
    import transformers
    from diffusers import DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel

    from pipelines.memorization_pipeline import MemorizationPipeline

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    try:
        pipe = MemorizationPipeline.from_pretrained(resolve_model(model_id), dtype=dtypes[dtype], safety_checker=None, requires_safety_checker=False)
        if unet_id:
            subfolder = "unet" if (Path(unet_id) / "unet").is_dir() else None
            pipe.register_modules(unet=UNet2DConditionModel.from_pretrained(unet_id, subfolder=subfolder, torch_dtype=dtypes[dtype]))
    except (OSError, ValueError) as error:
        raise ValueError(missing_model(model_id, error)) from error
    if scheduler != "keep":
        kinds = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}
        pipe.scheduler = kinds[scheduler].from_config(pipe.scheduler.config)
    pipe.unet.requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def missing_model(model_id: str, error: Exception) -> str:
    """The message for a model that cannot be loaded."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (f"cannot load the model {model_id}: {reason} Give a local diffusers folder with --model_id (download/README.md tells how to get one), "
            "or use the embedded model with --model_id tiny.")
