"""One trajectory for several detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memorization_suite.detection.base import Detector, See, Watcher
from memorization_suite.lazy import no_grad, torch
from memorization_suite.sampling import Batch, GuidanceSchedule, NoisePredictor, Prediction, Step
from memorization_suite.sampling.attention import OpenAttention, patched_attention
from memorization_suite.sampling.loop import steps


@dataclass
class Watched:
    """What one detector found in a batch. scores: (n,). rows: UNet rows of each image if it had run
    alone (n,). masks: (n, h, w) or None.
    """

    scores: torch.Tensor
    rows: torch.Tensor
    masks: torch.Tensor | None


@dataclass
class Seen:
    """One batch. found: a detector each. images: (n, 3, H, W) in [0, 1] if they were made. first:
    step 0's prediction, if it was made as
    sampling makes it (without open attention, whose rounding differs)."""

    found: list[Watched]
    images: torch.Tensor | None
    first: Prediction | None


class OpenPredictor(NoisePredictor):
    """A predictor whose UNet calls show their cross-attention to `sees`; rows are counted with
    those of the predictor it was made from.
    """

    def __init__(self, plain: NoisePredictor):
        self.__dict__.update(plain.__dict__)
        self.sees: dict[str, list[See]] = {}

    def open_for(self, watchers: Sequence[Watcher], wanted: Sequence[int], index: int) -> None:
        """Opens what is wanted in this step."""
        self.sees = {}
        for watcher, length in zip(watchers, wanted):
            for name, see in watcher.attention(index).items() if index < length else ():
                self.sees.setdefault(name, []).append(see)

    def run(self, x: torch.Tensor, t, halves: tuple[str, ...]) -> list[torch.Tensor]:
        def show(name: str, probs: torch.Tensor) -> None:
            for see in self.sees[name]:
                see(name, probs)

        if not self.sees:
            return super().run(x, t, halves)
        with patched_attention(
            self.unet, lambda name: OpenAttention(name, see=show), list(self.sees)
        ):
            return super().run(x, t, halves)


@no_grad
def detect(
    detectors: Sequence[Detector],
    predictor: NoisePredictor,
    noise: torch.Tensor,
    batch: Batch,
    guidance_scale: float,
    decode: Callable[[torch.Tensor], torch.Tensor],
    *,
    want_images: bool = False,
) -> Seen:
    """Scores of every detector from one trajectory, no longer than the longest that one of them
    needs. The scheduler's timesteps are set.

    noise: (n, 4, h, w) of unit variance. decode: latents -> images (n, 3, H, W) in [0, 1]; the
    images are made and returned when a detector needs them or want_images says so.
    """
    scheduler = predictor.scheduler
    total = len(scheduler.timesteps)
    watchers = [detector.watch(predictor, batch, total) for detector in detectors]
    wanted = [detector.steps(total) for detector in detectors]
    extra = [torch.zeros_like(predictor.unet_evals) for _ in detectors]
    shown = OpenPredictor(predictor)
    shown.open_for(watchers, wanted, 0)
    kept: list[Prediction] = []

    def on_step(step: Step, prediction: Prediction) -> None:
        prediction.need("uncond", "text")
        if step.index == 0 and not shown.sees:
            kept.append(prediction)
        for i, watcher in enumerate(watchers):
            if step.index < wanted[i]:
                before = predictor.unet_evals.clone()
                watcher.on_step(step, prediction)
                extra[i] += predictor.unet_evals - before
        shown.open_for(watchers, wanted, step.index + 1)

    final, longest = noise * scheduler.init_noise_sigma, max(wanted)
    pictures = want_images or any(detector.needs_images for detector in detectors)
    whole = pictures or any(detector.needs_final for detector in detectors)
    if longest or whole:
        watched = None if whole else longest
        final = steps(
            shown,
            final,
            batch,
            GuidanceSchedule(),
            guidance_scale,
            on_step=on_step,
            watched=watched,
        )
    images = decode(final) if pictures else None
    found = []
    for detector, watcher, length, own in zip(detectors, watchers, wanted, extra):
        before = predictor.unet_evals.clone()
        scores = watcher.finish(final, images if detector.needs_images else None).float().cpu()
        rows = (
            own + predictor.unet_evals - before + 2 * (total if detector.needs_images else length)
        )
        found.append(Watched(scores, rows, watcher.masks()))
    return Seen(found, images, kept[0] if kept else None)
