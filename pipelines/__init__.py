"""The StableDiffusionPipeline subclass, and loading models by name or folder."""

from __future__ import annotations

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
    """Imports diffusers when it is first needed: --help and argument errors need not wait for
    it.
    """
    if name in __all__:
        from memorization_suite.pipelines import memorization_pipeline

        return getattr(memorization_pipeline, name)
    raise AttributeError(f"module 'pipelines' has no attribute {name!r}")


one_name(__name__)
