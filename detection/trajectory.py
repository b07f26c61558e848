"""One trajectory for several detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from memorization_suite.detection.base import Detector, Watcher
from memorization_suite.lazy import no_grad, torch
from memorization_suite.sampling import Batch, GuidanceSchedule, NoisePredictor, Prediction, Step
from memorization_suite.sampling.attention import See, open_attention
from memorization_suite.sampling.loop import steps


@dataclass
class Watched:
    """What one detector found in a batch."""

    # (n,).
    scores: torch.Tensor
    # UNet rows of each image if it had run alone, (n,).
    rows: torch.Tensor
    # (n, h, w).
    masks: torch.Tensor | None


@dataclass
class Seen:
    """What all detectors found in a batch."""

    # A detector each.
    found: list[Watched]
    # (n, 3, H, W) in [0, 1], if they were made.
    images: torch.Tensor | None
    # Step 0's prediction, if it was made as sampling makes it: without open attention, whose
    # rounding differs.
    first: Prediction | None


@dataclass
class Look:
    """A detector at work on a batch."""

    detector: Detector
    watcher: Watcher
    # Predictions of the trajectory that it looks at, from the first.
    length: int
    # UNet rows of its own evaluations, of each image (n,).
    rows: torch.Tensor

    @contextmanager
    def counted(self) -> Iterator[None]:
        """What is evaluated inside the block counts as this detector's own."""
        before = self.watcher.predictor.unet_evals.clone()
        yield
        self.rows += self.watcher.predictor.unet_evals - before


class OpenSteps:
    """Opens the UNet's cross-attention to the watchers, step by step."""

    def __init__(self, unet, looks: Sequence[Look]):
        self.unet = unet
        self.looks = looks
        # Module -> who wants to see its probabilities in the next step.
        self.sees: dict[str, list[See]] = {}
        self.opened = ExitStack()

    def open(self, index: int) -> None:
        """Opens what is wanted in this step."""
        self.sees = {}
        for look in self.looks:
            wanted = look.watcher.attention(index) if index < look.length else {}
            for name, see in wanted.items():
                self.sees.setdefault(name, []).append(see)
        if self.sees:
            self.opened.enter_context(open_attention(self.unet, list(self.sees), see=self.show))

    def show(self, name: str, probs: torch.Tensor) -> None:
        """Shows a module's probabilities to all who want to see them."""
        for see in self.sees[name]:
            see(name, probs)

    def close(self) -> None:
        """The UNet is as before."""
        self.opened.close()


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
    """Scores of every detector from one trajectory, no longer than the longest that one needs.

    The scheduler's timesteps are set. noise: (n, 4, h, w) of unit variance. decode: latents ->
    images (n, 3, H, W) in [0, 1]; the images are made and returned when a detector needs them or
    want_images says so.
    """
    scheduler = predictor.scheduler
    total = len(scheduler.timesteps)
    looks = []
    for detector in detectors:
        watcher = detector.watch(predictor, batch, total)
        rows = torch.zeros_like(predictor.unet_evals)
        looks.append(Look(detector, watcher, detector.steps(total), rows))
    longest = max(look.length for look in looks)
    decoded = want_images or any(detector.needs_images for detector in detectors)
    whole = decoded or any(detector.needs_final for detector in detectors)
    attention = OpenSteps(predictor.unet, looks)
    first: list[Prediction] = []

    def on_step(step: Step, prediction: Prediction) -> None:
        prediction.need("uncond", "text")
        attention.close()
        if step.index == 0 and not attention.sees:
            first.append(prediction)
        for look in looks:
            if step.index < look.length:
                with look.counted():
                    look.watcher.on_step(step, prediction)
        attention.open(step.index + 1)

    final = noise * scheduler.init_noise_sigma
    if longest or whole:
        with closing(attention):
            attention.open(0)
            final = steps(
                predictor,
                final,
                batch,
                GuidanceSchedule(),
                guidance_scale,
                on_step=on_step,
                watched=None if whole else longest,
            )
    images = decode(final) if decoded else None
    found = [finished(look, final, images, total) for look in looks]
    return Seen(found, images, first[0] if first else None)


def finished(look: Look, final: torch.Tensor, images: torch.Tensor | None, total: int) -> Watched:
    """What a detector found, when the trajectory has ended. total: steps of the sampler."""
    needs_images = look.detector.needs_images
    with look.counted():
        scores = look.watcher.finish(final, images if needs_images else None).float().cpu()
    rows = look.rows + 2 * (total if needs_images else look.length)
    return Watched(scores, rows, look.watcher.masks())
