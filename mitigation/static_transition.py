"""Static transition point: guidance off until a fixed step. Jain et al., CVPR 2025."""

from __future__ import annotations

from memorization_suite.mitigation.base import (
    Ahead,
    Mitigation,
    check_guided_step,
    flag,
    register,
)
from memorization_suite.sampling import Batch, BelowTimestep, Deferred, GuidanceSchedule


@register(
    "static_transition",
    paper="Jain et al., CVPR 2025",
    cost="2N - U, U unguided steps",
    code="SonyResearch/mitigating_memorization",
    compared="the script's rule, without its change to 200 steps",
)
class StaticTransition(Mitigation):
    """Unconditional sampling (scale 0) while t > tau, then plain guidance. The noise stays as
    drawn.
    """

    tau: float = flag(500.0, "no guidance while t > tau", at_least=1.0)
    cfg_step: int | None = flag(
        None,
        "last step index without guidance, instead of --tau",
        short="step",
        at_least=-1,
        excludes=("tau",),
    )

    def guidance(self, batch: Batch) -> GuidanceSchedule:
        return BelowTimestep(self.tau) if self.cfg_step is None else Deferred(self.cfg_step)

    def letters(self, ahead: Ahead) -> dict[str, float]:
        unguided = ahead.above(self.tau) if self.cfg_step is None else self.cfg_step + 1
        return {"U": unguided}

    def check(self, num_steps: int) -> None:
        check_guided_step("cfg_step", -1 if self.cfg_step is None else self.cfg_step, num_steps)
