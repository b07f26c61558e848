"""How far a trajectory's updates are from those of ordinary prompts.

Huang et al., "Broken Memories", KDD 2026.
"""

from __future__ import annotations

from pathlib import Path

from memorization_suite.detection.base import Detector, Watcher, register
from memorization_suite.lazy import torch
from memorization_suite.runs.settings import flag
from memorization_suite.sampling import Prediction, Step
from memorization_suite.sampling.noise_predictor import row_norm
from memorization_suite.sampling.stability import instability, read_statistics

NO_FILE = (
    "needs --statistics FILE with the norms of ordinary prompts, made by python calibrate.py "
    "stability --guidance_scale 7.5 ... with the settings of this run"
)


class StabilityWatcher(Watcher):
    """Norms of the latents' updates, of unit variance as the UNet reads them."""

    norms: list[torch.Tensor]
    # Where the last step led.
    last: torch.Tensor | None

    def begin(self) -> None:
        self.norms = []
        self.last = None
        self.statistics = read_statistics(Path(self.detector.statistics))

    def on_step(self, step: Step, prediction: Prediction) -> None:
        if step.index == 0:
            scheduler = self.predictor.scheduler
            self.statistics.check(
                num_inference_steps=step.num_steps,
                guidance_scale=step.guidance_scale,
                scheduler_class=type(scheduler).__name__,
                timesteps=[round(float(t), 3) for t in scheduler.timesteps],
                latent_shape=list(prediction.x.shape[1:]),
            )
        self.move_to(prediction.x.float())

    def move_to(self, z: torch.Tensor) -> None:
        """z: where the last step led, float32."""
        if self.last is not None:
            self.norms.append(row_norm(z - self.last))
        self.last = z

    def finish(self, final: torch.Tensor, images) -> torch.Tensor:
        # No noise is left in the last latents, so that they are of the UNet's scale.
        self.move_to(final.float())
        return instability(self.statistics, torch.stack(self.norms, 1))


@register("stability", paper="Huang et al., KDD 2026", cost="2N")
class Stability(Detector):
    """S = max over steps of | ||z_{i+1} - z_i|| - mean | / sd, mean and sd of this step over
    ordinary prompts.
    """

    watcher = StabilityWatcher
    needs_final = True
    statistics: str = flag(
        "",
        "file with the norms of ordinary prompts, made by calibrate.py stability",
        short="stat",
        file=True,
    )

    def steps(self, total: int) -> int:
        return total

    def missing(self) -> str:
        return "" if self.statistics else NO_FILE

    def check(self, total: int) -> None:
        if self.statistics:
            read_statistics(Path(self.statistics)).check(num_inference_steps=total)
