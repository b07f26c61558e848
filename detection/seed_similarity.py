"""How alike a prompt's images are: memorized prompts give one image from many seeds.

Carlini et al. 2023 and a thumbnail correlation.
"""

from __future__ import annotations

from memorization_suite.detection.base import Detector, Look, register
from memorization_suite.runs.lazy import F, torch
from memorization_suite.runs.settings import flag


def tiles(images: torch.Tensor, parts: int) -> torch.Tensor:
    """Equal, non-overlapping tiles, parts by parts, (n, parts^2, values).

    What does not fit at the right and the bottom is left out.
    """
    height = images.shape[2] // parts
    width = images.shape[3] // parts
    cut = images[..., : height * parts, : width * parts]
    return F.unfold(cut, (height, width), stride=(height, width)).mT


def tile_distance(images: torch.Tensor, parts: int) -> torch.Tensor:
    """Largest L2 distance of two images' tiles, as the root mean square over a tile's values.

    images in [0, 1] -> (n, n).
    """
    each = tiles(images.float(), parts).transpose(0, 1)
    return (torch.cdist(each, each) / each.shape[2] ** 0.5).amax(0)


def thumbnail_similarity(images: torch.Tensor, side: int = 32) -> torch.Tensor:
    """Pearson correlation of thumbnails, each channel less its mean. (n, n)."""
    small = F.interpolate(images.float(), (side, side), mode="area")
    centered = small - small.mean((2, 3), keepdim=True)
    flat = F.normalize(centered.flatten(1), dim=1)
    return flat @ flat.T


class AmongSeeds(Detector):
    """Each image's mean over the prompt's others.

    A single image has nothing to be compared with and scores nan.
    """

    needs_images = True
    least_images = 2

    def similarity(self, images: torch.Tensor) -> torch.Tensor:
        """(n, n), larger is more alike."""
        raise NotImplementedError

    def finish(self, look: Look) -> torch.Tensor:
        images = look.images
        scores = torch.full((len(images),), torch.nan)
        for group in look.batch.groups():
            if len(group) > 1:
                similarity = self.similarity(images[group.to(images.device)])
                others = similarity.cpu().fill_diagonal_(0)
                scores[group] = others.sum(1) / (len(group) - 1)
        return scores


@register(
    "tile_distance",
    paper="Carlini et al., USENIX Security 2023",
    cost="2N",
    compared="the distance is equal to a transcription",
)
class TileDistance(AmongSeeds):
    """Minus the largest distance of corresponding tiles, mean over the prompt's other images.

    Source: tiles of 128 pixels of 512, so 4 by 4.
    """

    tiles: int = flag(4, "tiles along a side", at_least=1)

    def similarity(self, images: torch.Tensor) -> torch.Tensor:
        return -tile_distance(images, self.tiles)


@register("seed_similarity", paper="ours: correlation of thumbnails", cost="2N")
class SeedSimilarity(AmongSeeds):
    """Correlation of the image's 32-pixel thumbnail with those of the prompt's other images, mean
    over them.
    """

    def similarity(self, images: torch.Tensor) -> torch.Tensor:
        return thumbnail_similarity(images)
