"""Loading a model, and saying plainly why it cannot be loaded or run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from memorization_suite import pipelines
from memorization_suite.lazy import Lazy, torch
from memorization_suite.pipelines.models import resolve_model

if TYPE_CHECKING:
    from memorization_suite.pipelines import MemorizationPipeline

diffusers = Lazy("diffusers")
transformers = Lazy("transformers")

# --scheduler -> class, and what its grid and steps must be whatever the model's config says or
# omits.
SCHEDULERS = {
    "ddim": (
        "DDIMScheduler",
        {
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "timestep_spacing": "leading",
        },
    ),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "linspace"}),
}


def load_pipeline(
    model_id: str,
    *,
    unet_id: str | None = None,
    dtype: str = "fp32",
    device: str = "cpu",
    scheduler: str = "keep",
) -> MemorizationPipeline:
    """The model, frozen, without a safety checker.

    dtype: fp32, bf16, fp16. scheduler: ddim, euler, keep. Raises ValueError when the model is
    neither here nor can be fetched, or is none that the suite can run.
    """
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    pipeline_class = pipelines.MemorizationPipeline
    try:
        pipe = pipeline_class.from_pretrained(
            resolve_model(model_id), dtype=kind, safety_checker=None, requires_safety_checker=False
        )
    except Exception as error:  # the libraries raise a dozen kinds for one fact
        raise ValueError(missing_model("--model_id", model_id, error)) from error
    if unet_id:
        pipe.register_modules(unet=load_unet(unet_id, kind))
    if scheduler != "keep":
        name, settings = SCHEDULERS[scheduler]
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **settings)
    check_architecture(pipe)
    torch.backends.cudnn.deterministic = True  # a resumed run repeats its images
    pipe.unet.requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def load_unet(unet_id: str, dtype: torch.dtype):
    """The UNet of a folder or hub id, itself or in its subfolder `unet`. Raises ValueError."""

    def load(subfolder: str | None):
        return diffusers.UNet2DConditionModel.from_pretrained(
            unet_id, subfolder=subfolder, torch_dtype=dtype
        )

    try:
        if (Path(unet_id) / "config.json").is_file():
            return load(None)
        try:
            return load("unet")
        except OSError:
            return load(None)
    except Exception as error:  # as in load_pipeline
        raise ValueError(missing_model("--unet_id", unet_id, error)) from error


def check_architecture(pipe: MemorizationPipeline) -> None:
    """Raises ValueError for what loads but cannot be run as a Stable Diffusion 1 or 2."""
    fault = fault_of(pipe)
    if fault:
        raise ValueError(f"this model cannot be run here: {fault}")


def fault_of(pipe: MemorizationPipeline) -> str:
    """What is not as in Stable Diffusion 1 or 2; empty when all is."""
    scheduler = pipe.scheduler.config
    unet = pipe.unet.config
    kind = scheduler.get("prediction_type")
    if kind not in ("epsilon", "v_prediction"):
        return f"its scheduler's prediction_type is {kind!r}, not 'epsilon' or 'v_prediction'"
    if scheduler.get("rescale_betas_zero_snr"):
        return "its schedule ends at zero signal-to-noise, where v cannot be turned into noise"
    latent_channels = pipe.vae.config.latent_channels
    if unet.in_channels != latent_channels:
        return f"its UNet reads {unet.in_channels} channels, its VAE gives {latent_channels}"
    width = pipe.text_encoder.config.hidden_size
    if unet.cross_attention_dim != width:
        return (
            f"its UNet wants text of width {unet.cross_attention_dim}, its text encoder gives "
            f"{width}"
        )
    if unet.addition_embed_type is not None:
        return "its UNet wants additional embeddings (Stable Diffusion XL?)"
    return ""


def missing_model(flag: str, model_id: str, error: Exception) -> str:
    """The message for a model that cannot be loaded."""
    if Path(model_id).exists():
        where = "it is not complete"
    else:
        where = "it is not on this machine and the hub cannot be reached, or has no such model"
    return (
        f"cannot load {flag} {model_id}: {where} ({type(error).__name__}). "
        "Give a local diffusers folder (download/README.md tells how to get one), or use the "
        "embedded model with --model_id tiny."
    )
