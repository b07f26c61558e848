"""Distance between two sets of images: FID (Heusel et al. 2017), KID (Binkowski et al. 2018),
CLIP-FID (Kynkäänniemi et al. 2023).

Resizing and the kernel distance are those of the package clean-fid (Parmar et al., CVPR 2022); the
Fréchet distance equals its own, without a matrix square root. Lower is better; small sets bias FID
upwards, so only sets of equal size compare.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.pictures import Embedder, loading
from memorization_suite.metrics.resizing import Resize
from memorization_suite.runs.lazy import Image, Lazy, np, torch

T = Lazy("torchvision.transforms")
open_clip = Lazy("open_clip")
clean_resize = Lazy("cleanfid.resize")
clean_fid = Lazy("cleanfid.fid")


def inception_pixels(image: Image.Image) -> torch.Tensor:
    """A PIL image in RGB -> (3, 299, 299) float32 in [0, 255], as clean-fid resizes: float, each
    channel alone, not rounded.
    """
    resize = clean_resize.build_resizer("clean")
    return torch.from_numpy(resize(np.array(image))).permute(2, 0, 1)


def clip_pixels(image: Image.Image) -> torch.Tensor:
    """A PIL image in RGB -> (3, 224, 224) float32, as clean-fid prepares it for CLIP."""
    transform = T.Compose(
        [
            Resize(224, Image.Resampling.BICUBIC),
            T.CenterCrop(224),
            T.ToTensor(),
            T.Normalize(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD),
        ]
    )
    return transform(image)


class Inception(Embedder):
    """The TorchScript Inception-v3 of 2015-12-05 that FID is defined by; images resized as
    clean-fid does. (n, 2048).
    """

    unit = False

    def __init__(self, checkpoint: Path, *, name: str = "inception_v3_clean", **options: Any):
        super().__init__(**options)
        self.name = name
        with loading(checkpoint, "the TorchScript Inception network"):
            self.layers = torch.jit.load(checkpoint, map_location=self.device).eval().layers

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return inception_pixels(image)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layers((batch - 128) / 128).flatten(1)


class ClipImages(Embedder):
    """OpenAI's CLIP ViT-B/32 image encoder, for CLIP-FID. (n, 512), not normalized."""

    unit = False

    def __init__(self, checkpoint: Path, *, name: str = "clip_vit_b_32_openai", **options: Any):
        super().__init__(**options)
        self.name = name
        with loading(checkpoint, "open_clip's ViT-B-32-quickgelu"):
            model = open_clip.create_model(
                "ViT-B-32-quickgelu", pretrained=str(checkpoint), device=self.device
            )
        self.model = model.eval()

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return clip_pixels(image)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(batch)


class OfflineFeatures(EfficientNet):
    """EfficientNet-lite0's pooled features, not normalized: a distance in them is no FID, and is
    not called so.
    """

    unit = False


def frechet(first: torch.Tensor, second: torch.Tensor) -> float:
    """|mean - mean'|^2 + tr(S + S' - 2 (S S')^(1/2)) for the means and covariances S of two sets of
    features, (n, d) and (m, d); n, m >= 2.

    With S = R^T R, that trace of the root is the sum of the singular values of R R'^T. So sets
    smaller than d, whose covariances are singular, are no special case.
    """
    mean, root = moments(first)
    other_mean, other_root = moments(second)
    means = np.square(mean - other_mean).sum()
    trace = np.square(root).sum()
    other_trace = np.square(other_root).sum()
    cross = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    return float(means + trace + other_trace - 2 * cross)


def moments(features: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and the root R, (min(n, d), d), of the covariance R^T R of features (n, d)."""
    values = features.double().numpy()
    mean = values.mean(0)
    root = np.linalg.qr((values - mean) / np.sqrt(len(values) - 1), mode="r")
    return mean, root


def kernel(first: torch.Tensor, second: torch.Tensor, seed: int = 0) -> float:
    """Kernel distance, cubic polynomial, mean of 100 subsets of at most 1,000 images; its subsets
    depend on the seed alone.
    """
    with numpy_seed(seed):
        return float(clean_fid.kernel_distance(first.double().numpy(), second.double().numpy()))


@contextlib.contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """numpy's global generator, which clean-fid draws from, is put back afterward."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
