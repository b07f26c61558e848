"""LPIPS diversity: how different the images of one prompt are. Higher means more diverse. Zhang et
al., CVPR 2018; Han et al. 2025.

LPIPS(f, g) = sum over layers of the mean over places of sum_c w_c (f_c - g_c)^2 on unit-normalized
features. The features of an image, scaled by sqrt(w), are computed once; a pair is then a squared
distance, so n images cost n passes instead of n (n - 1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from memorization_suite.metrics.base import Job, Metric, register
from memorization_suite.metrics.checkpoints import Checkpoint
from memorization_suite.metrics.pictures import equal_shapes, loading
from memorization_suite.metrics.runs import Group
from memorization_suite.metrics.scores import Score, Values, by_sample
from memorization_suite.runs.lazy import Image, Lazy, nn, torch
from memorization_suite.runs.settings import flag
from memorization_suite.runs.weights import Report

lpips = Lazy("lpips")
transforms = Lazy("torchvision.transforms.functional")


class LpipsDiversity(Score):
    """Package `lpips`, AlexNet, its own linear heads (v0.1). alexnet: torchvision's state dict."""

    quantity = "lpips"

    def __init__(
        self, alexnet: Path, *, name: str = "alex_v0.1", device: str = "cpu", batch_size: int = 32
    ):
        self.variant = name
        self.device = device
        self.batch_size = batch_size
        with loading(alexnet, "torchvision's AlexNet"):
            self.model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
            check_heads(self.model)
            state = torch.load(alexnet, map_location="cpu", weights_only=True)
            load_alexnet(self.model.net, state, alexnet)
        self.model.eval().requires_grad_(False).to(device)

    def features(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        """Per layer (n, c * h * w): scaled so that LPIPS is the sum over layers of squared
        distances.

        images: RGB. Raises ValueError when their sizes differ.
        """
        if len({image.size for image in images}) > 1:
            raise ValueError("LPIPS compares images of one size")
        pixels = map(pixels_of, images)
        weights = [head.model[-1].weight for head in self.model.lins]
        batches = []
        with torch.inference_mode():
            for batch in equal_shapes(pixels, self.batch_size):
                x = self.model.scaling_layer(batch.to(self.device))
                outputs = self.model.net(x)
                batches.append(list(map(scaled, outputs, weights)))
            return [torch.cat(layer) for layer in zip(*batches)]

    def distances(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """LPIPS of all pairs, (n, n) float32 on the CPU, zero on the diagonal."""
        total = torch.zeros(len(images), len(images))
        for layer in self.features(images):
            for i in range(len(images) - 1):
                others = slice(i + 1, None)
                row = (layer[others] - layer[i]).square().sum(1).cpu()
                total[i, others] += row
                total[others, i] += row
        return total

    def score(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Mean distance of each image to the others, (n,); their mean is the mean over all pairs.

        Needs two images or more.
        """
        return self.distances(images).sum(1) / (len(images) - 1)

    def values(self, group: Group) -> Values:
        if len(group.pictures) < 2:
            return {}
        return by_sample(group, self.score([picture.image for picture in group.pictures]))


def pixels_of(image: Image.Image) -> torch.Tensor:
    """A PIL image in RGB -> (3, h, w) float32 in [-1, 1], at its own size."""
    return transforms.to_tensor(image) * 2 - 1


def scaled(output: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A layer's output (n, c, h, w) -> (n, c * h * w), of unit length at each place and scaled by
    the root of the head's weight and of the share of a place.
    """
    height, width = output.shape[2:]
    scale = (weight.reshape(1, -1, 1, 1) / (height * width)).sqrt()
    return (lpips.normalize_tensor(output) * scale).flatten(1)


def check_heads(model: nn.Module) -> None:
    """Raises Incomplete when the package's own file lacks a linear head: it loads what is there."""
    file = Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth"
    stored = torch.load(file, map_location="cpu", weights_only=True)
    heads = [name for name in model.state_dict() if re.match(r"lin\d", name)]
    missing = tuple(name for name in heads if name not in stored)
    Report(missing).check("the package lpips", file)


def load_alexnet(net: nn.Module, state: dict[str, torch.Tensor], file: Path) -> None:
    """torchvision's `features.N.*` into lpips' `sliceK.N.*`.

    Raises Incomplete for a file that lacks one of them, or has one of another shape.
    """
    weights, missing, mismatched = {}, [], []
    for ours, empty in net.state_dict().items():
        _, name = ours.split(".", 1)
        theirs = f"features.{name}"
        found = state.get(theirs)
        if found is None:
            missing.append(theirs)
        elif found.shape != empty.shape:
            mismatched.append((theirs, found.shape, empty.shape))
        else:
            weights[ours] = found
    Report(tuple(missing), tuple(mismatched)).check("torchvision's AlexNet", file)
    net.load_state_dict(weights)


@register(
    "lpips",
    role="diversity",
    better="higher",
    title="LPIPS mean :  ",
    what="mean LPIPS of an image to the prompt's others",
    variant="alex_v0.1",
)
class LpipsMetric(Metric):
    """Mean LPIPS of each image to the prompt's others."""

    alexnet: Path | None = flag(
        None,
        "torchvision's AlexNet weights, for LPIPS (default: where download/ puts them)",
        metavar="FILE",
    )

    def checkpoints(self, job: Job) -> list[Checkpoint]:
        return [Checkpoint.of(self, "alexnet", "lpips_alexnet")]

    def scores(self, job: Job) -> list[Score]:
        (checkpoint,) = self.checkpoints(job)
        name = checkpoint.variant("alex_v0.1")
        return [job.network(LpipsDiversity, checkpoint.path, name=name)]
