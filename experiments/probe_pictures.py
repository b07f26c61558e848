"""Pictures of the embedded world that are in no training set, and how a small model paints."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image

from memorization_suite.metrics.images import to_tensor
from memorization_suite.tiny.drawing import SIZE
from memorization_suite.tiny.world import PRODUCTS, WORDS, Concept, World, rng_of

# Layouts of ordinary scenes, and what else there is.
ALONE = ("one", "small", "big", "two", "three", "left", "right", "top", "bottom")
PAIRS = ("pair", "above", "below")
OTHERS = ("verbatim", "verbatim", "template", "local")
LAYOUTS = (*ALONE, *PAIRS, *PAIRS, *OTHERS)
# Places beside a band.
BOXES = [
    (0, 0, SIZE, 40),
    (0, 24, SIZE, SIZE),
    (0, 0, 40, SIZE),
    (24, 0, SIZE, SIZE),
]
# Of latents painted anew: the most noise, in their standard deviations, which hides most of a
# picture, and the most by which they are too large, as guidance makes them.
MOST_NOISE = 1.794
MOST_GAIN = 0.6
SHIFT = 4  # the most pixels that a picture is moved


def compose(world: World, word: str, layout: str, rng) -> tuple[Image.Image, list[str]]:
    """A picture and the subjects that it shows.

    layout: one of LAYOUTS. It has its own random seed: none is a picture of the training set.
    """
    seed = int(rng.integers(2**31))
    if layout in PAIRS:
        other = str(rng.choice([name for name in WORDS if name != word]))
        return world.scene(rng, layout, word, other), [word, other]
    if layout == "verbatim":
        picture = world.verbatim(Concept("", "VM", "", word, seed))
    elif layout == "template":
        product = list(PRODUCTS)[rng.integers(len(PRODUCTS))]
        picture = world.template(Concept("", "TM", product, word, seed), rng)
    elif layout == "local":
        box = BOXES[rng.integers(len(BOXES))]
        picture = world.finished(world.scene_canvas(rng, "big", word, word, box=box))
    else:
        picture = world.scene(rng, layout, word, word)
    return picture, [word]


def render(world: World, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` pictures of every subject in all layouts.

    Returns (n, 3, pixels, pixels) uint8, and (n, subjects), 1 where a subject is there.
    """
    pictures = []
    shown = torch.zeros(count * len(WORDS), len(WORDS))
    for label, word in enumerate(WORDS):
        for i in range(count):
            picture, subjects = compose(
                world, word, LAYOUTS[i % len(LAYOUTS)], rng_of(seed, label, i)
            )
            shown[len(pictures), [WORDS.index(subject) for subject in subjects]] = 1
            pictures.append(picture)
    return (255 * to_tensor(pictures)).round().byte(), shown


@torch.no_grad()
def repainted(vae: AutoencoderKL, images: torch.Tensor, seed: int) -> torch.Tensor:
    """What the autoencoder makes of images whose latents are too large and have noise: a UNet's
    latents are a little wrong, too. (n, 3, pixels, pixels) uint8, as given.
    """
    generator = torch.Generator().manual_seed(seed)
    painted = []
    for batch in images.split(64):
        latents = vae.encode(batch / 127.5 - 1).latent_dist.mean
        gain = 1 + MOST_GAIN * torch.rand((len(batch), 1, 1, 1), generator=generator)
        level = MOST_NOISE * torch.rand((len(batch), 1, 1, 1), generator=generator)
        noise = torch.randn(latents.shape, generator=generator) / vae.config.scaling_factor
        middle = latents.mean((2, 3), keepdim=True)
        made = vae.decode(middle + gain * (latents - middle) + level * noise).sample
        painted.append((127.5 * (made.clamp(-1, 1) + 1)).round().byte())
    return torch.cat(painted)


def worn(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures as a small model may paint them: other colors and contrast, blurred, patchy, moved.
    Each of them sometimes, differently for each picture. (n, 3, h, w) in [0, 1], as given.
    """
    wear = Wear(len(images), generator)
    images = recolored(images, wear)
    images = blurred(images, wear)
    size = images.shape[-1]
    images = patchy(images, wear, size // 4)
    images = patchy(images, wear, size // 2)
    return moved(images, generator).clamp(0, 1)


def recolored(images: torch.Tensor, wear: Wear) -> torch.Tensor:
    """Stronger or fainter colors, more or less contrast, lighter or darker, with a cast."""
    gray = images.mean(1, keepdim=True)
    saturation = wear.factor(0.6, 0.5, 1.8)
    images = gray + (images - gray) * saturation
    middle = images.mean((1, 2, 3), keepdim=True)
    contrast = wear.factor(0.5, 0.7, 1.6)
    images = middle + (images - middle) * contrast
    lighter = wear.sometimes(0.5)
    images = images + lighter * wear.between(-0.15, 0.15)
    casts = wear.noise(3, 1)
    casting = wear.sometimes(0.5)
    return images * (1 + 0.15 * casting * casts)


def blurred(images: torch.Tensor, wear: Wear) -> torch.Tensor:
    """Nearer to the means of 3 x 3 pixels."""
    framed = F.pad(images, (1, 1, 1, 1), mode="replicate")
    soft = F.avg_pool2d(framed, 3, stride=1)
    blurring = wear.sometimes(0.4)
    share = wear.between(0, 1)
    return images + blurring * share * (soft - images)


def patchy(images: torch.Tensor, wear: Wear, side: int) -> torch.Tensor:
    """With smooth noise of so many patches across and down, as of wrong latents."""
    patches = wear.noise(3, side)
    grown = F.interpolate(patches, images.shape[-2:], mode="bilinear")
    soiled = wear.sometimes(0.4)
    strength = wear.between(0, 0.12)
    return images + soiled * strength * grown


@dataclass
class Wear:
    """Random numbers of a batch's pictures, each (n, 1, 1, 1) but for noise."""

    count: int
    generator: torch.Generator

    def between(self, low: float, high: float) -> torch.Tensor:
        shares = torch.rand((self.count, 1, 1, 1), generator=self.generator)
        return low + (high - low) * shares

    def sometimes(self, share: float) -> torch.Tensor:
        """1 for such a share of the pictures, 0 for the others."""
        drawn = torch.rand((self.count, 1, 1, 1), generator=self.generator)
        return (drawn < share).float()

    def factor(self, share: float, low: float, high: float) -> torch.Tensor:
        """Sometimes a number between two, else 1."""
        chosen = self.sometimes(share)
        return 1 + chosen * (self.between(low, high) - 1)

    def noise(self, channels: int, side: int) -> torch.Tensor:
        """(n, channels, side, side)."""
        return torch.randn((self.count, channels, side, side), generator=self.generator)


def moved(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A batch moved together by a few pixels; what comes in is as the edge."""
    down, across = torch.randint(0, 2 * SHIFT + 1, (2,), generator=generator).tolist()
    high, wide = images.shape[-2:]
    large = F.pad(images, (SHIFT,) * 4, mode="replicate")
    return large[:, :, down : down + high, across : across + wide]
