"""Model families, a file or folder each, and loading models by name or folder."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from memorization_suite import one_name

if TYPE_CHECKING:
    from memorization_suite.pipelines.stable_diffusion.pipeline import MemorizationPipeline

__all__ = ["MemorizationPipeline"]


def __getattr__(name: str):
    """Imports diffusers when it is first needed: --help and argument errors need not wait."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.stable_diffusion.pipeline")
    return getattr(module, name)


one_name(__name__)
