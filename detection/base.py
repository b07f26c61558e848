"""What a detector is: it looks at a guided trajectory, or its start, and scores every image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from memorization_suite.runs.lazy import torch
from memorization_suite.runs.registry import Registry
from memorization_suite.runs.settings import Settings
from memorization_suite.sampling import Batch, NoisePredictor, Prediction, Step
from memorization_suite.sampling.denoiser import See


@dataclass
class Look:
    """A detector's look at one batch: what it may use, and what it keeps until it scores."""

    # For evaluations of the detector's own, which are counted.
    predictor: NoisePredictor
    batch: Batch
    # Steps of the sampler.
    total: int
    # NFE of those evaluations, of each image (n,).
    rows: torch.Tensor
    # What was kept: name -> its values, the first step's first.
    series: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    # When the trajectory has ended: the last latents.
    final: torch.Tensor = field(init=False)
    # Then too: (n, 3, H, W) in [0, 1], if the detector asked for them.
    images: torch.Tensor = field(init=False)

    def keep(self, **values: Any) -> None:
        """Appends each value to the series of its name."""
        for name, value in values.items():
            self.series[name].append(value)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """What is evaluated inside the block counts as the detector's own."""
        before = self.predictor.unet_evals.clone()
        yield
        self.rows += self.predictor.unet_evals - before


class Detector(Settings):
    """A detector's settings, and what it does with a batch: the methods that take a look.

    They are called in this order. Images never see each other unless a score is about a prompt.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    cost: ClassVar[str]  # NFE per image when it runs alone, N steps
    # For the documents: owner/name of the official code on GitHub, and how the score compares.
    code: ClassVar[str] = ""
    compared: ClassVar[str] = ""
    needs_final: ClassVar[bool] = False  # the last latents, so the trajectory goes to its end
    needs_images: ClassVar[bool] = False  # the pictures too
    spatial: ClassVar[bool] = False  # does it have masks?
    least_images: ClassVar[int] = 1  # of a prompt, without which it has no score

    def steps(self, total: int) -> int:
        """How many predictions of the trajectory it looks at, from the first: all of them."""
        return total

    def attention(self, look: Look, index: int) -> dict[str, See]:
        """Cross-attention module -> what to do with its probabilities (rows, heads, queries, 77) in
        the trajectory's UNet call of this step.
        """
        return {}

    def on_step(self, look: Look, step: Step, prediction: Prediction) -> None:
        """Once per step that it looks at.

        prediction.x is what the UNet read, of unit variance at the first step.
        """

    def finish(self, look: Look) -> torch.Tensor:
        """Scores (n,), larger is more memorized: the mean over the steps' `score`."""
        return torch.stack(look.series["score"]).mean(0)

    def masks(self, look: Look) -> torch.Tensor | None:
        """Where the memorized part is, for detectors that tell.

        (n, h, w) of the latents' size and at least 0.
        """
        return None

    def derivatives(self, dtype: str) -> str:
        """The precision in which it differentiates a network of this dtype, in its words (fp32,
        bf16, fp16); empty when it does not differentiate.
        """
        return ""

    def missing(self) -> str:
        """What the detector cannot run without and was not given, as the end of a sentence.

        Empty when nothing is.
        """
        return ""

    def too_few(self, images: int) -> str:
        """What it needs where a prompt has only so many images, as `missing`."""
        if images >= self.least_images:
            return ""
        return (
            f"compares the images of a prompt, and needs -n {self.least_images} or more; "
            f"--n_samples_per_prompt is {images}"
        )

    def check(self, total: int) -> None:
        """Raises ValueError for settings that make no sense with this number of steps."""
        if self.steps(total) > total:
            raise ValueError(
                f"--num_steps {self.steps(total)} is more than the {total} steps of the sampler"
            )


DETECTORS: Registry[Detector] = Registry("detector", "detection")


def register(name: str, *, paper: str, cost: str, code: str = "", compared: str = ""):
    """Class decorator: makes frozen settings of the detector and lists it under `name`.

    cost: NFE per image when it runs alone, N steps. code: owner/name of the official code on
    GitHub. compared: how the score compares with it; both stand in detection/README.md.
    """
    return DETECTORS.register(name, paper=paper, cost=cost, code=code, compared=compared)


def build_detector(name: str, **settings) -> Detector:
    """A detector with its settings.

    Raises ValueError for an unknown name, an unknown setting or a value out of range.
    """
    return DETECTORS.build(name, **settings)
