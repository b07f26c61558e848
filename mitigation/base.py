"""What a mitigation is: five hooks of the sampler, and flags declared beside the method."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import ClassVar

from memorization_suite.lazy import torch
from memorization_suite.runs.registry import Registry
from memorization_suite.runs.settings import Settings, flag, flags, quirks, value_type
from memorization_suite.sampling import Batch, GuidanceSchedule, NoisePredictor

__all__ = [
    "HOOKS",
    "METHODS",
    "Adjustment",
    "Mitigation",
    "check_guided_step",
    "flag",
    "flags",
    "quirks",
    "register",
    "value_type",
]
HOOKS = ("edit_prompts", "edit_embeddings", "adjust_initial_noise", "guidance", "patch")


@dataclass
class Adjustment:
    """What `adjust_initial_noise` returns.

    If e at x was computed, it is left in batch.first, so that step 0 need not run the UNet again.
    """

    # Where sampling starts, (n, 4, h, w) float32.
    x: torch.Tensor
    # The method's own figures, one an image (n,); they become columns of images.csv.
    numbers: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Mitigation(Settings):
    """Does nothing. A method overrides the hooks it needs; images of a batch never see each other.

    x is what the UNet reads at the first timestep t, (n, 4, h, w) float32 of unit variance, for
    every scheduler.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    cost: ClassVar[str] = "2N"  # UNet rows per image, N steps

    def edit_prompts(self, batch: Batch) -> list[str]:
        """The prompts to encode."""
        return batch.prompts

    def edit_embeddings(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Figures as in `Adjustment.numbers`. May replace or add entries of predictor.embeds."""
        return {}

    def adjust_initial_noise(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> Adjustment:
        """The noise to start from: as drawn."""
        return Adjustment(x)

    def guidance(self, batch: Batch) -> GuidanceSchedule:
        """A new schedule for one batch; asked for after the hooks above."""
        return GuidanceSchedule()

    def patch(self, predictor: NoisePredictor, batch: Batch) -> contextlib.AbstractContextManager:
        """Changes to the UNet while one batch is sampled, also during the hooks above.

        predictor.call tells what the UNet's rows are.
        """
        return contextlib.nullcontext()

    def check(self, num_steps: int) -> None:
        """Raises ValueError for settings that make no sense with this number of steps."""

    def check_run(self, identity: dict) -> None:
        """Raises ValueError when a file that the method reads was made for another run.

        identity: model_id, scheduler, guidance_scale, ...
        """


def check_guided_step(flag_name: str, last_off: int, num_steps: int) -> None:
    """Raises ValueError when no step would be guided."""
    if last_off >= num_steps - 1:
        raise ValueError(
            f"--{flag_name} {last_off} leaves no step with guidance: the run has {num_steps} steps "
            f"(0..{num_steps - 1}). "
            f"Use at most {num_steps - 2}, or --guidance_scale 0 for an unconditional run."
        )


METHODS: Registry[Mitigation] = Registry("method", "mitigation")


def register(name: str, *, paper: str, cost: str = Mitigation.cost):
    """Class decorator: makes a frozen dataclass of the method and lists it under `name`.

    cost: UNet rows per image, N steps.
    """
    return METHODS.register(name, paper=paper, cost=cost)
