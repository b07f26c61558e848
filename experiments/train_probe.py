"""Trains the subject classifier of the embedded world: logistic regression on EfficientNet features
of rendered artwork. A picture of two subjects counts half for each.

python -m experiments.train_probe       # writes tiny/probe.safetensors

It learns pictures as a small model paints them: worn by filters, or painted anew by the models'
autoencoder from latents with noise. No UNet takes part. Prints how often it sees the subjects of
pictures that it has not seen: as they were drawn, and painted anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageEnhance, ImageFilter
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torchvision.transforms.functional import to_pil_image

from memorization_suite import tiny
from memorization_suite.experiments.common import parser, positive
from memorization_suite.metrics.image_features import image_features
from memorization_suite.metrics.images import to_tensor
from memorization_suite.metrics.subject import PROBE, all_shown, likeliest_of_parts
from memorization_suite.tiny.drawing import SIZE
from memorization_suite.tiny.world import PRODUCTS, WORDS, Concept, World, load_world, rng_of

SEED = 17
MOST_NOISE = 0.6
BICUBIC = Image.Resampling.BICUBIC
# Layouts of ordinary scenes, and what else there is.
ALIKE = ("one", "small", "big", "two")
PAIRS = ("pair", "above", "below")
OTHERS = ("verbatim", "verbatim", "verbatim", "template", "local")
LAYOUTS = (*ALIKE, *OTHERS, *PAIRS)
# Places beside a band.
BOXES = [
    (0, 0, SIZE, 40),
    (0, 24, SIZE, SIZE),
    (0, 0, 40, SIZE),
    (24, 0, SIZE, SIZE),
]


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


def worn(picture: Image.Image, rng) -> Image.Image:
    """A picture as a small model may paint it, by filters that know no model: blurred, patchy,
    noisy, with strong or faint colors. Each of them sometimes.
    """
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    if rng.random() < 0.4:
        picture = picture.filter(ImageFilter.MedianFilter(int(rng.choice([3, 5]))))
    for enhance in (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness):
        if rng.random() < 0.4:
            picture = enhance(picture).enhance(rng.uniform(0.7, 1.6))
    if rng.random() < 0.4:
        # Patches of a few pixels, as of wrong latents.
        side = picture.width // int(rng.choice([2, 4]))
        grain = rng.normal(0, rng.uniform(5, 35), (side, side, 3)) + 128
        patches = Image.fromarray(grain.clip(0, 255).astype(np.uint8)).resize(picture.size, BICUBIC)
        changed = np.asarray(picture, float) + np.asarray(patches, float) - 128
        picture = Image.fromarray(changed.clip(0, 255).astype(np.uint8))
    return picture


@torch.no_grad()
def repainted(vae: AutoencoderKL, images: torch.Tensor, seed: int) -> torch.Tensor:
    """What the autoencoder makes of images when their latents have noise of up to MOST_NOISE of
    their standard deviation: a UNet's latents are a little wrong, too. (n, 3, pixels, pixels).
    """
    generator = torch.Generator().manual_seed(seed)
    painted = []
    for batch in images.split(64):
        latents = vae.encode(2 * batch - 1).latent_dist.mean
        level = MOST_NOISE * torch.rand((len(batch), 1, 1, 1), generator=generator)
        noise = torch.randn(latents.shape, generator=generator) / vae.config.scaling_factor
        painted.append(vae.decode(latents + level * noise).sample)
    return (torch.cat(painted).clamp(-1, 1) + 1) / 2


def render(world: World, count: int, seed: int) -> tuple[torch.Tensor, list[list[str]]]:
    """`count` pictures of every subject in all layouts, (n, 3, pixels, pixels), and their
    subjects.
    """
    pictures = []
    shown = []
    for label, word in enumerate(WORDS):
        for i in range(count):
            rng = rng_of(seed, label, i)
            picture, subjects = compose(world, word, LAYOUTS[i % len(LAYOUTS)], rng)
            pictures.append(picture)
            shown.append(subjects)
    return to_tensor(pictures), shown


def as_painted(vae: AutoencoderKL, images: torch.Tensor, seed: int) -> torch.Tensor:
    """Half of the images worn, half of them repainted."""
    rng = rng_of(seed)
    anew = torch.from_numpy(rng.random(len(images)) < 0.5)
    changed = images.clone()
    changed[anew] = repainted(vae, images[anew], seed)
    changed[~anew] = to_tensor([worn(to_pil_image(image), rng) for image in images[~anew]])
    return changed


def fit(features: np.ndarray, shown: list[list[str]]) -> LogisticRegression:
    """The classifier. features: (n, 1280)."""
    rows = [row for row, subjects in enumerate(shown) for _ in subjects]
    labels = [WORDS.index(subject) for subjects in shown for subject in subjects]
    weights = [1 / len(subjects) for subjects in shown for _ in subjects]
    model = LogisticRegression(C=30.0, max_iter=300)
    return model.fit(features[rows], labels, sample_weight=weights)


def accuracy(images: torch.Tensor, shown: list[list[str]], subjects: int) -> float:
    """Share of the pictures with so many subjects whose subjects the written classifier sees."""
    chosen = [row for row, names in enumerate(shown) if len(names) == subjects]
    likeliest = likeliest_of_parts(images[chosen])
    right = [all_shown(likeliest[[i]], shown[row]).item() for i, row in enumerate(chosen)]
    return float(np.mean(right))


def mistaken(images: torch.Tensor, shown: list[list[str]]) -> float:
    """Share of pictures in which the written classifier sees one subject that is not there."""
    likeliest = likeliest_of_parts(images)
    absent = [
        next(word for word in WORDS[row % len(WORDS) :] + WORDS if word not in names)
        for row, names in enumerate(shown)
    ]
    return float(np.mean([all_shown(likeliest[[i]], [word]) for i, word in enumerate(absent)]))


def main() -> None:
    """The command line."""
    flags = parser(__doc__)
    flags.add_argument(
        "--work", type=Path, default=Path("build"), help="folder of the downloaded artwork"
    )
    flags.add_argument("--count", type=positive, default=240, help="pictures per subject")
    args = flags.parse_args()
    world = load_world(args.work, tiny.pixels(), varied=True)
    vae = AutoencoderKL.from_pretrained(tiny.MODELS["tiny"], subfolder="vae")
    images, shown = render(world, args.count, SEED)
    model = fit(image_features(as_painted(vae, images, SEED)).numpy(), shown)
    tensors = {
        "weight": torch.tensor(model.coef_).half().contiguous(),
        "bias": torch.tensor(model.intercept_).float().contiguous(),
    }
    save_file(tensors, PROBE, metadata={"subjects": json.dumps(WORDS)})
    unseen, truth = render(world, 2 * len(LAYOUTS), SEED + 1)
    report("as drawn", unseen, truth)
    report("painted anew", repainted(vae, unseen, SEED + 1), truth)


def report(name: str, images: torch.Tensor, shown: list[list[str]]) -> None:
    """Prints what the written classifier sees of unseen pictures."""
    for subjects in (1, 2):
        share = accuracy(images, shown, subjects)
        print(f"unseen pictures of {subjects}, {name}: {share:.3f} have all their subjects seen")
    print(f"a subject that is not there, {name}: seen in {mistaken(images, shown):.3f}")


if __name__ == "__main__":
    main()
