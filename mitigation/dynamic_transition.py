"""Dynamic transition point: guidance off until the conditional noise passes a minimum, where the
pull toward a training image weakens.

Jain et al., CVPR 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

from memorization_suite.mitigation.base import Mitigation, flag, quirks, register
from memorization_suite.runs.lazy import F, torch
from memorization_suite.sampling import Batch, GuidanceSchedule, Prediction, Step


@dataclass
class FirstMinimum(GuidanceSchedule):
    """Scale `before` until an image's signal has passed its first strict local minimum, then
    guidance as asked for, for good. Images do not see each other.
    """

    before: float
    # Guided from there at the latest; None: half way.
    fallback_step: int | None = None
    # How far below the largest earlier value the minimum must lie, as a share of it.
    drop: float = 0.0
    # "magnitude": d_i = ||e(x, c) - e(x, "")|| of step i, so that a minimum at i - 1 is known, and
    # guidance begins, at i. "cosine": 1 - cos(x_{i+1}, x_i) of the latents, known one step later.
    signal: str = "magnitude"
    # Whether d_i is of what the network gives, v on a v model, in the place of e.
    raw_units: bool = False

    def __post_init__(self) -> None:
        self.values: list[torch.Tensor] = []
        self.passed = torch.zeros(0)
        self.start = torch.zeros(0)

    def scale(self, step: Step, pred: Prediction) -> torch.Tensor:
        if step.index == 0:
            n = len(pred.x)
            self.passed = torch.zeros(n, dtype=torch.bool, device=pred.x.device)
            self.start = torch.full((n,), -1, device=pred.x.device)
        if self.signal == "magnitude" and not self.passed.all():
            self.observe(pred.raw_magnitude() if self.raw_units else pred.magnitude())

        latest = step.num_steps // 2 if self.fallback_step is None else self.fallback_step
        if step.index >= latest:
            self.passed = torch.ones_like(self.passed)
        starts_now = self.passed & (self.start < 0)
        self.start = torch.where(starts_now, step.index, self.start)
        return torch.where(self.passed, step.guidance_scale, self.before)

    def observe(self, value: torch.Tensor) -> None:
        """The signal's next value, (n,) float32. A value that is not finite is no minimum."""
        self.values.append(value)
        if len(self.values) < 3:
            return
        *earlier, last, now = self.values
        is_minimum = (last < earlier[-1]) & (last < now)
        highest = torch.stack(earlier).amax(0)
        is_deep = last <= (1 - self.drop) * highest
        self.passed = self.passed | (is_minimum & is_deep)

    def after_step(self, step: Step, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        if self.signal == "cosine" and not self.passed.all():
            cosine = F.cosine_similarity(after.float().flatten(1), before.float().flatten(1))
            self.observe(1 - cosine)
        return after

    def numbers(self) -> dict[str, torch.Tensor]:
        """transition_step: the first guided step, -1 if there was none."""
        return {"transition_step": self.start}


@register(
    "dynamic_transition",
    paper="Jain et al., CVPR 2025",
    cost="2N",
    code="SonyResearch/mitigating_memorization",
    compared="the script's rule, per image; its scale before the transition is 1, ours 0; on a v "
    "model with --official raw_units",
)
class DynamicTransition(Mitigation):
    """Guidance scale w_before while d_i = ||e(x, c) - e(x, "")|| falls, then plain guidance from
    the step after its first local minimum on. One pass.

    Source: the paper's rule as the official script applies it: guided from step i on when d_{i-1} <
    d_{i-2} and d_{i-1} < d_i. Differs from the script: w_before is the paper's 0 (script: 1). d is
    per image and in epsilon units (script: in units of the network's output; of a v model it is
    1 / alpha times as large, and falls as alpha grows). An image without a minimum is guided from
    half of the steps on, where the static transition's tau of 500 lies (script: never, which is
    --fallback_step with the number of steps).
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
    official: str = quirks(
        raw_units="the magnitude is that of the network's raw output: on a v model of v, so that "
        "minima lie elsewhere"
    )

    def guidance(self, batch: Batch) -> GuidanceSchedule:
        raw_units = "raw_units" in self.official
        return FirstMinimum(self.w_before, self.fallback_step, self.drop, raw_units=raw_units)

    def check(self, num_steps: int) -> None:
        check_drop(self.drop)


def check_drop(drop: float) -> None:
    """Raises ValueError for a drop that no magnitude can make."""
    if drop >= 1:
        raise ValueError(f"--drop {drop:g} is no share below 1: no magnitude falls that far")
