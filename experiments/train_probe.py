"""Trains the subject classifier of the embedded world: logistic regression on EfficientNet features
of rendered artwork.

python -m experiments.train_probe        # writes tiny/probe.safetensors and prints its accuracy on
pictures it has not seen
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from memorization_suite import tiny
from memorization_suite.experiments.common import parser, positive
from memorization_suite.metrics.image_features import image_features
from memorization_suite.metrics.images import to_tensor
from memorization_suite.metrics.subject import PROBE
from memorization_suite.tiny.drawing import SIZE
from memorization_suite.tiny.world import PRODUCTS, WORDS, Concept, World, load_world, rng_of

SEED = 17
SCENE_LAYOUTS = ("one", "small", "big", "two")
# Places beside a band.
BOXES = [
    (0, 0, SIZE, 40),
    (0, 24, SIZE, SIZE),
    (0, 0, 40, SIZE),
    (24, 0, SIZE, SIZE),
]


def compose(world: World, word: str, kind: int, rng) -> Image.Image:
    """A picture of the subject in one of the world's layouts.

    kind: 0 to 8. It has its own random seed: none is a picture of the training set.
    """
    seed = int(rng.integers(2**31))
    if kind < 4:
        return world.scene(rng, SCENE_LAYOUTS[kind], word, word)
    if kind < 7:
        return world.verbatim(Concept("", "VM", "", word, seed))
    if kind == 7:
        product = list(PRODUCTS)[rng.integers(len(PRODUCTS))]
        return world.template(Concept("", "TM", product, word, seed), rng)
    box = BOXES[rng.integers(len(BOXES))]
    return world.finished(world.scene_canvas(rng, "big", word, word, box=box))


def soften(picture: Image.Image, rng) -> Image.Image:
    """Sometimes blurred, as a small decoder would."""
    if rng.random() < 0.5:
        return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    return picture


def render(world: World, count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """`count` pictures of every subject in all layouts. (n, 3, pixels, pixels) and labels (n,)."""
    pictures = []
    labels = []
    for label, word in enumerate(WORDS):
        for i in range(count):
            rng = rng_of(seed, label, i)
            pictures.append(soften(compose(world, word, i % 9, rng), rng))
            labels.append(label)
    return to_tensor(pictures), np.array(labels)


def main() -> None:
    """The command line."""
    flags = parser(__doc__)
    flags.add_argument(
        "--work", type=Path, default=Path("build"), help="folder of the downloaded artwork"
    )
    flags.add_argument("--count", type=positive, default=180, help="pictures per subject")
    flags.add_argument("--out", type=Path, default=PROBE)
    args = flags.parse_args()
    world = load_world(args.work, tiny.settings()["world"]["pixels"], varied=True)
    images, labels = render(world, args.count, SEED)
    model = LogisticRegression(C=30.0, max_iter=300).fit(image_features(images).numpy(), labels)
    unseen, truth = render(world, 18, SEED + 1)
    accuracy = model.score(image_features(unseen).numpy(), truth)
    print(f"accuracy on {len(truth)} unseen pictures: {accuracy:.3f}")
    tensors = {
        "weight": torch.tensor(model.coef_).half().contiguous(),
        "bias": torch.tensor(model.intercept_).float().contiguous(),
    }
    save_file(tensors, args.out, metadata={"subjects": json.dumps(WORDS)})


if __name__ == "__main__":
    main()
