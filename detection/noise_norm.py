"""Magnitude of the conditional noise prediction: Wen et al., ICLR 2024."""
from __future__ import annotations

import torch

from detection.base import Detector, Watcher, register
from sampling import Prediction, Step
from sampling.flags import flag


class NoiseNorm(Watcher):
    """Mean over the watched steps of ||e(x, c) - e(x, "")||, epsilon units."""

    magnitudes: list[torch.Tensor]

    def begin(self) -> None:
        self.magnitudes = []

    def on_step(self, step: Step, prediction: Prediction) -> None:
        self.magnitudes.append(prediction.magnitude())

    def finish(self, final: torch.Tensor, images) -> torch.Tensor:
        return torch.stack(self.magnitudes).mean(0)


@register("noise_norm", paper="Wen et al., ICLR 2024", cost="2K, K = --num_steps")
class FirstSteps(Detector):
    """The first step, or the first K, of the guided trajectory."""

    watcher = NoiseNorm
    num_steps: int = flag(1, "steps that are averaged, from the first", at_least=1)

    def steps(self, total: int) -> int:
        return self.num_steps


@register("noise_norm_all", paper="Wen et al., ICLR 2024", cost="2N")
class AllSteps(Detector):
    """All steps of the guided trajectory."""

    watcher = NoiseNorm

    def steps(self, total: int) -> int:
        return total
