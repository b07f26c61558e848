"""Norm and alignment of the conditional noise prediction on pure noise.

Asthana and Belagiannis, ICLR 2026.
"""

from __future__ import annotations

from memorization_suite.detection.base import Detector, Look, register
from memorization_suite.runs.lazy import F, torch
from memorization_suite.runs.settings import flag, quirks
from memorization_suite.sampling import Prediction, Step
from memorization_suite.sampling.noise_predictor import HALVES

LATE = -3  # index of the late timestep: t = 41 of DDIM's 50
# What the cosine compares, of e(x, ""), e(x, c) and their difference.
PAIRS = ("uncond_guidance", "uncond_text", "text_guidance")


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
    cost="4K, K = --num_steps",
    code="rohanasthana/memorization-anisotropy",
    compared="equal to a transcription; of Stable Diffusion 2 with --official sd2_branch",
)
class Anisotropy(Detector):
    """norm_weight ||e(x, c) - e(x, "")|| at the first timestep, plus cosine_weight cos at a late
    one, on the same pure noise.

    cos is the mean cosine over pixels of e(x, "") and e(x, c) - e(x, ""), at the third last
    timestep. With K steps both are taken on the latents of each of the first K of the guided
    trajectory, the norm at its timestep, cos always at the third last, and averaged. Source:
    official code; its weights for SD 1.4 (SD 2: 1 and 0.1, Realistic Vision: 2 and 1).

    Differs from the code: epsilon units for every model. Its branch for SD 2 takes the norm of
    score differences, and the cosine of raw v (--official sd2_branch).
    """

    norm_weight: float = flag(
        1.0, "weight of the magnitude, epsilon units", short="norm", at_least=0.0
    )
    cosine_weight: float = flag(2.0, "weight of the cosine", short="cos", at_least=0.0)
    num_steps: int = flag(
        1,
        "steps that are averaged, from the first (official: --hvp_sampling_num)",
        at_least=1,
        always_named=False,
    )
    cosine_of: str = flag(
        PAIRS[0],
        "what the cosine compares, guidance being e(x, c) - e(x, empty) (official: --mode)",
        choices=PAIRS,
        always_named=False,
    )
    official: str = quirks(
        sd2_branch="what the code has for SD 2, and for Realistic Vision: the norm of alpha times "
        "the network's output over sigma squared, the cosine of its raw output; on a v model these "
        "are the noise's norm over sigma squared and the cosine of v"
    )

    def steps(self, total: int) -> int:
        return self.num_steps

    def on_step(self, look: Look, step: Step, prediction: Prediction) -> None:
        late = look.predictor.at(prediction.x, look.predictor.model.timesteps[LATE])
        score = self.norm_weight * self.norm(prediction) + self.cosine_weight * self.cosine(late)
        look.keep(score=score)

    def norm(self, prediction: Prediction) -> torch.Tensor:
        """Of the guidance, (n,)."""
        if not self.official:
            return prediction.magnitude()
        alpha, sigma = prediction.predictor.model.alpha_sigma(prediction.t)
        return alpha / sigma**2 * prediction.raw_magnitude()

    def cosine(self, late: Prediction) -> torch.Tensor:
        """Mean over pixels of the cosine of the two that are asked for, (n,)."""
        late.need(*HALVES)
        halves = {half: late.halves[half].float() for half in HALVES}
        if self.official:
            halves = {half: late.output(half) for half in HALVES}
        guidance = halves["text"] - halves["uncond"]
        one, other = self.cosine_of.split("_")
        return mean_cosine(*((halves | {"guidance": guidance})[name] for name in (one, other)))

    def check(self, total: int) -> None:
        super().check(total)
        check_late_step(self.name, total)
