"""Opposite guidance: away from the prompt first, then toward it. Jain et al., CVPR 2025."""

from __future__ import annotations

from memorization_suite.mitigation.base import Mitigation, flag, register
from memorization_suite.mitigation.dynamic_transition import (
    DynamicTransition,
    FirstMinimum,
    check_drop,
)
from memorization_suite.runs.settings import again
from memorization_suite.sampling import Batch, BelowTimestep, GuidanceSchedule


@register(
    "opposite_guidance",
    paper="Jain et al., CVPR 2025",
    cost="2N",
    code="SonyResearch/mitigating_memorization",
    compared="the paper's single pass; the released script does not run",
)
class OppositeGuidance(Mitigation):
    """e(x, "") - s (e(x, c) - e(x, "")) before the transition, plain guidance after it. One pass.

    The transition is the first local minimum on this trajectory (see dynamic_transition), or fixed
    by tau.

    Source: the paper. s = 2 is the scale of its static command (650 is that command's tau); Han et
    al. 2025 try 1, 3, 5, 7, 9. The released script is not followed: it finds the minimum of
    1 - cos(x_{i+1}, x_i) in a pass of its own, flips the sign at every early step, and stops at the
    transition. --signal cosine is its signal, in the same pass and so one step later.
    """

    opposite_scale: float = flag(
        2.0, "scale s away from the prompt before the transition", short="opposite", at_least=0.0
    )
    tau: float | None = flag(
        None,
        "fixed transition: opposite while t > tau",
        at_least=1.0,
        excludes=("fallback_step", "drop", "signal"),
    )
    fallback_step: int | None = again(DynamicTransition, "fallback_step")
    drop: float = again(DynamicTransition, "drop")
    signal: str = flag(
        "magnitude",
        "what has the minimum: the conditional noise, or the change of the latents",
        choices=("magnitude", "cosine"),
        always_named=False,
    )

    def guidance(self, batch: Batch) -> GuidanceSchedule:
        before = -self.opposite_scale
        if self.tau is not None:
            return BelowTimestep(self.tau, before=before)
        return FirstMinimum(before, self.fallback_step, self.drop, signal=self.signal)

    def check(self, num_steps: int) -> None:
        check_drop(self.drop)
