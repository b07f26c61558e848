"""A simple copy score without a network: correlation of pixels after removing color casts and small
shifts.

It is not SSCD. Its threshold was chosen on the embedded model's 32-pixel world: changed copies
(JPEG, light blur, tint, noise, shifts by a pixel) score above it and other pictures below;
tests/test_metrics.py holds it to that. Shifts by two pixels or more of the thumbnail are missed.
"""

from __future__ import annotations

from memorization_suite.metrics.base import Job, Metric, Quantity, register
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.images import to_tensor
from memorization_suite.metrics.pictures import Picture, read_mask
from memorization_suite.metrics.runs import Group
from memorization_suite.metrics.scores import NearestReference, Score, Values, by_sample
from memorization_suite.runs.lazy import F, torch

SIDE = 32  # images are compared at this size: finer detail is the decoder's, not the memory's
SHIFT = 1  # largest shift in pixels of that size
THRESHOLD = 0.75  # a copy scores at least so much


def copy_scores(
    images: torch.Tensor, references: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Similarity of every image to every reference: largest cosine over small shifts of the pixels
    minus channel means.

    images: (n, 3, h, w), references: (r, 3, h, w), both in [0, 1]. mask: (h, w) bool, what is
    compared (default: all). Returns (n, r) float32 in [-1, 1]; 1 for the same picture, also under
    another brightness, contrast or color cast; 0 for one of a single color.
    """
    small = thumbnails(images)
    if mask is None:
        mask = torch.ones(images.shape[-2:])
    weight = thumbnails(mask[None, None].to(small))[0, 0]
    target = standardized(thumbnails(references), weight)
    padded = F.pad(small, (SHIFT, SHIFT, SHIFT, SHIFT), mode="replicate")
    best = small.new_full((len(images), len(references)), -1.0)
    for top in range(2 * SHIFT + 1):
        for left in range(2 * SHIFT + 1):
            moved = padded[..., top : top + SIDE, left : left + SIDE]
            cosines = standardized(moved, weight) @ target.T
            best = torch.maximum(best, cosines)
    return best


def thumbnails(images: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) -> (n, c, SIDE, SIDE), area-averaged."""
    return F.interpolate(images.float(), (SIDE, SIDE), mode="area")


def standardized(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(n, 3 * SIDE^2): weighted channel means removed, scaled to unit length."""
    total = (x * weight).sum((2, 3), keepdim=True)
    mean = total / weight.sum()
    centered = (x - mean) * weight.sqrt()
    return F.normalize(centered.flatten(1), dim=1)


def thumbnail(picture: Picture) -> torch.Tensor:
    """(3, SIDE, SIDE) in [0, 1], area-averaged; kept with the picture."""
    name = f"thumbnail_{SIDE}"
    if name not in picture.features:
        picture.features[name] = thumbnails(to_tensor([picture.image]))[0]
    return picture.features[name]


class CopyScore(Score):
    """Largest correlation with a reference of the prompt.

    masked: of a caption with a mask only the memorized region is compared.
    """

    quantity = "copy_score"

    def __init__(self, masked: bool = False):
        self.masked = masked
        self.variant = f"ncc{SIDE}_shift{SHIFT}" + ("_masks" if masked else "")

    def values(self, group: Group) -> Values:
        if not group.references:
            return {}
        images = torch.stack([thumbnail(picture) for picture in group.pictures])
        references = torch.stack([thumbnail(picture) for picture in group.references])
        mask = None
        if self.masked and group.mask:
            mask = read_mask(group.mask) > 0.5
        return by_sample(group, copy_scores(images, references, mask).amax(1))


@register(
    "copy",
    Quantity(
        "copy_score",
        better="lower",
        role="copy",
        thresholds=(THRESHOLD,),
        what="largest correlation of 32-pixel thumbnails over shifts of a pixel; no network",
        variant=CopyScore().variant,
    ),
    Quantity(
        "feature_similarity",
        better="lower",
        what="largest cosine of ImageNet features to a training image",
        variant=EfficientNet.name,
    ),
    against="references",
)
class CopyMetric(Metric):
    """Two copy similarities that need no download: of pixels, and of a general network's features.

    They are the embedded model's counterparts of SSCD, and are never called so.
    """

    def scores(self, job: Job) -> list[Score]:
        features = NearestReference("feature_similarity", job.network(EfficientNet))
        return [CopyScore(masked=job.masks is not None), features]
