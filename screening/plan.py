"""A detection run, checked as far as is possible without a model."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from memorization_suite.detection import Detector, build_detector, detectors
from memorization_suite.pipelines.models import (
    EMBEDDED,
    ROOT,
    fingerprint,
    load_preset,
    resolve_model,
)
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.environment import choose_device
from memorization_suite.sampling.flags import flag_owners, flags
from memorization_suite.screening.folder import ScoreFolder
from memorization_suite.screening.prompt_sets import check_source, read_source

CHOICES = {
    "scheduler": ("ddim", "euler", "keep"),
    "dtype": ("fp32", "bf16", "fp16"),
    "rng": ("per_image", "official"),
}
FROM_PRESET = ("image_length", "scheduler", "num_inference_steps", "dtype")
NOT_IDENTITY = ("output_path", "prompts", "nonmem_prompts", "device", "batch_size", "end")


@dataclass
class Settings:
    """The general flags."""

    model_id: str = "CompVis/stable-diffusion-v1-4"
    prompts: str = ""
    nonmem_prompts: str = ""
    nonmem_count: int = 500
    end: int | None = None
    image_length: int = 512
    n_samples_per_prompt: int = 4
    batch_size: int = 1
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    seed: int = 0
    scheduler: str = "ddim"
    dtype: str = ""
    device: str = ""
    rng: str = "per_image"
    output_path: str = "detections"

    def check(self) -> None:
        """Raises ValueError for a number that makes no sense."""
        for name, low, high in (
            ("image_length", 8, 4096),
            ("batch_size", 1, 10_000),
            ("n_samples_per_prompt", 1, 10_000),
            ("nonmem_count", 1, 10**7),
            ("num_inference_steps", 1, 1000),
            ("seed", 0, 2**63 - 1),
            ("end", 1, 10**9),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
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


@dataclass
class Plan:
    """What a command line would do."""

    settings: Settings
    detectors: list[Detector]
    left_out: dict[str, str]  # with --detector all: name -> why
    sets: dict[str, list[Prompt]]  # mem, and nonmem if it was given
    save_masks: bool

    def folder(self, detector: Detector) -> ScoreFolder:
        return ScoreFolder(Path(self.settings.output_path) / detector.name)

    def identity(self, detector: Detector) -> dict:
        """Everything that decides a detector's scores."""
        general = {
            name: value for name, value in asdict(self.settings).items() if name not in NOT_IDENTITY
        }
        general["model_id"] = fingerprint(self.settings.model_id)
        sources = {
            name: [prompt.caption for prompt in prompts] for name, prompts in self.sets.items()
        }
        return {
            **general,
            "detector": detector.name,
            "detector_settings": detector.settings(),
            "device": self.settings.device.split(":")[0],
            **{f"{name}_prompts": text_hash(captions) for name, captions in sources.items()},
        }


def text_hash(captions: list[str]) -> str:
    """A hash over the captions of a set."""
    import hashlib

    return hashlib.sha256("\0".join(captions).encode()).hexdigest()[:16]


def plan_detection(args: argparse.Namespace) -> Plan:
    """Checks everything that can be checked before a model is loaded. Raises ValueError."""
    model_id = getattr(args, "model_id", Settings.model_id)
    resolve_model(model_id)
    _, preset = load_preset(args.preset, model_id)
    general = {
        name: value for name, value in preset.get("generate", {}).items() if name in FROM_PRESET
    }
    typed = {
        name: getattr(args, name) for name in Settings.__dataclass_fields__ if hasattr(args, name)
    }
    settings = Settings(**(general | typed))
    settings.check()
    chosen, left_out = choose(args, preset, settings.num_inference_steps)
    settings.prompts, settings.nonmem_prompts = prompt_sources(settings)
    for flag in ("prompts", "nonmem_prompts"):
        if getattr(settings, flag):
            check_source(flag, getattr(settings, flag))
    settings.device = choose_device(settings.device)
    settings.dtype = settings.dtype or ("bf16" if settings.device.startswith("cuda") else "fp32")
    folder = Path(settings.output_path) / "prompt_sets"
    sources = {"mem": settings.prompts, "nonmem": settings.nonmem_prompts}
    sets = {
        name: read_source(source, folder, settings.nonmem_count, settings.seed)[: settings.end]
        for name, source in sources.items()
        if source
    }
    return Plan(settings, chosen, left_out, sets, args.save_masks)


def prompt_sources(settings: Settings) -> tuple[str, str]:
    """The two prompt sets; an embedded model has its own. Raises ValueError when there is none."""
    if settings.prompts or settings.model_id not in EMBEDDED:
        if not settings.prompts:
            raise ValueError(
                "give the prompts to be looked at with --prompts (and ordinary ones to compare "
                "with --nonmem_prompts), "
                "or use the embedded model with --model_id tiny"
            )
        return settings.prompts, settings.nonmem_prompts
    own = [
        str(ROOT / "tiny" / "prompts" / f"{settings.model_id}_{kind}_test.csv")
        for kind in ("memorized", "ordinary")
    ]
    return own[0], settings.nonmem_prompts or own[1]


def choose(
    args: argparse.Namespace, preset: dict, steps: int
) -> tuple[list[Detector], dict[str, str]]:
    """The detectors with what was typed, else the preset's values, else their defaults. Raises
    ValueError.
    """
    known, owners = detectors(), flag_owners(detectors())
    everything = args.detector == "all"
    names = list(known) if everything else list(dict.fromkeys(args.detector.split(",")))
    for name in names:
        if name not in known:
            raise ValueError(
                f"there is no detector {name!r}; there are all, {', '.join(known)} "
                "(--list_detectors tells more)"
            )
    typed = {flag: getattr(args, flag) for flag in owners if hasattr(args, flag)}
    for flag in typed:
        if not any(name in names for name, _ in owners[flag]):
            raise ValueError(
                f"--detector {args.detector} does not take --{flag} (a flag of "
                f"{', '.join(name for name, _ in owners[flag])})"
            )
    chosen, left_out = [], {}
    for name in names:
        own = {option.name for option in flags(known[name])}
        detector = build_detector(
            name,
            **(
                preset.get(name, {}) | {flag: value for flag, value in typed.items() if flag in own}
            ),
        )
        reason = detector.missing()
        if reason and not everything:
            raise ValueError(f"--detector {name} {reason}")
        if reason:
            left_out[name] = reason
        else:
            detector.check(steps)
            chosen.append(detector)
    return chosen, left_out
