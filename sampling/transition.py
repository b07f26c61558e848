"""Guidance that begins when the pull towards a training image weakens: Jain et al., CVPR 2025."""

from __future__ import annotations

from dataclasses import dataclass

from memorization_suite.lazy import F, torch
from memorization_suite.sampling.guidance import GuidanceSchedule, Step
from memorization_suite.sampling.noise_predictor import Prediction


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
            self.observe(pred.magnitude())

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
