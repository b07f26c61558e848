"""One trajectory for several detectors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from memorization_suite.detection.base import Detector, Look
from memorization_suite.runs.lazy import no_grad, torch
from memorization_suite.sampling import Batch, GuidanceSchedule, NoisePredictor, Prediction, Step
from memorization_suite.sampling.denoiser import See
from memorization_suite.sampling.loop import steps


@dataclass
class DetectorResult:
    """One detector's scores of a batch."""

    # (n,).
    scores: torch.Tensor
    # NFE of each image if it had run alone, (n,).
    rows: torch.Tensor
    # (n, h, w).
    masks: torch.Tensor | None


@dataclass
class TrajectoryResult:
    """What a batch's trajectory gave."""

    # One a detector.
    results: list[DetectorResult]
    # (n, 3, H, W) in [0, 1], if they were made.
    images: torch.Tensor | None
    # Step 0's prediction, if it was made as sampling makes it: without open attention, whose
    # rounding differs.
    first: Prediction | None


class Watch:
    """All detectors at work on one batch, a look each."""

    def __init__(self, detectors: Sequence[Detector], predictor: NoisePredictor, batch: Batch):
        self.model = predictor.model
        self.total = len(self.model.timesteps)
        self.detectors = detectors
        self.looks = [
            Look(predictor, batch, self.total, rows=torch.zeros_like(predictor.unet_evals))
            for _ in detectors
        ]
        self.first: Prediction | None = None
        # Cross-attention module -> who wants to see its probabilities in the next step.
        self.sees: dict[str, list[See]] = {}
        self.opened = ExitStack()

    def pairs(self, index: int) -> list[tuple[Detector, Look]]:
        """Those that look at this step."""
        pairs = zip(self.detectors, self.looks)
        return [(detector, look) for detector, look in pairs if index < detector.steps(self.total)]

    def open(self, index: int) -> None:
        """Opens the attention that is wanted in this step."""
        self.sees = defaultdict(list)
        for detector, look in self.pairs(index):
            for name, see in detector.attention(look, index).items():
                self.sees[name].append(see)
        if self.sees:
            opened = self.model.open_attention(list(self.sees), see=self.show)
            self.opened.enter_context(opened)

    def show(self, name: str, probs: torch.Tensor) -> None:
        """Shows a module's probabilities to all who want to see them."""
        for see in self.sees[name]:
            see(name, probs)

    def close(self) -> None:
        """The network is as before."""
        self.opened.close()

    def on_step(self, step: Step, prediction: Prediction) -> None:
        """Shows a step to all who look at it."""
        prediction.need("uncond", "text")
        self.close()
        if step.index == 0 and not self.sees:
            self.first = prediction
        for detector, look in self.pairs(step.index):
            with look.counted():
                detector.on_step(look, step, prediction)
        self.open(step.index + 1)

    def results(self, final: torch.Tensor, images: torch.Tensor | None) -> list[DetectorResult]:
        """What each detector makes of it, when the trajectory has ended."""
        results = []
        for detector, look in zip(self.detectors, self.looks):
            look.final = final
            if detector.needs_images and images is not None:
                look.images = images
            with look.counted():
                scores = detector.finish(look).float().cpu()
            watched = self.total if detector.needs_images else detector.steps(self.total)
            results.append(DetectorResult(scores, look.rows + 2 * watched, detector.masks(look)))
        return results


@no_grad
def detect(
    detectors: Sequence[Detector],
    predictor: NoisePredictor,
    noise: torch.Tensor,
    batch: Batch,
    guidance_scale: float,
    *,
    want_images: bool = False,
) -> TrajectoryResult:
    """Scores of every detector from one trajectory, no longer than the longest that one needs.

    The model's timesteps are set. noise: (n, 4, h, w) of unit variance. Images are made and
    returned when a detector needs them or want_images says so.
    """
    decoded = want_images or any(detector.needs_images for detector in detectors)
    whole = decoded or any(detector.needs_final for detector in detectors)
    watch = Watch(detectors, predictor, batch)
    longest = max(detector.steps(watch.total) for detector in detectors)
    with closing(watch):
        watch.open(0)
        final = steps(
            predictor,
            noise * predictor.model.initial_scale,
            batch,
            GuidanceSchedule(),
            guidance_scale,
            on_step=watch.on_step,
            watched=None if whole else longest,
        )
    images = predictor.model.decode(final) if decoded else None
    return TrajectoryResult(watch.results(final, images), images, watch.first)
