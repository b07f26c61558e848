"""Dynamic transition point: guidance off until the conditional noise passes a minimum.

Jain et al., CVPR 2025.
"""

from __future__ import annotations

from memorization_suite.mitigation.base import Mitigation, flag, register
from memorization_suite.sampling import Batch, GuidanceSchedule
from memorization_suite.sampling.transition import FirstMinimum


@register("dynamic_transition", paper="Jain et al., CVPR 2025", cost="2N")
class DynamicTransition(Mitigation):
    """Scale w_before while d_i = ||e(x, c) - e(x, "")|| falls; from the step after its first local
    minimum plain guidance. One pass.

    Source: the paper's rule as the official script applies it: guided from step i on when d_{i-1} <
    d_{i-2} and d_{i-1} < d_i. Differs from the script: w_before is the paper's 0 (script: 1), d is
    in epsilon units and per image, and an image without a minimum is guided from half of the steps
    on, where the static transition's tau of 500 is (script: never, which is --fallback_step with
    the number of steps).
    """

    w_before: float = flag(
        0.0, "guidance scale before the transition; official script: 1", short="w"
    )
    fallback_step: int | None = flag(
        None,
        "guide from this step on at the latest, the number of steps: never; not given: half of "
        "them",
        short="fallback",
        at_least=0,
    )
    drop: float = flag(
        0.0,
        "how far the minimum must lie below the largest earlier value, as a share of it",
        at_least=0.0,
        always_named=False,
    )

    def guidance(self, batch: Batch) -> GuidanceSchedule:
        return FirstMinimum(self.w_before, self.fallback_step, self.drop)

    def check(self, num_steps: int) -> None:
        check_drop(self.drop)


def check_drop(drop: float) -> None:
    """Raises ValueError for a drop that no magnitude can make."""
    if drop >= 1:
        raise ValueError(f"--drop {drop:g} is no share below 1: no magnitude falls that far")
