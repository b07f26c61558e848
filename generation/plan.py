"""A run, checked as far as is possible without a model: settings, prompts, method, folder."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from memorization_suite.detection import detectors
from memorization_suite.download.assets import hint
from memorization_suite.generation.screen import Screen, parse_screen
from memorization_suite.mitigation.base import Mitigation
from memorization_suite.mitigation.cli import method_from_args
from memorization_suite.mitigation.registry import methods
from memorization_suite.pipelines.models import (
    EMBEDDED,
    ROOT,
    check_unet,
    fingerprint,
    load_preset,
    resolve_model,
)
from memorization_suite.prompts.files import Prompt, read_prompts, sha256_of
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.environment import choose_device

OFFICIAL_PROMPTS = ROOT / "prompts" / "memorized_laion_prompts.csv"


@dataclass
class Settings:
    """The general flags. A field's default is the official script's, where that has the flag."""

    model_id: str = "CompVis/stable-diffusion-v1-4"
    unet_id: str | None = None
    prompts: str = ""
    start: int = 0
    end: int | None = None
    image_length: int = 512
    batch_size: int = 1
    n_samples_per_prompt: int = 10
    num_inference_steps: int = 50
    guidance_scale: float = 7.0
    seed: int = 2
    scheduler: str = "ddim"
    dtype: str = ""
    device: str = ""
    rng: str = "per_image"
    output_path: str = "generated_images"

    def check(self) -> None:
        """Raises ValueError for a number that makes no sense."""
        for name, low, high in (
            ("image_length", 8, 4096),
            ("batch_size", 1, 10_000),
            ("n_samples_per_prompt", 1, 10_000),
            ("num_inference_steps", 1, 1000),
            ("seed", 0, 2**63 - 1),
            ("start", 0, math.inf),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(
                    f"--{name} {value!r} is out of range: it must be a whole number from {low} to "
                    f"{high}"
                )
        if self.image_length % 8:
            raise ValueError(f"--image_length {self.image_length} must be a multiple of 8")
        if not math.isfinite(self.guidance_scale) or self.guidance_scale < 0:
            raise ValueError(
                f"--guidance_scale {self.guidance_scale} must be a finite number of at least 0"
            )


CHOICES = {
    "scheduler": ("ddim", "euler", "keep"),
    "dtype": ("fp32", "bf16", "fp16"),
    "rng": ("per_image", "official"),
}
IN_PRESETS = {
    "image_length": int,
    "batch_size": int,
    "n_samples_per_prompt": int,
    "num_inference_steps": int,
    "guidance_scale": float,
    "scheduler": str,
    "dtype": str,
}  # general flags that a preset may set
NOT_IDENTITY = (
    "start",
    "end",
    "output_path",
    "prompts",
    "device",
)  # what may differ when a run goes on


@dataclass
class Plan:
    """A run that was checked as far as is possible without a model."""

    settings: Settings
    mitigation: Mitigation
    prompts: list[Prompt]
    preset: str
    folder: Path
    save_latents: bool
    trace: bool
    screen: Screen | None = None

    def identity(self) -> dict:
        """Everything that decides the bytes of an image."""
        general = {
            name: value for name, value in asdict(self.settings).items() if name not in NOT_IDENTITY
        }
        general["model_id"] = fingerprint(self.settings.model_id)
        screened = {"screen": self.screen.identity()} if self.screen else {}
        return {
            **general,
            **screened,
            "method": self.mitigation.name,
            "method_settings": self.mitigation.settings(),
            "prompts_sha256": sha256_of(Path(self.settings.prompts)),
            "device": self.settings.device.split(":")[0],
        }

    def batches(self) -> list[tuple[int, list[Prompt]]]:
        """(number, prompts) of every batch of the file; batches are counted from row 0, so that a
        range has the same ones.
        """
        size = self.settings.batch_size
        return [(i // size, self.prompts[i : i + size]) for i in range(0, len(self.prompts), size)]

    def keys(self, prompts: list[Prompt]) -> list[Key]:
        return [
            Key(prompt.row, sample)
            for prompt in prompts
            for sample in range(self.settings.n_samples_per_prompt)
        ]

    def wanted(self, prompts: list[Prompt]) -> list[Key]:
        """Keys of the images that --start and --end ask for."""
        end = len(self.prompts) if self.settings.end is None else self.settings.end
        return [key for key in self.keys(prompts) if self.settings.start <= key.prompt < end]

    def is_finished(self, folder: RunFolder) -> bool:
        """Whether the run ended, and every image that is asked for is there."""
        ended = (folder.manifest() or {}).get("finished")
        return bool(ended) and folder.complete(
            latents=self.save_latents, trace=self.trace
        ).issuperset(self.wanted(self.prompts))


def plan_run(args: argparse.Namespace) -> Plan:
    """Checks everything that can be checked before a model is loaded. Raises ValueError."""
    model_id = getattr(args, "model_id", Settings.model_id)
    resolve_model(model_id)
    check_unet(getattr(args, "unet_id", None))
    source, preset = load_preset(args.preset, model_id)
    check_preset(source, preset)
    typed = {
        name: getattr(args, name) for name in Settings.__dataclass_fields__ if hasattr(args, name)
    }
    settings = Settings(**(preset.get("generate", {}) | typed))
    mitigation = method_from_args(args, preset)
    settings.check()
    mitigation.check(settings.num_inference_steps)
    settings.prompts = settings.prompts or str(default_prompts(model_id))
    prompts = read_prompts(Path(settings.prompts))
    check_range(settings, len(prompts))
    settings.device = choose_device(settings.device)
    settings.dtype = settings.dtype or ("bf16" if settings.device.startswith("cuda") else "fp32")
    screen = (
        parse_screen(args.screen, preset, settings.num_inference_steps) if args.screen else None
    )
    plan = Plan(
        settings,
        mitigation,
        prompts,
        source,
        run_folder(settings, mitigation, screen),
        args.save_latents,
        args.trace,
        screen,
    )
    mitigation.check_run(plan.identity())
    return plan


def check_preset(source: str, preset: dict) -> None:
    """Raises ValueError for a table or a general flag that does not exist, or a value of the wrong
    type.
    """
    for name, table in preset.items():
        if not isinstance(table, dict) or name not in ("generate", *methods(), *detectors()):
            raise ValueError(
                f"the preset {source} has {name!r}, which is neither the table 'generate' nor one "
                "of a method or a detector"
            )
    for name, value in preset.get("generate", {}).items():
        if name not in IN_PRESETS:
            raise ValueError(
                f"the preset {source} sets {name!r} in 'generate', which takes "
                f"{', '.join(IN_PRESETS)}"
            )
        if type(value) is not IN_PRESETS[name] and not (
            IN_PRESETS[name] is float and type(value) is int
        ):
            raise ValueError(
                f"the preset {source} sets {name} to {value!r}, which is not of type "
                f"{IN_PRESETS[name].__name__}"
            )
        if name in CHOICES and value not in CHOICES[name]:
            raise ValueError(
                f"the preset {source} sets {name} to {value!r}, which is none of "
                f"{', '.join(CHOICES[name])}"
            )


def run_folder(settings: Settings, mitigation: Mitigation, screen: Screen | None = None) -> Path:
    """<output_path>/<method>/<settings>_seed<seed>; numbers written with %g, so that 7 and 7.0 give
    the same folder.
    """
    values = {
        "g": settings.guidance_scale,
        **mitigation.settings(),
        **(screen.settings() if screen else {}),
        "seed": settings.seed,
    }
    return (
        Path(settings.output_path)
        / mitigation.name
        / "_".join(f"{name}{number_text(value)}" for name, value in values.items())
    )


def number_text(value) -> str:
    """%g for a float; whole numbers (seeds are long) and texts as they are."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def default_prompts(model_id: str) -> Path:
    """The embedded model's test prompts, or the official file. Raises ValueError when that is not
    there.
    """
    if model_id in EMBEDDED:
        return ROOT / "tiny" / "prompts" / f"{model_id}_memorized_test.csv"
    if not OFFICIAL_PROMPTS.exists():
        raise ValueError(
            f"the official prompt file {hint('memorized_laion_prompts')}. "
            "Or give another file with --prompts, or use the embedded model with --model_id tiny."
        )
    return OFFICIAL_PROMPTS


def check_range(settings: Settings, total: int) -> None:
    """Raises ValueError when --start and --end select nothing."""
    end = total if settings.end is None else settings.end
    if not settings.start < end <= total:
        raise ValueError(
            f"--start {settings.start} --end {end} is no range of the {total} rows of "
            f"{settings.prompts}: 0 <= start < end <= {total}"
        )
