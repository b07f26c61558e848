"""Magnitude of the conditional noise prediction: Wen et al., ICLR 2024."""

from __future__ import annotations

from functools import reduce

from memorization_suite.detection.base import Detector, Look, register
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.settings import flag
from memorization_suite.sampling import Prediction, Step


@register(
    "noise_norm_all",
    paper="Wen et al., ICLR 2024",
    cost="2N",
    code="YuxinWenRick/diffusion_memorization",
    compared="equal to a transcription",
)
class NoiseNormAll(Detector):
    """||e(x, c) - e(x, "")||, epsilon units: mean over all steps of the guided trajectory.

    Mask: its squares per pixel, summed over channels, mean over the steps.
    """

    spatial = True

    def on_step(self, look: Look, step: Step, prediction: Prediction) -> None:
        energy = prediction.conditional.square().sum(1)
        look.keep(score=prediction.magnitude(), energy=energy)

    def masks(self, look: Look) -> torch.Tensor:
        """Mean over the steps of the squared conditional noise prediction, summed over channels."""
        energies = look.series["energy"]
        return reduce(torch.add, energies) / len(energies)


@register(
    "noise_norm",
    paper="Wen et al., ICLR 2024",
    cost="2K, K = --num_steps",
    code="YuxinWenRick/diffusion_memorization",
    compared="equal to a transcription",
)
class NoiseNorm(NoiseNormAll):
    """||e(x, c) - e(x, "")||, epsilon units: at the first step, or mean over the first K.

    Mask: as of noise_norm_all, over these steps.
    """

    num_steps: int = flag(1, "steps that are averaged, from the first", at_least=1)

    def steps(self, total: int) -> int:
        return self.num_steps
