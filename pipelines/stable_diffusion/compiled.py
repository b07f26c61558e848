"""The compiled UNet: for calls of one size, while nothing in it is patched."""

from __future__ import annotations

from memorization_suite.runs.lazy import forward_ad, torch


class Compiled:
    """A UNet that `torch.compile` made faster for calls of one size, (rows, c, h, w).

    Compilation happens in the first such call. `fits` tells which calls it is for: other sizes,
    such as a smaller last batch, derivatives, and a UNet with patched attention or hooks run as
    without it, since a compiled one would not see the patch, or be compiled again.
    """

    def __init__(self, unet: torch.nn.Module, size: tuple[int, ...]):
        self.size = size
        self.call = torch.compile(unet, dynamic=False)
        self.dtype = unet.dtype
        self.modules = list(unet.modules())
        self.attention = [module for module in self.modules if hasattr(module, "processor")]
        self.processors = [module.processor for module in self.attention]

    def fits(self, x: torch.Tensor) -> bool:
        """Whether this call is one that it is for."""
        return (
            tuple(x.shape) == self.size
            and x.dtype == self.dtype
            and not torch.is_grad_enabled()
            and forward_ad.unpack_dual(x).tangent is None
            and not self.is_patched()
        )

    def is_patched(self) -> bool:
        """Whether the UNet is not as it was when this was made."""
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in self.modules)
        return hooked or any(
            module.processor is not before
            for module, before in zip(self.attention, self.processors)
        )
