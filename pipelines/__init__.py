"""The StableDiffusionPipeline subclass, and loading models by name or folder."""
from pipelines.memorization_pipeline import MemorizationPipeline, Sample, denoise

__all__ = ["MemorizationPipeline", "Sample", "denoise"]
