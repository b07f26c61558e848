"""Heavy libraries, imported when one of their names is first used.

`from memorization_suite.runs.lazy import torch` costs nothing. So --help, wrong arguments and the
readers of results start at once, although their modules name torch.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import TYPE_CHECKING


class Lazy(ModuleType):
    """Stands for a module until one of its names is used."""

    def __getattr__(self, name: str):
        return getattr(importlib.import_module(self.__name__), name)


if TYPE_CHECKING:
    import cv2
    import numpy as np
    import psutil
    import submitit
    import torch
    from PIL import Image, ImageOps
    from torch import nn
    from torch.autograd import forward_ad
    from torch.nn import attention as torch_attention
    from torch.nn import functional as F
    from torch.utils import _python_dispatch as dispatch
    from torch.utils import checkpoint as checkpointing
else:
    cv2 = Lazy("cv2")
    np = Lazy("numpy")
    psutil = Lazy("psutil")
    submitit = Lazy("submitit")
    torch = Lazy("torch")
    nn = Lazy("torch.nn")
    forward_ad = Lazy("torch.autograd.forward_ad")
    torch_attention = Lazy("torch.nn.attention")
    F = Lazy("torch.nn.functional")
    checkpointing = Lazy("torch.utils.checkpoint")
    dispatch = Lazy("torch.utils._python_dispatch")
    Image = Lazy("PIL.Image")
    ImageOps = Lazy("PIL.ImageOps")

__all__ = ["F", "Image", "ImageOps", "cv2", "forward_ad", "nn", "no_grad", "np", "torch"]
__all__ += ["checkpointing", "dispatch", "psutil", "submitit", "torch_attention"]


def no_grad(function):
    """Decorator: no gradients inside. torch's own would import torch when it is written down."""

    @functools.wraps(function)
    def without_gradients(*args, **kwargs):
        with torch.no_grad():
            return function(*args, **kwargs)

    return without_gradients
