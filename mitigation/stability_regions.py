"""Trajectories held inside the region of ordinary ones.

Huang et al., "Broken Memories", KDD 2026.
"""

from __future__ import annotations

from pathlib import Path

from memorization_suite.detection.stability import (
    Stability,
    Statistics,
    clean_estimate,
    read_statistics,
)
from memorization_suite.mitigation.base import Mitigation, flag, register
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.settings import again
from memorization_suite.sampling import Batch, GuidanceSchedule, Prediction, Step
from memorization_suite.sampling.noise_predictor import per_image, row_norm, stretch

NO_FILE = (
    "--statistics is not given: it names a file with the norms of ordinary prompts, made by "
    "python detect_memorization.py calibrate stability --model_id ... --prompts ORDINARY.csv "
    "--out FILE"
)


class InsideRegions(GuidanceSchedule):
    """Plain guidance; steps whose update would leave the region are corrected, see
    `StabilityRegions`. Images do not see each other.
    """

    def __init__(self, statistics: Statistics, gamma: float, severe: float):
        self.statistics = statistics
        self.gamma = gamma
        self.severe_from = severe

    def begin(self, step: Step, pred: Prediction) -> None:
        """Step 0. Raises ValueError when the statistics are of another kind of run."""
        self.statistics.check_step(step, pred)
        n = len(pred.x)
        device = pred.x.device
        # Of each image: the largest deviation, in sd; steps corrected, by severity; the first of
        # them, -1 without one.
        self.largest = torch.zeros(n, device=device)
        self.mild_steps = torch.zeros(n, dtype=torch.long, device=device)
        self.severe_steps = torch.zeros(n, dtype=torch.long, device=device)
        self.first = torch.full((n,), -1, device=device)

    def combine(self, step: Step, pred: Prediction) -> torch.Tensor:
        if step.index == 0:
            self.begin(step, pred)
        noise = super().combine(step, pred)
        self.model = pred.predictor.model
        self.z = pred.x.float()
        delta = self.look_ahead(pred, noise) - self.z
        deviation = self.statistics.deviation("update", step.index, row_norm(delta)).abs()
        outside = deviation > self.gamma
        self.severe = deviation > self.severe_from

        self.largest = torch.maximum(self.largest, deviation)
        self.mild_steps += outside & ~self.severe
        self.severe_steps += self.severe
        self.first = torch.where(outside & (self.first < 0), step.index, self.first)
        if not outside.any():
            return noise
        rescaled = self.rescaled(step, pred, noise).to(noise.dtype)
        return torch.where(per_image(outside), rescaled, noise)

    def look_ahead(self, pred: Prediction, noise: torch.Tensor) -> torch.Tensor:
        """z after the step that this noise would give, float32.

        The sampler's own state is left alone.
        """
        model = self.model.fork()
        latents = self.z * model.input_scale(pred.t)
        output = model.to_output(noise.float(), self.z, pred.t)
        after = model.step(output, pred.t, latents, torch.Generator().manual_seed(0))
        return after.float() / model.input_scale(pred.t)

    def rescaled(self, step: Step, pred: Prediction, noise: torch.Tensor) -> torch.Tensor:
        """The noise whose z0_hat is the given one's at the reference length, float32.

        Zero stays zero.
        """
        alpha, sigma = self.model.alpha_sigma(pred.t)
        clean = clean_estimate(pred, noise)
        reference = float(self.statistics.mean["clean"][step.index])
        factor = stretch(reference, row_norm(clean))
        return (self.z - alpha * factor * clean) / sigma

    def after_step(self, step: Step, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        if not self.severe.any():
            return after
        scale = self.model.input_scale(step.t)
        delta = after.float() / scale - self.z
        z = self.z + self.clamped("update", step, delta)
        latents = self.clamped("latent", step, z) * scale
        return torch.where(per_image(self.severe), latents.to(after.dtype), after)

    def clamped(self, name: str, step: Step, x: torch.Tensor) -> torch.Tensor:
        """x at a length inside the region of the norm with this name; zero stays zero."""
        length = row_norm(x)
        wanted = self.statistics.clamped(name, step.index, length, self.gamma)
        return x * stretch(wanted, length)

    def numbers(self) -> dict[str, torch.Tensor]:
        """instability: largest deviation in sd before its correction; steps corrected by severity;
        the first of them, -1: none.
        """
        return {
            "instability": self.largest,
            "mild_steps": self.mild_steps,
            "severe_steps": self.severe_steps,
            "first_outside": self.first,
        }


@register(
    "stability_regions",
    paper="Huang et al., KDD 2026",
    cost="2N",
    compared="no code is published; equal to a transcription of the paper's formulas",
)
class StabilityRegions(Mitigation):
    """Corrects steps that ordinary prompts do not make. Prompt, initial noise and guidance scale
    are left alone.

    With delta = z_{i+1} - z_i, and mean and sd of its norm over ordinary prompts, a step is outside
    when | ||delta|| - mean | > gamma sd. A statistics file that was made with another model,
    sampler or guidance is refused.

    Fixed by the paper: these norms and their statistics (50 ordinary prompts), the region, the two
    corrections (z0_hat rescaled to the reference norm; ||z|| and ||delta|| clamped into their
    regions), and that there are two severities.

    Ours, since no code is released and the text was not at hand: gamma is 3, and severe begins at
    twice that. A mild step has z0_hat corrected alone, a severe one z0_hat, then delta, then z,
    once each. The norm of delta is that of the step without correction, found without a UNet call.
    Norms are in unit-variance latents (paper: SD 1.4, PNDM).
    """

    statistics: str = again(Stability, "statistics", short="stats")
    gamma_sd: float = flag(
        3.0, "half width of the region, in standard deviations", short="sd", above=0.0
    )
    severe_sd: float = flag(
        6.0,
        "deviation from which lengths are clamped too, in standard deviations",
        short="severe",
        above=0.0,
    )

    def reference(self) -> Statistics:
        """The statistics. Raises ValueError when the file is not given or is none."""
        if not self.statistics:
            raise ValueError(NO_FILE)
        return read_statistics(Path(self.statistics))

    def guidance(self, batch: Batch) -> GuidanceSchedule:
        return InsideRegions(self.reference(), self.gamma_sd, self.severe_sd)

    def check(self, num_steps: int) -> None:
        self.reference().check(num_inference_steps=num_steps)
        if self.severe_sd < self.gamma_sd:
            raise ValueError(
                f"--severe_sd {self.severe_sd:g} is below --gamma_sd {self.gamma_sd:g}: a severe "
                "deviation is outside the region"
            )

    def check_run(self, identity: dict) -> None:
        known = ("model_id", "unet_id", "scheduler", "guidance_scale", "image_length", "dtype")
        self.reference().check(**{name: identity[name] for name in known if name in identity})
