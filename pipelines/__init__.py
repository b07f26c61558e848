"""The StableDiffusionPipeline subclass, and loading models by name or folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.memorization_pipeline import MemorizationPipeline, Sample, denoise

__all__ = ["MemorizationPipeline", "Sample", "denoise"]


def __getattr__(name: str):
    """Imports diffusers when it is first needed: --help and argument errors need not wait for
    it.
    """
    if name in __all__:
        from pipelines import memorization_pipeline

        return getattr(memorization_pipeline, name)
    raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
