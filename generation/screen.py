"""Screening: a detector decides, image by image, whether the mitigation is applied."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from memorization_suite.detection import Detector, build_detector
from memorization_suite.mitigation.base import Mitigation

if TYPE_CHECKING:
    import torch

    from memorization_suite.generation.run import Trace
    from memorization_suite.pipelines import Sample
    from memorization_suite.sampling import Batch, Prediction


@dataclass(frozen=True)
class Screen:
    """Images whose score is above the threshold are mitigated."""

    detector: Detector
    threshold: float

    def settings(self) -> dict:
        """For the folder's name."""
        return {"screen": f"{self.detector.name}{self.threshold:g}"}

    def identity(self) -> dict:
        return {
            "detector": self.detector.name,
            "detector_settings": self.detector.settings(),
            "threshold": self.threshold,
        }


def parse_screen(text: str, preset: dict, steps: int) -> Screen:
    """DETECTOR:THRESHOLD; the detector's other settings are the preset's or its defaults. Raises
    ValueError.
    """
    name, _, number = text.rpartition(":")
    try:
        threshold = float(number)
    except ValueError:
        threshold = math.nan
    if not name or not math.isfinite(threshold):
        raise ValueError(
            f"--screen {text!r} is not DETECTOR:THRESHOLD, for example noise_norm:1.2 (python "
            "calibrate.py threshold finds one)"
        )
    detector = build_detector(name, **preset.get(name, {}))
    if detector.missing():
        raise ValueError(f"--screen {name} {detector.missing()}")
    detector.check(steps)
    return Screen(detector, threshold)


def screen_scores(
    screen: Screen, pipe, batch: Batch, noise: torch.Tensor, steps: int, guidance_scale: float
):
    """(score of each image (n,), UNet rows of each (n,), the prediction of step 0 if the trajectory
    made it as sampling will).
    """
    from memorization_suite.detection.trajectory import detect
    from memorization_suite.sampling import NoisePredictor

    pipe.scheduler.set_timesteps(steps, device=noise.device)
    predictor = NoisePredictor(
        pipe.unet, pipe.scheduler, pipe.encode(batch.prompts), pipe.encode([""] * len(batch))
    )
    seen = detect(
        [screen.detector],
        pipe.scheduler,
        predictor,
        noise,
        guidance_scale,
        batch,
        lambda latents: pipe.decode(latents, "pt")[0],
    )
    return seen.found[0].scores, predictor.unet_evals, seen.first


def merge(flagged: torch.Tensor, mitigated: Sample, plain: Sample) -> Sample:
    """Rows of `mitigated` where flagged (n,), else of `plain`; the method's figures are nan where
    it was not applied.
    """
    import torch

    def chosen(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.where(flagged.to(a.device).reshape(-1, *[1] * (a.ndim - 1)), a, b)

    parts = {
        field.name: chosen(getattr(mitigated, field.name), getattr(plain, field.name))
        for field in fields(plain)
        if field.name != "numbers"
    }
    numbers = {
        name: chosen(values.float(), torch.full_like(values, torch.nan, dtype=torch.float32))
        for name, values in mitigated.numbers.items()
    }
    return replace(plain, **parts, numbers=numbers)


def sample_screened(
    screen: Screen,
    pipe,
    batch: Batch,
    noise: torch.Tensor,
    mitigation: Mitigation,
    plain: Mitigation,
    traces: list[Trace | None],
    **settings,
) -> tuple[Sample, torch.Tensor]:
    """The batch sampled with the mitigation, without it, or both ways when its images differ: each
    keeps the bytes of its own kind of run.

    traces: of the mitigated and of the plain run. Returns the sample and who was flagged (n,) bool.
    An unflagged image costs the rows that the detector adds; a first-step score's prediction serves
    as step 0, so that it adds none.
    """
    import torch

    steps, scale = settings["num_inference_steps"], settings["guidance_scale"]
    scores, rows, first = screen_scores(screen, pipe, batch, noise, steps, scale)
    flagged = scores > screen.threshold  # nan is not above
    runs: dict[bool, Sample] = {}
    for kind, method, trace in ((True, mitigation, traces[0]), (False, plain, traces[1])):
        if (flagged == kind).any():
            known: Prediction | None = first if not kind else None
            runs[kind] = pipe.sample(
                batch.prompts, noise, method, on_step=trace, known=known, **settings
            )
    sample = merge(flagged, runs.get(True, runs.get(False)), runs.get(False, runs.get(True)))
    numbers = {"screen_score": scores, "mitigated": flagged.float()}
    total = (
        rows + sum(run.unet_evals for run in runs.values())
        if len(runs) > 1
        else rows + next(iter(runs.values())).unet_evals
    )
    return replace(
        sample, unet_evals=total, numbers=numbers | (sample.numbers if flagged.any() else {})
    ), torch.as_tensor(flagged)
