"""Writes the real pictures' features for metrics/realism.py: scenes, posters and products that are
in no training set.

python -m experiments.make_realism        # writes tiny/realism.safetensors and prints how it tells
real pictures from broken ones
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import ImageFilter
from safetensors.torch import save_file

from memorization_suite import tiny
from memorization_suite.experiments.common import parser
from memorization_suite.experiments.probe_pictures import LAYOUTS, compose
from memorization_suite.metrics.image_features import image_features
from memorization_suite.metrics.images import to_tensor
from memorization_suite.metrics.realism import realism
from memorization_suite.tiny.world import WORDS, World, load_world, rng_of

SEED = 23
REAL_PICTURES = 1000
AXES = 48


def pictures(world: World, count: int, seed: int) -> torch.Tensor:
    """Half of them softened, as a small decoder does. (n, 3, pixels, pixels)."""
    made = []
    for i in range(count):
        rng = rng_of(seed, i)
        word = WORDS[i % len(WORDS)]
        picture, _ = compose(world, word, LAYOUTS[rng.integers(len(LAYOUTS))], rng)
        if i % 2:
            picture = picture.filter(ImageFilter.GaussianBlur(0.5))
        made.append(picture)
    return to_tensor(made)


def broken(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same pictures, made unreal in ways a failing sampler does."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(images.shape, generator=generator)
    small = torch.nn.functional.interpolate(images, (8, 8), mode="area")
    coarse = torch.nn.functional.interpolate(small, images.shape[-2:], mode="bicubic")
    return {
        "noise of 0.2": (images + 0.2 * noise).clamp(0, 1),
        "scrambled": scrambled(images, generator),
        "8 pixels": coarse.clamp(0, 1),
        "pure noise": (0.5 + 0.25 * noise).clamp(0, 1),
        "one color": images.mean((2, 3), keepdim=True).expand_as(images),
    }


def scrambled(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The 16 tiles of every picture in another order, the same for all. images: (n, 3, pixels,
    pixels).
    """
    side = images.shape[-1] // 4
    tiles = images.unfold(2, side, side).unfold(3, side, side).flatten(2, 3)
    tiles = tiles[:, :, torch.randperm(16, generator=generator)]
    rows = tiles.reshape(len(images), 3, 4, 4, side, side).permute(0, 1, 2, 4, 3, 5)
    return rows.reshape(images.shape)


def main() -> None:
    """The command line."""
    flags = parser(__doc__)
    flags.add_argument(
        "--work", type=Path, default=Path("build"), help="folder of the downloaded artwork"
    )
    args = flags.parse_args()
    world = load_world(args.work, tiny.pixels())
    features = image_features(pictures(world, REAL_PICTURES, SEED))
    mean = features.mean(0)
    axes = torch.linalg.svd(features - mean, full_matrices=False).Vh[:AXES].T
    tensors = {"mean": mean, "axes": axes, "real": (features - mean) @ axes}
    save_file({name: value.half().contiguous() for name, value in tensors.items()}, tiny.REALISM)
    unseen = pictures(world, 200, SEED + 1)
    for name, images in {"real, unseen": unseen, **broken(unseen)}.items():
        scores = realism(image_features(images))
        print(
            f"{name:14s} median {scores.median():.3f}  10 % {scores.quantile(0.1):.3f}  90 % "
            f"{scores.quantile(0.9):.3f}"
        )


if __name__ == "__main__":
    main()
