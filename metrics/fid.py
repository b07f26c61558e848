"""Distance between two sets of images: FID (Heusel et al. 2017), KID (Binkowski et al. 2018), CLIP-FID (Kynkäänniemi et al. 2023).

Resizing and distances are those of the package clean-fid (Parmar et al., CVPR 2022). Lower is better; small sets bias FID upwards, so only
sets of equal size compare.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as T

from metrics.image_features import EfficientNet
from metrics.pictures import Embedder, loading


class Inception(Embedder):
    """The TorchScript Inception-v3 of 2015-12-05 that FID is defined by; images resized as clean-fid does. (n, 2048)."""

    name, unit = "inception_v3_clean", False

    def __init__(self, checkpoint: Path, *, device: str = "cpu", batch_size: int = 32):
        from cleanfid.resize import build_resizer

        super().__init__(device=device, batch_size=batch_size)
        self.resize = build_resizer("clean")
        with loading(checkpoint, "the TorchScript Inception network"):
            self.layers = torch.jit.load(checkpoint, map_location=device).eval().layers

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(self.resize(np.array(image))).permute(2, 0, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layers((batch - 128) / 128).flatten(1)


class ClipImages(Embedder):
    """OpenAI's CLIP ViT-B/32 image encoder, for CLIP-FID. (n, 512), not normalised."""

    name, unit = "clip_vit_b_32_openai", False

    def __init__(self, checkpoint: Path, *, device: str = "cpu", batch_size: int = 32):
        import open_clip

        super().__init__(device=device, batch_size=batch_size)
        with loading(checkpoint, "open_clip's ViT-B-32-quickgelu"):
            self.model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=str(checkpoint), device=device).eval()
        self.transform = T.Compose([T.Resize(224, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(224), T.ToTensor(),
                                    T.Normalize(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)])

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return self.transform(image)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(batch)


class OfflineFeatures(EfficientNet):
    """EfficientNet-lite0's pooled features, not normalised: a distance in them is no FID, and is not called so."""

    unit = False


def frechet(first: torch.Tensor, second: torch.Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features, (n, d) and (m, d)."""
    from cleanfid.fid import frechet_distance

    a, b = first.double().numpy(), second.double().numpy()
    return float(frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)))


def kernel(first: torch.Tensor, second: torch.Tensor, seed: int = 0) -> float:
    """Kernel distance, cubic polynomial, mean of 100 subsets of at most 1,000 images; its subsets depend on the seed alone."""
    from cleanfid.fid import kernel_distance

    with numpy_seed(seed):
        return float(kernel_distance(first.double().numpy(), second.double().numpy()))


@contextlib.contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """numpy's global generator, which clean-fid draws from, is put back afterwards."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
