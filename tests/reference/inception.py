"""Inception-v3 with random weights as a TorchScript file, for tests without the released one.
Imports nothing of the suite.

The file inception-2015-12-05.pt of stylegan2-ada has a module `layers` that takes images scaled to
(x - 128) / 128 and gives the 2048 pooled features. This is torchvision's Inception-v3 in that form;
the branch pools of FID's own count no padding, of which a loader sees nothing.
"""

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import inception_v3

from tests.reference.pillow_resize import small_edge


class Layers(nn.Module):
    """(n, 3, 299, 299) -> (n, 2048)."""

    def __init__(self):
        super().__init__()
        self.network = inception_v3(
            weights=None, aux_logits=False, transform_input=False, init_weights=False
        )
        self.network.fc = nn.Identity()
        self.network.dropout = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pooled features."""
        return self.network(x)


class Inception(nn.Module):
    """The network whose `layers` are read; its own forward is not used."""

    def __init__(self, layers: nn.Module):
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of images in [0, 255]."""
        return self.layers((x - 128) / 128)


@torch.no_grad()
def random_inception(seed: int) -> nn.Module:
    """The network in eval mode, its convolutions scaled so that the features have the size of the
    images; the caller's random state stays.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Inception(Layers())
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return model.eval()


def save_traced(model: nn.Module, path, side: int = 299) -> None:
    """Writes the model as a TorchScript file."""
    torch.jit.trace(model, torch.zeros(1, 3, side, side), check_trace=False).save(str(path))


@torch.no_grad()
def inception_features(model: nn.Module, image: Image.Image) -> np.ndarray:
    """Features of one image: every channel resized alone as 32-bit float, PIL bicubic to 299 x 299,
    cut to [0, 255] but not rounded. Source: Parmar et al., CVPR 2022, and clean-fid's mode "clean".
    """
    pixels = np.array(image.convert("RGB"), dtype=np.float32)
    channels = [
        Image.fromarray(pixels[:, :, c], mode="F").resize((299, 299), Image.Resampling.BICUBIC)
        for c in range(3)
    ]
    resized = torch.tensor(np.stack([np.array(channel) for channel in channels])).clamp(0, 255)
    return model(resized[None])[0].double().numpy()


@torch.no_grad()
def clip_features(model, image: Image.Image) -> np.ndarray:
    """OpenAI's CLIP image embedding, not normalized: small edge to 224 (PIL bicubic, 8 bit), center
    crop, CLIP's mean and deviation. Source: Kynkaanniemi et al., ICLR 2023, and clean-fid's
    clip_features.py. model: open_clip's.
    """
    small = small_edge(image.convert("RGB"), 224, "bicubic")
    left = round((small.width - 224) / 2)
    top = round((small.height - 224) / 2)
    cropped = small.crop((left, top, left + 224, top + 224))
    pixels = torch.tensor(np.array(cropped)).permute(2, 0, 1).float() / 255
    mean, deviation = (
        torch.tensor(values)[:, None, None]
        for values in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    return model.encode_image(((pixels - mean) / deviation)[None])[0].double().numpy()
