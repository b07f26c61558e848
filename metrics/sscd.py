"""SSCD: how near an image is to a training image, for a network trained to find copies.

Pizzi et al., CVPR 2022. Numbers of different presets or checkpoints cannot be compared, so both are
in a result's variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization_suite.metrics.base import Job, Metric, Quantity, register
from memorization_suite.metrics.checkpoints import Checkpoint
from memorization_suite.metrics.localized import LocalizedFeatures, LocalizedGated
from memorization_suite.metrics.pictures import Embedder, loading
from memorization_suite.metrics.resizing import Resize
from memorization_suite.metrics.scores import NearestReference, Score
from memorization_suite.runs.lazy import Image, Lazy, torch
from memorization_suite.runs.settings import flag

T = Lazy("torchvision.transforms")

# (mean, deviation) of red, green and blue.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Preset:
    """How an image is made ready for the network."""

    # Pixels of both edges, or of the smaller one where the shape is kept.
    size: tuple[int, int] | int
    # Pixels of the square in the middle that is used; None: all.
    crop: int | None = None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET

    def transform(self):
        """A PIL image in RGB -> (3, h, w) float32. The official scripts convert to RGB first."""
        steps = [Resize(self.size)]
        if self.crop is not None:
            steps.append(T.CenterCrop(self.crop))
        return T.Compose([*steps, T.ToTensor(), T.Normalize(*self.normalization)])


PRESETS = {
    # Han; the SSCD authors' square variant.
    "official320": Preset((320, 320)),
    # MemBench.
    "sq288": Preset((288, 288)),
    # The SSCD authors.
    "small288": Preset(288),
    # Wen, Bright Ending, GUARD, SAIL, DCR.
    "wen224": Preset(256, crop=224, normalization=HALF),
}


# The variant with the default flags.
DEFAULT = "disc_mixup_official320"


class SSCD(Embedder):
    """Descriptors of an SSCD checkpoint (TorchScript). Their cosine is the copy similarity, in
    [-1, 1]; higher means nearer.

    A copy, by the literature's thresholds: 0.7 (Wen et al.) or 0.5 (Somepalli et al., MemBench).
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        name: str = "",
        preset: str = "official320",
        **options: Any,
    ):
        super().__init__(**options)
        stem = name or checkpoint.name.split(".")[0]
        self.name = f"{stem}_{preset}".removeprefix("sscd_")
        self.transform = PRESETS[preset].transform()
        with loading(checkpoint, "a TorchScript SSCD model"):
            self.model = torch.jit.load(checkpoint, map_location=self.device).eval()

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return self.transform(image)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model(batch)


@register(
    "sscd",
    Quantity(
        "sscd",
        better="lower",
        role="copy",
        thresholds=(0.5, 0.7),
        title="Mean SSCD score: ",
        what="largest cosine to a training image",
        variant=DEFAULT,
    ),
    Quantity(
        "ls_sscd",
        better="lower",
        against="references and masks",
        what="largest cosine of the masked pictures",
        variant=DEFAULT,
    ),
    Quantity(
        "ls_gated",
        better="lower",
        against="references and masks",
        what="ls_l2 of images whose whole picture is near (sscd above 0.5)",
        variant=DEFAULT,
    ),
    against="references",
)
class SscdMetric(Metric):
    """Largest similarity to a training image of the prompt; with masks, inside them too."""

    sscd: str = flag(
        "sscd_disc_mixup", "which SSCD checkpoint", choices=("sscd_disc_mixup", "sscd_disc_large")
    )
    sscd_checkpoint: Path | None = flag(
        None, "its TorchScript file (default: where download/ puts it)", metavar="FILE"
    )
    sscd_preset: str = flag(
        "official320",
        "how images are resized and normalized for SSCD",
        choices=tuple(PRESETS),
    )

    def checkpoints(self, job: Job) -> list[Checkpoint]:
        return [Checkpoint.of(self, "sscd_checkpoint", self.sscd)]

    def network(self, job: Job) -> SSCD:
        """The network that the flags ask for."""
        (checkpoint,) = self.checkpoints(job)
        name = checkpoint.variant(self.sscd)
        return job.network(SSCD, checkpoint.path, name=name, preset=self.sscd_preset)

    def scores(self, job: Job) -> list[Score]:
        nearest = NearestReference("sscd", self.network(job))
        if job.masks is None:
            return [nearest]
        return [nearest, LocalizedFeatures("ls_sscd", nearest.embedder), LocalizedGated(nearest)]
