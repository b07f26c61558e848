"""SSCD's network (Pizzi et al., CVPR 2022) with random weights, for tests without the released
file. Imports nothing of the suite.

Facts from facebookresearch/sscd-copy-detection (README.md, sscd/models/model.py, gem_pooling.py),
backbone TV_RESNET50: torchvision's ResNet-50 whose average pooling is GeM (p = 3) and whose fc is
Linear 2048 -> 512, then L2 normalization. Names are those of the released `*.torchvision.pt` files.
disc_large is ResNeXt-101 32x4d with 1024 dimensions (32x4d is Classy Vision's cardinality;
torchvision's own builder has 32x8d).
"""

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet


class GeM(nn.Module):
    """Generalized mean over the places, clamped to 1e-6. (n, c, h, w) -> (n, c). Source:
    sscd/models/gem_pooling.py.
    """

    def __init__(self, p: float = 3.0):
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(mean of x^p)^(1/p) of each channel."""
        return x.flatten(2).clamp(min=1e-6).pow(self.p).mean(dim=2).pow(1.0 / self.p)


class SSCD(nn.Module):
    """(n, 3, h, w) of any size from 32 up -> (n, 512), large: (n, 1024), rows of length 1. Source:
    sscd/models/model.py.
    """

    def __init__(self, large: bool = False):
        super().__init__()
        if large:
            self.backbone = ResNet(
                Bottleneck, [3, 4, 23, 3], num_classes=1024, groups=32, width_per_group=4
            )
        else:
            self.backbone = ResNet(Bottleneck, [3, 4, 6, 3], num_classes=512)
        self.backbone.avgpool = GeM(3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Descriptors of the images."""
        return F.normalize(self.backbone(x))


@torch.no_grad()
def random_sscd(seed: int, large: bool = False) -> nn.Module:
    """The network in eval mode, equal for equal seeds; the caller's random state stays as it was.
    Source: as the module's.

    A ResNet as it is initialized gives nearly one descriptor for all images. So its batch norms
    take the statistics of 16 random pictures (a plain color each, smooth shading and sharp patches
    of several sizes, in the range of normalized images), and fc is centerd and scaled on the
    features of these.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SSCD(large)
        pictures = torch.randn(16, 3, 1, 1).expand(16, 3, 96, 96).clone()
        for side, mode in ((2, "bicubic"), (4, "nearest"), (8, "bicubic"), (16, "nearest")):
            contrast = torch.rand(16, 1, 1, 1)
            pictures += contrast * F.interpolate(
                torch.randn(16, 3, side, side), size=(96, 96), mode=mode
            )
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # take these statistics as they are
    model.train()
    model(pictures)
    model.eval()
    fc = model.backbone.fc
    model.backbone.fc = nn.Identity()
    features = model.backbone(pictures)
    model.backbone.fc = fc
    fc.weight /= features.std(dim=0).clamp(min=1e-3)
    fc.bias.copy_(-fc.weight @ features.mean(dim=0))
    for norm in norms:
        norm.momentum = 0.1
    return model


def save_scripted(model: nn.Module, path) -> None:
    """Writes the model as a TorchScript file like the released `*.torchscript.pt`; scripted, as a
    trace would fix the image's size.
    """
    torch.jit.script(model).save(str(path))
