"""What a calibration samples: model, prompts and sampler, with the same flags as
generate_images.py.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.pipelines.models import (
    EMBEDDED,
    check_unet,
    fingerprint,
    load_preset,
    resolve_model,
)
from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.runs.environment import choose_device

CHOICES = {"scheduler": ("ddim", "euler", "keep"), "dtype": ("fp32", "bf16", "fp16")}
FROM_PRESET = ("image_length", "scheduler", "num_inference_steps", "guidance_scale", "dtype")
LIMITS = {
    "image_length": (8, 4096),
    "n_samples_per_prompt": (1, 10_000),
    "batch_size": (1, 10_000),
    "num_inference_steps": (1, 1000),
    "seed": (0, 2**63 - 1),
}
SHORT = {"n_samples_per_prompt": "-n", "batch_size": "-b"}
HELP = {
    "model_id": f"hub id, local diffusers folder, or an embedded model: {', '.join(EMBEDDED)}",
    "unet_id": "folder or hub id of another UNet",
    "prompts": "ordinary prompts: .csv, .txt or .jsonl",
    "image_length": "height and width in pixels",
    "n_samples_per_prompt": "images per prompt",
    "batch_size": "prompts per batch",
    "num_inference_steps": "sampling steps",
    "guidance_scale": "classifier-free guidance",
    "seed": "seed of the noises",
    "scheduler": "keep: the model's own",
    "dtype": "default: bf16 on CUDA, fp32 on the CPU",
    "device": "default: cuda if there is one",
}


@dataclass
class Settings:
    """The flags. Those of the sampler have generate_images.py's defaults, so that the values are of
    its runs.
    """

    model_id: str = "CompVis/stable-diffusion-v1-4"
    unet_id: str | None = None
    prompts: str = ""
    image_length: int = 512
    n_samples_per_prompt: int = 1
    batch_size: int = 1
    num_inference_steps: int = 50
    guidance_scale: float = 7.0
    seed: int = 0
    scheduler: str = "ddim"
    dtype: str = ""
    device: str = ""

    def check(self) -> None:
        """Raises ValueError for a number that makes no sense."""
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"--{name} {getattr(self, name)} is out of range: it must be a whole number "
                    f"from {low} to {high}"
                )
        if self.image_length % 8:
            raise ValueError(f"--image_length {self.image_length} must be a multiple of 8")
        if not math.isfinite(self.guidance_scale) or self.guidance_scale < 0:
            raise ValueError(
                f"--guidance_scale {self.guidance_scale} must be a finite number of at least 0"
            )

    def identity(self) -> dict:
        """What a run must share with this one, by the names that generate_images.py's identity
        has.
        """
        return {"model_id": fingerprint(self.model_id)} | {
            name: getattr(self, name)
            for name in (
                "unet_id",
                "scheduler",
                "num_inference_steps",
                "guidance_scale",
                "image_length",
                "dtype",
            )
        }


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `Settings`, --preset and --quiet; what is not typed is absent from the
    namespace, so that a preset can fill it.
    """
    kinds = {"int": int, "float": float, "str": str}
    for name, option in Settings.__dataclass_fields__.items():
        shown = f" (default {option.default})" if option.default not in ("", None) else ""
        names = [f"--{name}", *([SHORT[name]] if name in SHORT else [])]
        parser.add_argument(
            *names,
            type=kinds[str(option.type).split(" ")[0]],
            choices=CHOICES.get(name),
            required=name == "prompts",
            help=HELP[name] + shown,
            default=argparse.SUPPRESS,
        )
    parser.add_argument(
        "--preset",
        default="auto",
        metavar="{auto,none,FILE}",
        help="values of the sampler for flags that were not typed (default auto: the model's own)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def plan_sampling(args: argparse.Namespace) -> tuple[Settings, list[Prompt]]:
    """Settings and prompts, checked as far as is possible without a model. Raises ValueError."""
    model_id = getattr(args, "model_id", Settings.model_id)
    resolve_model(model_id)
    check_unet(getattr(args, "unet_id", None))
    preset = load_preset(args.preset, model_id)[1].get("generate", {})
    typed = {
        name: getattr(args, name) for name in Settings.__dataclass_fields__ if hasattr(args, name)
    }
    settings = Settings(
        **({name: value for name, value in preset.items() if name in FROM_PRESET} | typed)
    )
    settings.check()
    prompts = read_prompts(Path(settings.prompts))
    settings.device = choose_device(settings.device)
    settings.dtype = settings.dtype or ("bf16" if settings.device.startswith("cuda") else "fp32")
    return settings, prompts


def check_out(path: Path) -> None:
    """Raises ValueError when no file can be written there."""
    if not path.parent.is_dir() or path.is_dir():
        raise ValueError(f"--out {path} is no file name in a folder that exists")
