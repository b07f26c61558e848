"""Norm and alignment of the conditional noise prediction on pure noise.

Asthana and Belagiannis, ICLR 2026.
"""

from __future__ import annotations

from memorization_suite.detection.base import Detector, Look, register
from memorization_suite.runs.lazy import F, torch
from memorization_suite.runs.settings import flag
from memorization_suite.sampling import Prediction, Step
from memorization_suite.sampling.noise_predictor import HALVES

LATE = -3  # index of the late timestep: t = 41 of DDIM's 50


def mean_cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosine of the channel vectors at each pixel, mean over pixels; a zero vector counts as 0.

    a, b: (n, c, h, w) -> (n,) float32.
    """
    cosine = F.cosine_similarity(a.float(), b.float(), dim=1)
    return cosine.flatten(1).mean(1)


def anisotropy(
    first: Prediction, late: Prediction, norm_weight: float, cosine_weight: float
) -> torch.Tensor:
    """norm_weight ||g(T)|| + cosine_weight cos(e(x, late, ""), g(late)), (n,); larger: memorized.

    g(t) = e(x, t, c) - e(x, t, ""). first, late: predictions on the same x, the initial noise as
    the UNet reads it, at the first timestep T and at the third last one. The score of the
    unconditional half and the guidance both point against their noise predictions, so the cosine
    is the paper's.

    Differs from the official code: epsilon units for every model, where it mixes epsilon (SD 1) and
    scores (SD 2).
    """
    late.need(*HALVES)
    norm = first.magnitude()
    cosine = mean_cosine(late.uncond, late.conditional)
    return norm_weight * norm + cosine_weight * cosine


def check_late_step(name: str, total: int) -> None:
    """Raises ValueError when the sampler has no third last timestep. name: who looks at it."""
    if total < -LATE:
        raise ValueError(
            f"{name} looks at the third last timestep, so {total} steps are too few: at least "
            f"{-LATE}"
        )


@register(
    "anisotropy",
    paper="Asthana and Belagiannis, ICLR 2026",
    cost="4",
    code="rohanasthana/memorization-anisotropy",
    compared="its score with the weights of SD 1.4, equal to a transcription",
)
class Anisotropy(Detector):
    """norm_weight ||e(x, c) - e(x, "")|| at the first timestep, plus cosine_weight cos at a late
    one, on the same pure noise.

    cos is the mean cosine over pixels of e(x, "") and e(x, c) - e(x, ""), at the third last
    timestep. Source: official code; its weights for SD 1.4.
    """

    norm_weight: float = flag(
        1.0, "weight of the magnitude, epsilon units", short="norm", at_least=0.0
    )
    cosine_weight: float = flag(2.0, "weight of the cosine", short="cos", at_least=0.0)

    def steps(self, total: int) -> int:
        return 1

    def on_step(self, look: Look, step: Step, prediction: Prediction) -> None:
        late = look.predictor.at(prediction.x, look.predictor.model.timesteps[LATE])
        look.keep(score=anisotropy(prediction, late, self.norm_weight, self.cosine_weight))

    def check(self, total: int) -> None:
        check_late_step(self.name, total)
