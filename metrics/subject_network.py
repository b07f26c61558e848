"""The network that sees which subjects of the embedded models' world an image shows.

It looks at every place of an image by itself, so that it sees each of several subjects. It learned
rendered artwork (experiments/train_subjects.py), never an image that a UNet made.
"""

from __future__ import annotations

import functools
import json

from memorization_suite.metrics.images import to_tensor
from memorization_suite.metrics.pictures import Embedder
from memorization_suite.runs.lazy import F, Image, Lazy, nn, no_grad, torch
from memorization_suite.tiny import FOLDER

safetensors = Lazy("safetensors")

# It will follow the probe (tiny.PROBE) with the models of 64 pixels.
WEIGHTS = FOLDER / "next" / "subjects.safetensors"
SIZE = 64  # pixels that it reads, across and down
# Channels of its layers, and whether each halves the size.
LAYERS = ((24, True), (40, False), (64, True), (72, False), (88, True))


def build_network(subjects: int) -> nn.Sequential:
    """(n, 3, 64, 64) in [-1, 1] -> logits of every subject at every place, (n, subjects, 8, 8)."""
    layers: list[nn.Module] = []
    width = 3
    for channels, halves in LAYERS:
        stride = 2 if halves else 1
        layers.append(nn.Conv2d(width, channels, 3, stride, padding=1, bias=False))
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        width = channels
    return nn.Sequential(*layers, nn.Conv2d(width, subjects, 1))


def logits_of(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Logits of each subject somewhere in the image: above 0, it is more likely there than not.

    images: (n, 3, h, w) in [0, 1] -> (n, subjects).
    """
    if images.shape[-2:] != (SIZE, SIZE):
        images = F.interpolate(images, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1)
    return network(2 * images - 1).flatten(2).logsumexp(2)


@functools.cache
def subject_names() -> list[str]:
    """The subjects, in the order of the logits."""
    with safetensors.safe_open(WEIGHTS, framework="pt") as file:
        return json.loads(file.metadata()["subjects"])


@functools.cache
def subject_network(device: str = "cpu") -> nn.Module:
    """The network as it was trained, float32."""
    network = build_network(len(subject_names()))
    with safetensors.safe_open(WEIGHTS, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network.load_state_dict(state)
    return network.eval().requires_grad_(False).to(device)


@no_grad
def subject_logits(images: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
    """Logits of every subject. images: (n, 3, h, w) in [0, 1] -> (n, subjects), on their device."""
    network = subject_network(str(images.device))
    return torch.cat([logits_of(network, batch.float()) for batch in images.split(batch_size)])


class SubjectNetwork(Embedder):
    """The logits as an embedder of pictures."""

    name = f"subject_network_{SIZE}"
    unit = False

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return to_tensor([image])[0]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return logits_of(subject_network(self.device), batch)
