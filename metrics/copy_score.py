"""A simple copy score without a network: correlation of pixels after removing color casts and small
shifts.

It is not SSCD. Its threshold was chosen on the embedded model's 32-pixel world: changed copies
(JPEG, light blur, tint, noise, shifts by a pixel) score above it and other pictures below;
tests/test_metrics.py holds it to that. Shifts by two pixels or more of the thumbnail are missed.
"""

from __future__ import annotations

from memorization_suite.lazy import F, torch

SIDE = 32  # images are compared at this size: finer detail is the decoder's, not the memory's
SHIFT = 1  # largest shift in pixels of that size
THRESHOLD = 0.75  # a copy scores above it


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
