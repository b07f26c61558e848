"""Our scores against the plain way, one pair at a time, in one run with the same random weights of
the real architectures.

python -m experiments.metrics                 # ratios; the seconds are this machine's
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lpips
import numpy as np
import open_clip
import torch
from PIL import Image
from torchvision.models import alexnet

from memorization_suite.commands.score import results_of
from memorization_suite.experiments.common import best_of, parser
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


@dataclass(frozen=True)
class Setup:
    """Where a comparison works, and how long."""

    folder: Path
    # Of the images, in pixels.
    side: int
    repeats: int

    @property
    def run_folder(self) -> Path:
        """The images that are scored."""
        return self.folder / "no_mitigation" / "run"

    def seconds(self, work: Callable[[], object]) -> float:
        """Least wall time of several calls."""
        return best_of(self.repeats, work)

    def write_images(self, folder: Path, names: list[str], seed: int) -> None:
        """PNG files of colored patches."""
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for name in names:
            patches = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            patches.resize((self.side, self.side), Image.Resampling.BICUBIC).save(folder / name)


# --- SSCD and CLIP


def files_of(run: Run, prompt: Prompt) -> list[Path]:
    """The images of a prompt."""
    return [path for key, path in run.files.items() if key.prompt == prompt.row]


def plain_sscd_clip(run: Run, references: list[Path], sscd: SSCD, clip: ClipScore) -> None:
    """Each image against each reference of its prompt, one at a time; the caption and the
    reference's CLIP score anew for each prompt.
    """
    parts = (clip.model, clip.transform, clip.tokenizer)
    for prompt in run.prompts:
        images = [Image.open(path) for path in files_of(run, prompt)]
        pictures = [Image.open(path) for path in references]
        similarities = []
        for image in images:
            similarities.append(
                [plain.sscd_score(sscd.model, image, [other], "official320") for other in pictures]
            )
        for image in images:
            plain.clip_score(*parts, image, prompt.caption)
        nearest = pictures[int(np.argmax(similarities[0]))]
        plain.clip_score(*parts, nearest, prompt.caption)


def batched_plain_sscd_clip(run: Run, references: list[Path], sscd: SSCD, clip: ClipScore) -> None:
    """A fairer opponent: descriptors of a prompt's references once per prompt, then one image at a
    time.
    """
    parts = (clip.model, clip.transform, clip.tokenizer)

    def descriptor(image: Image.Image) -> torch.Tensor:
        return plain.sscd_descriptor(sscd.model, image, "official320")

    for prompt in run.prompts:
        descriptors = [descriptor(Image.open(path)) for path in references]
        similarities = []
        for path in files_of(run, prompt):
            image = Image.open(path)
            of_image = descriptor(image)
            similarities.append([plain.cosine(of_image, other) for other in descriptors])
            plain.clip_score(*parts, image, prompt.caption)
        nearest = Image.open(references[int(np.argmax(similarities[0]))])
        plain.clip_score(*parts, nearest, prompt.caption)


OPPONENTS = {"pair by pair": plain_sscd_clip, "image by image": batched_plain_sscd_clip}


def batched_sscd_clip(run: Run, references: Path, sscd: SSCD, clip: ClipScore) -> None:
    """The suite's way."""
    clip.texts.clear()
    nearest = NearestReference("sscd", sscd)
    scores = [nearest, ClipGenerated(clip), ClipReference(clip, nearest)]
    for groups in run.groups(References(references)):
        results_of(run, scores, groups)


def compare_sscd_clip(setup: Setup, sscd_file: Path, clip_file: Path) -> None:
    """Four prompts with shared references, and one alone."""
    keys = [Key(prompt, sample) for prompt in range(PROMPTS) for sample in range(SAMPLES)]
    references = setup.folder / "gt" / "0"
    setup.write_images(setup.run_folder, [f"img_{key}.png" for key in keys], 1)
    setup.write_images(references, [f"{k}.png" for k in range(REFERENCES)], 2)
    pictures = sorted(references.glob("*.png"))
    sscd = SSCD(sscd_file)
    clip = ClipScore(clip_file)
    for count in (PROMPTS, 1):
        prompts = [Prompt(row, f"a picture of number {row}", "0") for row in range(count)]
        files = {key: setup.run_folder / f"img_{key}.png" for key in keys if key.prompt < count}
        run = Run(setup.run_folder, Path(), prompts, files, "")
        ours = setup.seconds(lambda run=run: batched_sscd_clip(run, references.parent, sscd, clip))
        for name, other in OPPONENTS.items():
            theirs = setup.seconds(lambda run=run, other=other: other(run, pictures, sscd, clip))
            print(
                f"SSCD + CLIP, {count} prompts x {SAMPLES} images, {REFERENCES} shared "
                f"references, {name}: "
                f"{theirs:.2f} s, ours {ours:.2f} s ({ours / len(files):.3f} s an image): "
                f"{theirs / ours:.1f} times faster"
            )


# --- LPIPS


def compare_lpips(setup: Setup, alexnet_file: Path) -> None:
    """All pairs of ten images."""
    folder = setup.folder / "lpips"
    setup.write_images(folder, [f"{k}.png" for k in range(SAMPLES)], 3)
    images = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]
    diversity = LpipsDiversity(alexnet_file)
    package = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    package.load_state_dict(diversity.model.state_dict())
    ours = setup.seconds(lambda: diversity.score(images))
    theirs = setup.seconds(lambda: plain.lpips_diversity(package, images))
    difference = diversity.score(images).mean().item() - plain.lpips_diversity(package, images)
    print(
        f"LPIPS, {SAMPLES} images of {setup.side} pixels: pair by pair {theirs:.2f} s, ours "
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
    flags.add_argument("--side", type=int, default=512, help="size of the images in pixels")
    flags.add_argument("--repeats", type=int, default=2)
    args = flags.parse_args()
    with tempfile.TemporaryDirectory() as name:
        setup = Setup(Path(name), args.side, args.repeats)
        sscd_file, clip_file, alexnet_file = write_checkpoints(setup.folder)
        compare_lpips(setup, alexnet_file)
        compare_sscd_clip(setup, sscd_file, clip_file)


if __name__ == "__main__":
    main()
