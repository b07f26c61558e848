"""Guidance schedules: how strong classifier-free guidance is at each step."""

from __future__ import annotations

from dataclasses import dataclass

from memorization_suite.runs.lazy import torch
from memorization_suite.sampling.noise_predictor import Prediction


@dataclass
class Step:
    """Where the sampler is."""

    index: int
    t: torch.Tensor
    num_steps: int
    # What the user asked for.
    guidance_scale: float
    # What the schedule made of it: a number, or one per image (n,).
    applied: float | torch.Tensor = float("nan")


class GuidanceSchedule:
    """Guidance as asked for at every step.

    Made anew for each batch, so a schedule may remember what it saw.
    """

    def scale(self, step: Step, pred: Prediction) -> float | torch.Tensor:
        """Guidance scale, a number or one per image (n,). Reading `pred` costs NFE."""
        return step.guidance_scale

    def combine(self, step: Step, pred: Prediction) -> torch.Tensor:
        """The noise to step with, (n, 4, h, w). Override only where it is more than a scale."""
        step.applied = self.scale(step, pred)
        return pred.guided(step.applied)

    def after_step(self, step: Step, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """What the scheduler made of the latents, corrected where a method wants that.

        before, after: (n, 4, h, w) in the scheduler's space.
        """
        return after

    def numbers(self) -> dict[str, torch.Tensor]:
        """The schedule's own figures when the batch is done, one per image (n,).

        They become columns of images.csv.
        """
        return {}


@dataclass
class Deferred(GuidanceSchedule):
    """No guidance (scale 0) in steps 0..last_off: the official --apply_cfg_step."""

    # Included; -1: guided from the start.
    last_off: int

    def scale(self, step: Step, pred: Prediction) -> float | torch.Tensor:
        return 0.0 if step.index <= self.last_off else step.guidance_scale


@dataclass
class BelowTimestep(GuidanceSchedule):
    """Scale `before` while t > tau: the paper's delayed guidance."""

    tau: float
    # Published values of tau are rounded to four decimals, some below the grid point they mean
    # (Euler's 978.612245 as 978.6122), so a timestep this little above tau counts as reached.
    tolerance: float = 1e-2
    # 0: no guidance.
    before: float = 0.0

    def scale(self, step: Step, pred: Prediction) -> float | torch.Tensor:
        return self.before if float(step.t) > self.tau + self.tolerance else step.guidance_scale
