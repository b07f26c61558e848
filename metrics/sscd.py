"""SSCD: how near an image is to a training image, for a network trained to find copies.

Pizzi et al., CVPR 2022. Numbers of different presets or checkpoints cannot be compared, so both are
in a result's variant.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torchvision import transforms as T

from memorization_suite.metrics.pictures import Embedder, loading

IMAGENET = T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = T.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PRESETS = {
    "official320": T.Compose(
        [T.Resize([320, 320]), T.ToTensor(), IMAGENET]
    ),  # Han; the SSCD authors' square variant
    "sq288": T.Compose([T.Resize([288, 288]), T.ToTensor(), IMAGENET]),  # MemBench
    "small288": T.Compose(
        [T.Resize(288), T.ToTensor(), IMAGENET]
    ),  # the SSCD authors: small edge, shape kept
    "wen224": T.Compose(
        [T.Resize(256), T.CenterCrop(224), T.ToTensor(), HALF]
    ),  # Wen, Bright Ending, GUARD, SAIL, DCR
}


class SSCD(Embedder):
    """Descriptors of an SSCD checkpoint (TorchScript). Their cosine is the copy similarity, in [-1,
    1]; higher means nearer.

    A copy, by the literature's thresholds: above 0.7 (Wen et al.) or 0.5 (Somepalli et al.,
    MemBench).
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        name: str = "",
        preset: str = "official320",
        device: str = "cpu",
        batch_size: int = 32,
    ):
        super().__init__(device=device, batch_size=batch_size)
        self.name = f"{name or checkpoint.name.split('.')[0]}_{preset}".removeprefix("sscd_")
        self.transform = PRESETS[preset]
        with loading(checkpoint, "a TorchScript SSCD model"):
            self.model = torch.jit.load(checkpoint, map_location=device).eval()

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return self.transform(image)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model(batch)
