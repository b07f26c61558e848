"""Our scores against the plain way, one pair at a time, in one run with the same random weights of
the real architectures.

python -m benchmarks.metrics                 # ratios; the seconds are this machine's
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

if (
    not __package__
):  # this folder comes first on the path then, and this file hides the package metrics
    raise SystemExit("start a benchmark as python -m benchmarks.NAME")

from memorization_suite.metrics.clip_score import ClipScore
from memorization_suite.metrics.lpips_diversity import LpipsDiversity
from memorization_suite.metrics.references import References
from memorization_suite.metrics.runs import Run
from memorization_suite.metrics.scores import (
    ClipGenerated,
    ClipReference,
    NearestReference,
    run_scores,
)
from memorization_suite.metrics.sscd import SSCD
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs import Key
from tests.reference import scores as plain
from tests.reference.sscd_model import random_sscd, save_scripted

PROMPTS, SAMPLES, REFERENCES = 4, 10, 3  # the prompts share their references


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Least wall time of several calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def write_images(folder: Path, names: list[str], side: int, seed: int) -> None:
    """PNG files of coloured patches."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        ).save(folder / name)


def write_checkpoints(folder: Path) -> tuple[Path, Path, Path]:
    """SSCD, CLIP and AlexNet with random weights, in the published formats."""
    import open_clip
    from torchvision.models import alexnet

    torch.manual_seed(0)
    paths = folder / "sscd_disc_mixup.torchscript.pt", folder / "clip.pt", folder / "alexnet.pth"
    save_scripted(random_sscd(0), paths[0])
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), paths[1])
    torch.save(alexnet(weights=None).state_dict(), paths[2])
    return paths


def plain_sscd_clip(run: Run, references: list[Path], sscd, clip: tuple) -> None:
    """Each image against each reference of its prompt, one at a time; the caption and the
    reference's CLIP score anew for each prompt.
    """
    for prompt in run.prompts:
        images = [Image.open(path) for key, path in run.files.items() if key.prompt == prompt.row]
        gt = [Image.open(path) for path in references]
        found = [
            [plain.sscd_score(sscd, image, [one], "official320") for one in gt] for image in images
        ]
        for image in images:
            plain.clip_score(*clip, image, prompt.caption)
        plain.clip_score(*clip, gt[int(np.argmax(found[0]))], prompt.caption)


def batched_plain_sscd_clip(run: Run, references: list[Path], sscd, clip: tuple) -> None:
    """A fairer opponent: descriptors of a prompt's references once per prompt, then one image at a
    time.
    """
    for prompt in run.prompts:
        gt = [plain.sscd_descriptor(sscd, Image.open(path), "official320") for path in references]
        found = []
        for path in (path for key, path in run.files.items() if key.prompt == prompt.row):
            image = Image.open(path)
            mine = plain.sscd_descriptor(sscd, image, "official320")
            found.append([plain.cosine(mine, one) for one in gt])
            plain.clip_score(*clip, image, prompt.caption)
        plain.clip_score(*clip, Image.open(references[int(np.argmax(found[0]))]), prompt.caption)


def compare_sscd_clip(
    folder: Path, sscd_file: Path, clip_file: Path, args: argparse.Namespace
) -> None:
    """Four prompts with shared references, and one alone."""
    names = [f"img_{Key(p, k)}.png" for p in range(PROMPTS) for k in range(SAMPLES)]
    write_images(folder / "no_mitigation" / "run", names, args.side, 1)
    write_images(folder / "gt" / "0", [f"{k}.png" for k in range(REFERENCES)], args.side, 2)
    references = sorted((folder / "gt" / "0").glob("*.png"))
    prompts = [Prompt(row, f"a picture of number {row}", "0") for row in range(PROMPTS)]
    sscd, clip = SSCD(sscd_file), ClipScore(clip_file)
    plain_clip = (clip.model, clip.transform, clip.tokenizer)
    for some in (prompts, prompts[:1]):
        files = {
            Key(p.row, k): folder / "no_mitigation" / "run" / f"img_{Key(p.row, k)}.png"
            for p in some
            for k in range(SAMPLES)
        }
        run = Run(folder / "no_mitigation" / "run", Path(), some, files, "")

        def ours(run: Run = run) -> None:
            clip.texts.clear()
            nearest = NearestReference("sscd", sscd)
            scores = [nearest, ClipGenerated(clip), ClipReference(clip, nearest)]
            found = [
                row for rows in run_scores(run, scores, References(folder / "gt")) for row in rows
            ]
            assert len(found) == 2 * len(run.files) + len(
                run.prompts
            )  # run_scores is lazy: everything was computed

        mine = seconds(ours, args.repeats)
        for name, other in (
            ("pair by pair", plain_sscd_clip),
            ("image by image", batched_plain_sscd_clip),
        ):
            theirs = seconds(
                lambda run=run, other=other: other(run, references, sscd.model, plain_clip),
                args.repeats,
            )
            print(
                f"SSCD + CLIP, {len(some)} prompts x {SAMPLES} images, {REFERENCES} shared "
                f"references, {name}: "
                f"{theirs:.2f} s, ours {mine:.2f} s ({mine / len(files):.3f} s an image): "
                f"{theirs / mine:.1f} times faster"
            )


def compare_lpips(folder: Path, alexnet_file: Path, args: argparse.Namespace) -> None:
    """All pairs of ten images."""
    import lpips

    write_images(folder / "lpips", [f"{k}.png" for k in range(SAMPLES)], args.side, 3)
    images = [Image.open(path).convert("RGB") for path in sorted((folder / "lpips").glob("*.png"))]
    ours = LpipsDiversity(alexnet_file)
    package = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    package.load_state_dict(ours.model.state_dict())
    mine, theirs = (
        seconds(work, args.repeats)
        for work in (lambda: ours.score(images), lambda: plain.lpips_diversity(package, images))
    )
    difference = abs(ours.score(images).mean().item() - plain.lpips_diversity(package, images))
    print(
        f"LPIPS, {SAMPLES} images of {args.side} pixels: pair by pair {theirs:.2f} s, ours "
        f"{mine:.2f} s: {theirs / mine:.1f} times faster "
        f"(results differ by {difference:.1e})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=512, help="size of the images in pixels")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sscd_file, clip_file, alexnet_file = write_checkpoints(folder)
        compare_lpips(folder, alexnet_file, args)
        compare_sscd_clip(folder, sscd_file, clip_file, args)


if __name__ == "__main__":
    main()
