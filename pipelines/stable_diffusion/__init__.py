"""Stable Diffusion 1 and 2, and what is built like them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from memorization_suite.pipelines.family import Family, can_load, register
from memorization_suite.pipelines.hub import is_reachable, revision_of
from memorization_suite.pipelines.kinds import UNET_FILES, Kind, Read, reader, side_of
from memorization_suite.pipelines.model_files import files_of_parts, former_files_of_part
from memorization_suite.pipelines.models import INDEX, read_index
from memorization_suite.pipelines.single_files import read_single_file
from memorization_suite.pipelines.stable_diffusion import fit
from memorization_suite.pipelines.stable_diffusion.originals import (
    ask_what_it_predicts,
    load_original,
)
from memorization_suite.pipelines.stable_diffusion.parts import (
    checked,
    only_variant,
    say_variant,
)
from memorization_suite.pipelines.stable_diffusion.schedulers import SCHEDULERS, scheduler_named
from memorization_suite.runs.lazy import Lazy, torch

if TYPE_CHECKING:
    from memorization_suite.pipelines.stable_diffusion.pipeline import MemorizationPipeline

diffusers = Lazy("diffusers")
transformers = Lazy("transformers")

# Parts that are never loaded: whether they are there, or whole, does not matter.
NEVER_LOADED = ("safety_checker", "feature_extractor", "image_encoder")
# Those that the identity of a run leaves out. The others stay in it, as they were: a run that was
# begun with them there goes on.
UNREAD = ("safety_checker",)


def pipeline_class() -> type[MemorizationPipeline]:
    """Imports diffusers when it is first needed: --help and wrong arguments need not wait."""
    return importlib.import_module(f"{__name__}.pipeline").MemorizationPipeline


@register(
    "stable_diffusion",
    title="Stable Diffusion",
    pipelines=("StableDiffusionPipeline", "MemorizationPipeline"),
)
class StableDiffusion(Family):
    """A UNet that predicts epsilon or v under cross-attention to CLIP's tokens."""

    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    schedulers = (*SCHEDULERS, "keep")

    def describe(self, read: Read) -> Kind:
        unet = read("unet/config.json")
        vae = read("vae/config.json")
        scheduler = read("scheduler/scheduler_config.json")
        downsampling = 2 ** (len(vae["block_out_channels"]) - 1)
        return Kind(
            prediction_type=scheduler.get("prediction_type", "epsilon"),
            native_size=latent_side(unet) * downsampling,
            text_width=unet["cross_attention_dim"],
            train_steps=scheduler.get("num_train_timesteps", 1000),
            downsampling=downsampling,
        )

    def files(self, folder: Path) -> list[Path]:
        return [folder / INDEX, *files_of_parts(folder, parts_read(folder))]

    def former_files(self, folder: Path) -> list[Path]:
        files = files_of_parts(folder, parts_read(folder), former_files_of_part)
        return [folder / INDEX, *files]

    def load(
        self,
        source: str,
        *,
        unet_id: str | None,
        dtype: str,
        device: str,
        scheduler: str,
        tokenizer: str = "",
    ) -> MemorizationPipeline:
        """As of `Family`. tokenizer: a folder, for a model of one file."""
        for library in (diffusers, transformers):
            library.utils.logging.disable_progress_bar()
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
        if unet_id:
            fit.check_unet(unet_id, reader(source))
        file = read_single_file(Path(source)) if Path(source).is_file() else None
        if file:
            pipe = load_original(file, pipeline_class(), dtype=kind, tokenizer=tokenizer)
        else:
            pipe = pipeline_class().from_pretrained(
                source,
                dtype=kind,
                **dict.fromkeys(NEVER_LOADED),
                requires_safety_checker=False,
                revision=None if Path(source).is_dir() else revision_of(source, INDEX),
                local_files_only=is_local(source),
            )
        if unet_id:
            with can_load("--unet_id", unet_id):
                pipe.register_modules(unet=load_unet(unet_id, kind))
        if file and file.open_fault():
            ask_what_it_predicts(pipe.to(device), file)
        if scheduler != "keep":
            pipe.scheduler = scheduler_named(scheduler, pipe.scheduler)
        fit.check_parts(pipe)
        torch.backends.cudnn.deterministic = True  # a resumed run repeats its images
        pipe.unet.requires_grad_(False)
        pipe.set_progress_bar_config(disable=True)
        pipe.to(device)
        fit.check_prediction(pipe, reader(source), unet_id)
        return pipe


def parts_read(folder: Path) -> list[str]:
    """The parts that a folder's index names, and that belong to the identity of a run."""
    listed = read_index(folder).items()
    loaded = [name for name, value in listed if isinstance(value, list) and any(value)]
    return [name for name in loaded if name not in UNREAD]


def latent_side(unet: dict) -> int:
    """Side of the latents that a UNet was trained for. Some files of 2022 say 32, which diffusers
    reads as 64; a version that cannot be read counts as new. Raises Unknown.
    """
    side = side_of(unet.get("sample_size"))
    version = re.match(r"(\d+)\.(\d+)", str(unet.get("_diffusers_version")))
    is_old = version is not None and (int(version[1]), int(version[2])) < (0, 9)
    return max(side, 64) if is_old else side


def is_local(source: str) -> bool:
    """Whether only files of this machine can be loaded."""
    return Path(source).is_dir() or not is_reachable()


def load_unet(unet_id: str, dtype: torch.dtype):
    """The UNet of a folder or hub id, itself or in its subfolder `unet`. Raises Incomplete."""
    revision = None if Path(unet_id).is_dir() else revision_of(unet_id, *UNET_FILES[::-1])

    def load(subfolder: str | None):
        folder = Path(unet_id) / (subfolder or "")
        variant = only_variant(folder, "the UNet") if folder.is_dir() else None
        say_variant(variant, "the UNet", folder)
        return checked(
            diffusers.UNet2DConditionModel,
            "the UNet",
            unet_id,
            subfolder=subfolder,
            variant=variant,
            torch_dtype=dtype,
            revision=revision,
            local_files_only=is_local(unet_id),
        )

    if (Path(unet_id) / "config.json").is_file():
        return load(None)
    try:
        return load("unet")
    except OSError:
        return load(None)
