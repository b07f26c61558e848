"""Norm and alignment of the conditional noise prediction on pure noise.

Asthana and Belagiannis, ICLR 2026.
"""

from __future__ import annotations

from memorization_suite.detection.base import Detector, Watcher, register
from memorization_suite.lazy import torch
from memorization_suite.runs.settings import flag
from memorization_suite.sampling import Prediction, Step
from memorization_suite.sampling.anisotropy import LATE, anisotropy


class AnisotropyWatcher(Watcher):
    """Both terms on the initial noise."""

    score: torch.Tensor

    def on_step(self, step: Step, prediction: Prediction) -> None:
        late = self.predictor.at(prediction.x, self.predictor.scheduler.timesteps[LATE])
        settings = self.detector
        self.score = anisotropy(prediction, late, settings.norm_weight, settings.cosine_weight)

    def finish(self, final: torch.Tensor, images) -> torch.Tensor:
        return self.score


@register("anisotropy", paper="Asthana and Belagiannis, ICLR 2026", cost="4")
class Anisotropy(Detector):
    """norm_weight ||e(x, c) - e(x, "")|| at the first timestep + cosine_weight cos at a late one,
    on the same noise.

    Source: weights of SD 1.4.
    """

    watcher = AnisotropyWatcher
    norm_weight: float = flag(
        1.0, "weight of the magnitude, epsilon units", short="norm", at_least=0.0
    )
    cosine_weight: float = flag(2.0, "weight of the cosine", short="cos", at_least=0.0)

    def steps(self, total: int) -> int:
        return 1

    def check(self, total: int) -> None:
        if total < -LATE:
            raise ValueError(
                f"anisotropy looks at the third last timestep, so {total} steps are too few: at "
                f"least {-LATE}"
            )
