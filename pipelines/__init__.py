"""The StableDiffusionPipeline subclass, and loading models by name or folder."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from memorization_suite import one_name

if TYPE_CHECKING:
    from memorization_suite.pipelines.memorization_pipeline import (
        MemorizationPipeline,
        Sample,
        denoise,
    )

__all__ = ["MemorizationPipeline", "Sample", "denoise"]


def __getattr__(name: str):
    """Imports diffusers when it is first needed: --help and argument errors need not wait."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.memorization_pipeline"), name)


one_name(__name__)
