"""Our scores against the plain way, one pair at a time, in one run with the same random weights of
the real architectures.

python -m experiments.metrics                 # ratios; the seconds are this machine's
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import lpips
import numpy as np
import open_clip
import torch
from PIL import Image
from torchvision.models import alexnet

from memorization_suite.commands.score_job import results_of
from memorization_suite.experiments.common import best_of, parser, positive
from memorization_suite.metrics.clip_score import ClipGenerated, ClipReference, ClipScore
from memorization_suite.metrics.lpips_diversity import LpipsDiversity
from memorization_suite.metrics.references import References
from memorization_suite.metrics.runs import Run
from memorization_suite.metrics.scores import NearestReference
from memorization_suite.metrics.sscd import SSCD
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.run_folder import Key
from tests.reference import scores as plain
from tests.reference.sscd_model import random_sscd, save_scripted

PROMPTS = 4  # that share their references
SAMPLES = 10
REFERENCES = 3


def write_images(folder: Path, count: int, *, side: int, seed: int) -> list[Path]:
    """PNG files of colored patches."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    files = []
    for k in range(count):
        patches = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        files.append(folder / f"{k:02d}.png")
        patches.resize((side, side), Image.Resampling.BICUBIC).save(files[-1])
    return files


# --- SSCD and CLIP


def open_images(run: Run, prompt: Prompt) -> list[Image.Image]:
    """The images of a prompt."""
    return [Image.open(path) for key, path in run.files.items() if key.prompt == prompt.row]


def pair_by_pair(run: Run, references: list[Path], sscd: SSCD, clip: ClipScore) -> None:
    """Each image against each reference of its prompt, one at a time; the caption and the
    reference's CLIP score anew for each prompt.
    """
    parts = (clip.model, clip.transform, clip.tokenizer)
    for prompt in run.prompts:
        images = open_images(run, prompt)
        pictures = [Image.open(path) for path in references]
        similarities = []
        for image, other in itertools.product(images, pictures):
            similarities.append(plain.sscd_score(sscd.model, image, [other], "official320"))
        for image in images:
            plain.clip_score(*parts, image, prompt.caption)
        nearest = int(np.argmax(similarities[: len(pictures)]))
        plain.clip_score(*parts, pictures[nearest], prompt.caption)


def image_by_image(run: Run, references: list[Path], sscd: SSCD, clip: ClipScore) -> None:
    """A fairer opponent: descriptors of a prompt's references once per prompt, then one image at a
    time.
    """
    parts = (clip.model, clip.transform, clip.tokenizer)

    def descriptor(image: Image.Image) -> torch.Tensor:
        return plain.sscd_descriptor(sscd.model, image, "official320")

    for prompt in run.prompts:
        pictures = [Image.open(path) for path in references]
        descriptors = [descriptor(picture) for picture in pictures]
        similarities = []
        for image in open_images(run, prompt):
            of_image = descriptor(image)
            similarities += [plain.cosine(of_image, other) for other in descriptors]
            plain.clip_score(*parts, image, prompt.caption)
        nearest = int(np.argmax(similarities[: len(pictures)]))
        plain.clip_score(*parts, pictures[nearest], prompt.caption)


def batched(run: Run, references: Path, sscd: SSCD, clip: ClipScore) -> None:
    """The suite's way."""
    clip.texts.clear()
    nearest = NearestReference("sscd", sscd)
    scores = [nearest, ClipGenerated(clip), ClipReference(clip, nearest)]
    for groups in run.groups(References(references)):
        results_of(run, scores, groups)


def compare_sscd_clip(folder: Path, args: argparse.Namespace, sscd: SSCD, clip: ClipScore) -> None:
    """Four prompts with shared references, and one alone."""
    gt_folder = folder / "gt"
    images = write_images(folder / "run", PROMPTS * SAMPLES, side=args.side, seed=1)
    references = write_images(gt_folder / "0", REFERENCES, side=args.side, seed=2)
    for count in (PROMPTS, 1):
        prompts = [Prompt(row, f"a picture of number {row}", "0") for row in range(count)]
        keys = itertools.starmap(Key, itertools.product(range(count), range(SAMPLES)))
        files = dict(zip(keys, images))
        run = Run(folder / "run", Path(), prompts, files, "")
        ours = best_of(args.repeats, lambda run=run: batched(run, gt_folder, sscd, clip))
        for opponent in (pair_by_pair, image_by_image):
            theirs = best_of(
                args.repeats,
                lambda run=run, opponent=opponent: opponent(run, references, sscd, clip),
            )
            print(
                f"SSCD + CLIP, {count} prompts x {SAMPLES} images, {REFERENCES} shared "
                f"references, {opponent.__name__.replace('_', ' ')}: "
                f"{theirs:.2f} s, ours {ours:.2f} s ({ours / len(files):.3f} s an image): "
                f"{theirs / ours:.1f} times faster"
            )


# --- LPIPS


def compare_lpips(folder: Path, args: argparse.Namespace, diversity: LpipsDiversity) -> None:
    """All pairs of ten images."""
    files = write_images(folder, SAMPLES, side=args.side, seed=3)
    images = [Image.open(path).convert("RGB") for path in files]
    package = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    package.load_state_dict(diversity.model.state_dict())
    ours = best_of(args.repeats, lambda: diversity.score(images))
    theirs = best_of(args.repeats, lambda: plain.lpips_diversity(package, images))
    difference = diversity.score(images).mean().item() - plain.lpips_diversity(package, images)
    print(
        f"LPIPS, {SAMPLES} images of {args.side} pixels: pair by pair {theirs:.2f} s, ours "
        f"{ours:.2f} s: {theirs / ours:.1f} times faster "
        f"(results differ by {abs(difference):.1e})"
    )


def write_checkpoints(folder: Path) -> tuple[Path, Path, Path]:
    """SSCD, CLIP and AlexNet with random weights, in the published formats."""
    torch.manual_seed(0)
    sscd_file = folder / "sscd_disc_mixup.torchscript.pt"
    clip_file = folder / "clip.pt"
    alexnet_file = folder / "alexnet.pth"
    save_scripted(random_sscd(0), sscd_file)
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), clip_file)
    torch.save(alexnet(weights=None).state_dict(), alexnet_file)
    return sscd_file, clip_file, alexnet_file


def main() -> None:
    """The command line."""
    flags = parser(__doc__)
    flags.add_argument("--side", type=positive, default=512, help="size of the images in pixels")
    flags.add_argument("--repeats", type=positive, default=2)
    args = flags.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sscd_file, clip_file, alexnet_file = write_checkpoints(folder)
        compare_lpips(folder / "lpips", args, LpipsDiversity(alexnet_file))
        compare_sscd_clip(folder, args, SSCD(sscd_file), ClipScore(clip_file))


if __name__ == "__main__":
    main()
