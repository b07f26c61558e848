"""Screening: a detector decides, image by image, whether the mitigation is applied."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from memorization_suite.detection import Detector, build_detector
from memorization_suite.detection.trajectory import detect
from memorization_suite.mitigation.base import Mitigation
from memorization_suite.runs.lazy import torch
from memorization_suite.sampling import Batch, Denoiser
from memorization_suite.sampling.sample import Sample, predictor_of, sample

if TYPE_CHECKING:
    from memorization_suite.sampling.loop import OnStep


@dataclass(frozen=True)
class Screen:
    """Images whose score is above the threshold are mitigated."""

    detector: Detector
    threshold: float

    def named_values(self) -> dict:
        """For the folder's name."""
        return {"screen": f"{self.detector.name}{self.threshold:g}"}

    def identity(self) -> dict:
        """What decides who is mitigated."""
        return {
            "detector": self.detector.name,
            "detector_settings": self.detector.named_values(),
            "threshold": self.threshold,
        }


@dataclass(frozen=True)
class Treatment:
    """How images of one kind are sampled."""

    mitigation: Mitigation
    # Sees every step.
    on_step: OnStep | None = None


def parse_screen(text: str, preset: dict, steps: int, images: int) -> Screen:
    """DETECTOR:THRESHOLD; the detector's settings are the preset's or its defaults.

    images: of a prompt. Raises ValueError.
    """
    name, _, number = text.rpartition(":")
    try:
        threshold = float(number)
    except ValueError:
        threshold = math.nan
    if not name or not math.isfinite(threshold):
        raise ValueError(
            f"--screen {text!r} is not DETECTOR:THRESHOLD, for example noise_norm:1.2 "
            "(python detect_memorization.py calibrate threshold finds one)"
        )
    detector = build_detector(name, **preset.get(name, {}))
    lacking = detector.missing() or detector.too_few(images)
    if lacking:
        raise ValueError(f"--screen {name} {lacking}")
    detector.check(steps)
    return Screen(detector, threshold)


def sample_screened(
    screen: Screen,
    model: Denoiser,
    batch: Batch,
    noise: torch.Tensor,
    treatments: dict[bool, Treatment],
    options: dict[str, Any],
) -> tuple[Sample, torch.Tensor]:
    """The batch sampled with the mitigation, without it, or both ways when its images differ.

    Each image keeps the bytes of its own kind of run. treatments: by whether an image is flagged.
    options: num_inference_steps and guidance_scale. Returns the sample and who was flagged (n,)
    bool. An unflagged image costs the rows that the detector adds; a first-step score's prediction
    serves as step 0, so that it adds none.
    """
    predictor = predictor_of(model, batch, options["num_inference_steps"])
    seen = detect(
        [screen.detector],
        predictor,
        noise,
        undrawn(batch),
        options["guidance_scale"],
    )
    scores = seen.results[0].scores
    flagged = scores > screen.threshold  # nan is not above
    runs: dict[bool, Sample] = {}
    for kind in (True, False):
        if (flagged == kind).any():
            fresh = undrawn(batch, first=None if kind else seen.first)
            how = treatments[kind]
            runs[kind] = sample(model, fresh, noise, how.mitigation, on_step=how.on_step, **options)
    mitigated = runs[True] if True in runs else runs[False]
    plain = runs[False] if False in runs else runs[True]
    merged = merge(flagged, mitigated, plain)
    total = predictor.unet_evals
    for run in runs.values():
        total = total + run.unet_evals
    numbers = {"screen_score": scores, "mitigated": flagged.float(), **merged.numbers}
    for name, rows in predictor.smaller_passes().items():
        # The smaller of the two; fmin passes over nan.
        numbers[name] = torch.fmin(rows, numbers.get(name, rows))
    return replace(merged, unet_evals=total, numbers=numbers), torch.as_tensor(flagged)


def undrawn(batch: Batch, **changes: Any) -> Batch:
    """The batch with its streams where they are now: schedulers that draw noise move them on."""
    return replace(batch, generator=[one.clone_state() for one in batch.generator], **changes)


def merge(flagged: torch.Tensor, mitigated: Sample, plain: Sample) -> Sample:
    """Rows of `mitigated` where flagged (n,), else of `plain`.

    A figure is nan where an image's own sample has none.
    """

    def chosen(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        where = flagged.to(a.device).reshape(-1, *[1] * (a.ndim - 1))
        return torch.where(where, a, b)

    parts = {
        field.name: chosen(getattr(mitigated, field.name), getattr(plain, field.name))
        for field in fields(plain)
        if field.name != "numbers"
    }
    numbers = {}
    for name, values in (plain.numbers | mitigated.numbers).items():
        absent = torch.full_like(values, torch.nan, dtype=torch.float32)
        ours, theirs = (run.numbers.get(name, absent).float() for run in (mitigated, plain))
        numbers[name] = chosen(ours, theirs)
    return replace(plain, **parts, numbers=numbers)
