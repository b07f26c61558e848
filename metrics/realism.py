"""Realism of an image of the embedded world: how near it is to pictures that the world's script
drew.

Minus the distance to the third nearest of 1,000 real pictures, in EfficientNet-lite0's features on
the principal axes of those pictures (experiments/make_realism.py). A ratio to their own
radii (Kynkäänniemi et al., NeurIPS 2019, section 5) was tried: its pruning drops the rarer kinds of
pictures, and it took flat or noisy images for real ones.
"""

from __future__ import annotations

import functools

from memorization_suite.metrics.base import Job, Metric, Quantity, register
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.scores import FeatureScore, Score
from memorization_suite.runs.lazy import Lazy, torch
from memorization_suite.tiny import REALISM

safetensors = Lazy("safetensors.torch")

NEIGHBOR = 3
VARIANT = "efficientnet_lite0_pca48_k3"


@functools.cache
def real_pictures() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean (1280,), axes (1280, d) and projected features (r, d) of the real pictures."""
    stored = safetensors.load_file(REALISM)
    return stored["mean"].float(), stored["axes"].float(), stored["real"].float()


def realism(features: torch.Tensor) -> torch.Tensor:
    """(n, 1280) EfficientNet features of unit length -> (n,), at most 0. Higher is more like the
    world's pictures.
    """
    mean, axes, real = real_pictures()
    distances = torch.cdist((features - mean) @ axes, real)
    return -distances.kthvalue(NEIGHBOR, dim=1).values


@register(
    "quality",
    Quantity(
        "realism",
        better="higher",
        role="quality",
        what="embedded models: minus the distance to the third nearest real picture of their world",
        variant=VARIANT,
    ),
)
class RealismMetric(Metric):
    """Quality of an embedded model's images, by what is known of its world."""

    def scores(self, job: Job) -> list[Score]:
        if not job.run.embedded:
            return []
        features = job.network(EfficientNet)
        return [FeatureScore("realism", features, lambda rows, group: realism(rows), VARIANT)]
