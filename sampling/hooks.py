"""The five places where a method can change sampling."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from memorization_suite.runs.lazy import torch
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.guidance import GuidanceSchedule
from memorization_suite.sampling.noise_predictor import NoisePredictor

HOOKS = ("edit_prompts", "edit_embeddings", "adjust_initial_noise", "guidance", "patch")


@dataclass
class Adjustment:
    """What `adjust_initial_noise` returns.

    If e at x was computed, it is left in batch.first, so that step 0 need not run the network.
    """

    # Where sampling starts, (n, 4, h, w) float32.
    x: torch.Tensor
    # The method's own figures, one an image (n,); they become columns of images.csv.
    numbers: dict[str, torch.Tensor] = field(default_factory=dict)


class Hooks:
    """Does nothing. A method overrides the hooks it needs; images of a batch never see each other.

    x is what the network reads at the first timestep t, (n, 4, h, w) float32 of unit variance, for
    every sampler.
    """

    def check(self, num_steps: int) -> None:
        """Raises ValueError for settings that make no sense with this number of steps."""

    def edit_prompts(self, batch: Batch) -> list[str]:
        """The prompts to encode."""
        return batch.prompts

    def edit_embeddings(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> dict[str, torch.Tensor]:
        """Figures as in `Adjustment.numbers`. May change predictor.conditioning, or add to it."""
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
        """Changes to the network while one batch is sampled, also during the hooks above.

        predictor.call tells what the rows of its running call are.
        """
        return contextlib.nullcontext()
