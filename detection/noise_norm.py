"""Magnitude of the conditional noise prediction: Wen et al., ICLR 2024."""

from __future__ import annotations

from memorization_suite.detection.base import Detector, Watcher, register
from memorization_suite.lazy import torch
from memorization_suite.runs.settings import flag
from memorization_suite.sampling import Prediction, Step


class NoiseNormWatcher(Watcher):
    """Mean over the watched steps of ||e(x, c) - e(x, "")||, epsilon units."""

    magnitudes: list[torch.Tensor]
    # Sum over the watched steps of the squares, summed over channels.
    energy: torch.Tensor | float

    def begin(self) -> None:
        self.magnitudes = []
        self.energy = 0.0

    def on_step(self, step: Step, prediction: Prediction) -> None:
        self.magnitudes.append(prediction.magnitude())
        self.energy = self.energy + prediction.conditional.square().sum(1)

    def finish(self, final: torch.Tensor, images) -> torch.Tensor:
        return torch.stack(self.magnitudes).mean(0)

    def masks(self) -> torch.Tensor:
        """Mean over the watched steps of the squared conditional noise prediction, summed over
        channels.
        """
        return torch.as_tensor(self.energy) / len(self.magnitudes)


@register("noise_norm", paper="Wen et al., ICLR 2024", cost="2K, K = --num_steps")
class NoiseNorm(Detector):
    """The first step, or the first K, of the guided trajectory."""

    watcher = NoiseNormWatcher
    spatial = True
    num_steps: int = flag(1, "steps that are averaged, from the first", at_least=1)

    def steps(self, total: int) -> int:
        return self.num_steps


@register("noise_norm_all", paper="Wen et al., ICLR 2024", cost="2N")
class NoiseNormAll(Detector):
    """All steps of the guided trajectory."""

    watcher = NoiseNormWatcher
    spatial = True

    def steps(self, total: int) -> int:
        return total
