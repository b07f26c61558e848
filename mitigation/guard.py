"""GUARD: away from the memorized prediction, toward one with attenuated attention.

Zhao et al., ICML 2026.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from memorization_suite.mitigation.base import Mitigation, flag, quirks, register
from memorization_suite.mitigation.spikes import BLOCKS, attenuated_spikes
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.settings import again
from memorization_suite.sampling import Batch, GuidanceSchedule, NoisePredictor, Prediction, Step
from memorization_suite.sampling.noise_predictor import per_image

ZERO_IS_OFF = "nothing is attenuated at a --spike_threshold of 0 or below, which counts as not set"
HALF = "attenuated"  # the text embedding again, with attenuated attention
# Of the official code: the cosine above which directions count as parallel, the largest factor of
# what is taken off, and what is added before a division.
PARALLEL = 0.9
MOST = 2.0
EPSILON = 1e-8


def without_parallel(attraction: torch.Tensor, repulsion: torch.Tensor) -> torch.Tensor:
    """attraction minus its part along repulsion, for images where their cosine is above 0.9.

    (n, 4, h, w) float32.
    """
    a = attraction.flatten(1)
    b = repulsion.flatten(1)
    dot = (a * b).sum(1)
    a_square = (a * a).sum(1) + EPSILON
    b_square = (b * b).sum(1) + EPSILON
    cosine = dot / (a_square * b_square).sqrt()
    factor = (dot / b_square).clamp(-MOST, MOST) * (cosine > PARALLEL)
    return attraction - per_image(factor) * repulsion


class Repulsive(GuidanceSchedule):
    """e("") + s (e+ - e("")) - r_i (e(c) - e("")), r_i = r cos(pi i / 2N); e+ is e(c) with
    attenuated attention. One UNet call of three rows.

    orthogonal: e+ - e("") goes without its part along e(c) - e("") where the two are nearly
    parallel.
    """

    def __init__(self, repulsion: float, *, orthogonal: bool = False):
        self.r = repulsion
        self.orthogonal = orthogonal

    def combine(self, step: Step, pred: Prediction) -> torch.Tensor:
        conditioning = pred.predictor.conditioning
        conditioning[HALF] = conditioning["text"]
        pred.need("uncond", "text", HALF)
        uncond = pred.uncond.float()
        attraction = pred.halves[HALF].float() - uncond
        repulsion = pred.text.float() - uncond
        if self.orthogonal:
            attraction = without_parallel(attraction, repulsion)
        s = step.guidance_scale
        step.applied = s
        r_i = self.r * math.cos(math.pi * step.index / (2 * step.num_steps))
        return (uncond + s * attraction - r_i * repulsion).to(pred.uncond.dtype)


@register(
    "guard",
    paper="Zhao et al., ICML 2026",
    cost="3N",
    code="kairanzhao/GUARD",
    compared="equal to its functions; the released script stops with a TypeError",
)
class Guard(Mitigation):
    """Attraction to the prompt with attenuated attention spikes, and repulsion from the ordinary
    prediction. Both act from step 0.

    Source: the paper's guidance rule. Differs from the official code, which by a default of its
    script also takes a part off the attraction (--official orthogonal), and attenuates nothing at a
    --spike_threshold of 0 (ours: every token above the mean).
    """

    repulsion: float = flag(
        2.0, "r: repulsion from e(c), falling as a quarter of a cosine", short="r", at_least=0.0
    )
    spike_threshold: float = flag(0.1, "tau: z-score above which a token is a spike", short="tau")
    attenuation: float = flag(
        0.3, "a: what the logits of spikes are multiplied by", short="a", at_least=0.0
    )
    blocks: str = flag(
        "early", "where: early (down and middle) or all", choices=BLOCKS, always_named=False
    )
    official: str = quirks(
        orthogonal="the attraction loses its part along e(c) - e(empty) where both are nearly "
        "parallel: a default of the script, absent from the paper",
        zero_is_off=ZERO_IS_OFF,
    )

    def guidance(self, batch: Batch) -> GuidanceSchedule:
        return Repulsive(self.repulsion, orthogonal="orthogonal" in self.official)

    @contextlib.contextmanager
    def patch(self, predictor: NoisePredictor, batch: Batch) -> Iterator[None]:
        attenuated = attenuated_spikes(
            predictor,
            HALF,
            threshold=threshold_of(self),
            attenuation=self.attenuation,
            blocks=self.blocks,
        )
        try:
            with attenuated:
                yield
        finally:
            predictor.conditioning.pop(HALF, None)


@register(
    "ca_attenuation",
    paper="Zhao et al., ICML 2026 (attenuation)",
    cost="2N",
    code="kairanzhao/GUARD",
    compared="equal to its functions",
)
class CaAttenuation(Mitigation):
    """Plain guidance with attenuated attention spikes in the rows of the prompt.

    Spikes are tokens whose largest attention logit stands out among a prompt's tokens.
    """

    spike_threshold: float = again(Guard, "spike_threshold", default=0.01)
    attenuation: float = again(Guard, "attenuation")
    blocks: str = again(Guard, "blocks")
    official: str = quirks(zero_is_off=ZERO_IS_OFF)

    def patch(self, predictor: NoisePredictor, batch: Batch) -> contextlib.AbstractContextManager:
        return attenuated_spikes(
            predictor,
            "text",
            threshold=threshold_of(self),
            attenuation=self.attenuation,
            blocks=self.blocks,
        )


def threshold_of(method: Guard | CaAttenuation) -> float:
    """The z-score above which a token is a spike; under `zero_is_off` no token is at 0 or below."""
    threshold = method.spike_threshold
    return math.inf if "zero_is_off" in method.official and threshold <= 0 else threshold
