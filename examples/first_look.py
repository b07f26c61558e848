"""A first look: a caption that the embedded model memorized, without and with adjusted noise.

python examples/first_look.py                              # half a minute; writes first_look.png
python examples/first_look.py --row 45                     # another of its captions
python examples/first_look.py "a red lantern in the rain"  # one of your own

The embedded model is a miniature that memorized some of its images. It is not Stable Diffusion.
"""

import sys

from memorization_suite import build_mitigation, tiny
from memorization_suite.commands.sheet import Tile, draw
from memorization_suite.experiments.magnitudes import start_magnitudes
from memorization_suite.metrics.copy_score import THRESHOLD, copy_scores
from memorization_suite.metrics.embedded import Caption, read_captions
from memorization_suite.metrics.images import to_tensor
from memorization_suite.pipelines import loading, models
from memorization_suite.runs.cli import Parser, add_flags, command
from memorization_suite.runs.progress import next_step
from memorization_suite.runs.settings import Settings, flag, frozen_settings
from memorization_suite.sampling import Batch, image_seed, initial_noise
from memorization_suite.sampling.sample import sample, to_pictures

METHODS = {"no mitigation": "no_mitigation", "adjusted noise": "per_sample"}
ABOUT = f"embedded model tiny, not Stable Diffusion; a copy score of {THRESHOLD} or more is a copy"
TYPICAL = 33  # like 25 of the 30 captions of its kind it loses all three copies


@frozen_settings
class Flags(Settings):
    row: int | None = flag(None, f"a memorized caption, by its row (default {TYPICAL})", at_least=0)
    images: int = flag(3, "images of each method", at_least=1, at_most=8)


def first_look(caption: Caption, images: int) -> None:
    """Makes each method's images from the noise of generate_images.py; prints and draws them."""
    pipe = loading.load_pipeline("tiny")  # a MemorizationPipeline, diffusers' pipeline with more
    _, preset = models.load_preset("auto", "tiny")
    noise = initial_noise([image_seed(2, caption.row, k) for k in range(images)], (4, 16, 16))
    training = caption.references() if caption.index else None
    print(f"caption: {caption.text}")
    rows = []
    for title, name in METHODS.items():
        method = build_mitigation(name, **preset.get(name, {}))
        batch = Batch.of_captions([caption.text] * images)
        made = sample(pipe, batch, noise, method, num_inference_steps=50, guidance_scale=7.0)
        pictures = to_pictures(pipe.decode(made.final))
        tiles = [Tile(picture) for picture in pictures]
        magnitudes = start_magnitudes(pipe, batch.prompts, made.adjusted).tolist()
        text = f"{title}: magnitudes {' '.join(f'{value:.2f}' for value in magnitudes)}"
        if training is not None:
            scores = copy_scores(to_tensor(pictures), training, caption.mask()).amax(1)
            tiles = [Tile(each, *label(s)) for each, s in zip(pictures, scores.tolist())]
            tiles.insert(0, Tile(to_pictures(training)[0]))
            text += f", copies {sum(scores >= THRESHOLD)} of {images}"
        text += f", NFE {made.unet_evals.float().mean():.0f} an image"
        print(text)
        rows.append((text, tiles))
    titles = [f"image {k + 1}" for k in range(images)]
    titles = titles if training is None else ["training image", *titles]
    draw(titles, rows, heading=(caption.text, ABOUT), side=224, line=25).save("first_look.png")


def label(score: float) -> tuple[str, str]:
    """What stands under an image, and its color: that of a copy is red."""
    text = f"copy score {score:.2f}"
    return (f"{text}: a copy", "#b3261e") if score >= THRESHOLD else (text, "#5a6274")


def find(text: str, row: int | None) -> Caption:
    """A memorized caption, or a new one. Raises ValueError."""
    captions = read_captions(tiny.prompts("tiny"))
    if text and row is None:
        new = Caption(0, text, kind="", group="", index="", subjects=())
        return next((caption for caption in captions if caption.text == text), new)
    if text or (row or 0) >= len(captions):
        raise ValueError(f"give a caption, or --row 0 to {len(captions) - 1}")
    return captions[TYPICAL if row is None else row]


def main(argv: list[str] | None = None) -> int:
    parser = Parser("first_look.py", "One caption, without and with adjusted initial noise.")
    parser.add_argument("caption", nargs="?", default="", help="instead of a row's")
    add_flags(parser, Flags)
    typed = parser.typed(argv)
    text = typed.pop("caption")

    def work() -> None:
        flags = Flags(**typed)
        first_look(find(text, flags.row), flags.images)
        print(f"first_look.png shows them ({ABOUT})")
        next_step("make demo")

    return command(parser.prog, work)


if __name__ == "__main__":
    sys.exit(main())
