"""What a detector is: it watches a guided trajectory, or its start, and scores every image."""

from __future__ import annotations

from typing import ClassVar

from memorization_suite.lazy import torch
from memorization_suite.runs.registry import Registry
from memorization_suite.runs.settings import Settings
from memorization_suite.sampling import Batch, NoisePredictor, Prediction, Step
from memorization_suite.sampling.attention import See


class Watcher:
    """One detector's look at one batch. Methods are called in this order.

    Images never see each other unless a score is about a prompt.
    """

    def __init__(self, detector, predictor: NoisePredictor, batch: Batch, total: int):
        # Its settings.
        self.detector = detector
        # For evaluations of its own, which are counted.
        self.predictor = predictor
        self.batch = batch
        # Steps of the sampler.
        self.total = total
        self.begin()

    def begin(self) -> None:
        """Prepares what the watcher collects."""

    def attention(self, index: int) -> dict[str, See]:
        """Cross-attention module -> what to do with its probabilities (rows, heads, queries, 77) in
        the trajectory's UNet call of this step.
        """
        return {}

    def on_step(self, step: Step, prediction: Prediction) -> None:
        """Once per watched step.

        prediction.x is what the UNet read, of unit variance at the first step.
        """

    def finish(self, final: torch.Tensor, images: torch.Tensor | None) -> torch.Tensor:
        """Scores (n,), larger is more memorized.

        final: last latents. images: (n, 3, H, W) in [0, 1], if the detector asked for them.
        """
        raise NotImplementedError

    def masks(self) -> torch.Tensor | None:
        """Where the memorized part is, for detectors that tell.

        (n, h, w) of the latents' size and at least 0.
        """
        return None


class Detector(Settings):
    """A detector's settings; `watch` starts one of its watchers on a batch."""

    name: ClassVar[str]
    paper: ClassVar[str]
    cost: ClassVar[str]  # UNet rows per image when it runs alone, N steps
    watcher: ClassVar[type[Watcher]]
    needs_final: ClassVar[bool] = False  # the last latents, so the trajectory goes to its end
    needs_images: ClassVar[bool] = False  # the pictures too
    spatial: ClassVar[bool] = False  # does it have masks?

    def steps(self, total: int) -> int:
        """How many predictions of the trajectory it looks at: 0 none, `total` all of them."""
        return 0

    def watch(self, predictor: NoisePredictor, batch: Batch, total: int) -> Watcher:
        """A watcher for one batch."""
        return self.watcher(self, predictor, batch, total)

    def missing(self) -> str:
        """What the detector cannot run without and was not given, as the end of a sentence.

        Empty when nothing is.
        """
        return ""

    def check(self, total: int) -> None:
        """Raises ValueError for settings that make no sense with this number of steps."""
        if self.steps(total) > total:
            raise ValueError(
                f"--num_steps {self.steps(total)} is more than the {total} steps of the sampler"
            )


DETECTORS: Registry[Detector] = Registry("detector", "detection")


def register(name: str, *, paper: str, cost: str):
    """Class decorator: makes frozen settings of the detector and lists it under `name`.

    cost: UNet rows per image when it runs alone, N steps.
    """
    return DETECTORS.register(name, paper=paper, cost=cost)


def build_detector(name: str, **settings) -> Detector:
    """A detector with its settings.

    Raises ValueError for an unknown name, an unknown setting or a value out of range.
    """
    return DETECTORS.build(name, **settings)
