"""Copy similarity to the training images (SSCD) and text alignment (CLIP), with their counterparts
that need no download.

python metrics/compute_sscd_orig_clip_score.py --gen_folder DIR [--prompts CSV] [--num_samples 10]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from memorization_suite.download.assets import hint
from memorization_suite.metrics.command import Script, checkpoint, means, run_script, variant_of
from memorization_suite.metrics.runs import Run

SSCD_PRESETS = ("official320", "sq288", "small288", "wen224")
CLIP_VARIANTS = ("vit_b_32_laion2b", "vit_h_14_laion2b", "vit_g_14_laion2b")


def add_sscd_flags(parser: argparse.ArgumentParser) -> None:
    """Which SSCD."""
    parser.add_argument(
        "--sscd",
        default="sscd_disc_mixup",
        choices=["sscd_disc_mixup", "sscd_disc_large"],
        help="which SSCD checkpoint",
    )
    parser.add_argument(
        "--sscd_checkpoint",
        type=Path,
        help="its TorchScript file (default: where download/ puts it)",
    )
    parser.add_argument(
        "--sscd_preset",
        default="official320",
        choices=SSCD_PRESETS,
        help="how images are resized and normalised for SSCD",
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Checkpoints and variants."""
    add_sscd_flags(parser)
    parser.add_argument(
        "--clip", default="vit_b_32_laion2b", choices=CLIP_VARIANTS, help="which open_clip model"
    )
    parser.add_argument(
        "--clip_checkpoint", type=Path, help="its weights (default: where download/ puts them)"
    )


def files(args: argparse.Namespace) -> dict[str, dict[Path, str]]:
    """What each metric needs; fills in the default places."""
    args.sscd_checkpoint, sscd = checkpoint(args.sscd_checkpoint, "--sscd_checkpoint", args.sscd)
    args.clip_checkpoint, clip = checkpoint(
        args.clip_checkpoint, "--clip_checkpoint", f"clip_{args.clip}"
    )
    fetch = hint("sdv1_500_mem_groundtruth")
    references = {
        args.gt_folder: f"there are no training images in {args.gt_folder}: {fetch}, or give "
        "--gt_folder"
    }
    return {
        "sscd": sscd | references,
        "clip": clip,
        "copy": references,
        "localized": references,
        "alignment": {},
    }


def sscd_of(args: argparse.Namespace):
    """The SSCD embedder that the flags ask for."""
    from memorization_suite.metrics.sscd import SSCD

    name = variant_of(args.sscd, args.sscd_checkpoint, args.sscd)
    return SSCD(
        args.sscd_checkpoint,
        name=name,
        preset=args.sscd_preset,
        device=args.device,
        batch_size=args.batch_size,
    )


def scores(args: argparse.Namespace, run: Run, metrics: set[str]) -> dict[str, list]:
    """The scores of the metrics that can be computed."""
    from memorization_suite.metrics.embedded import subjects_of
    from memorization_suite.metrics.image_features import EfficientNet
    from memorization_suite.metrics.offline import CopyScore, SubjectProbability, SubjectShown
    from memorization_suite.metrics.scores import (
        ClipGenerated,
        ClipReference,
        Localized,
        LocalizedFeatures,
        LocalizedGated,
        NearestReference,
    )

    features, subjects = (
        EfficientNet(device=args.device, batch_size=args.batch_size),
        subjects_of(run.prompts_file),
    )
    masked = args.masks is not None
    found: dict[str, list] = {}
    if "copy" in metrics:
        found["copy"] = [CopyScore(masked=masked), NearestReference("feature_similarity", features)]
    if "localized" in metrics and masked:
        found["localized"] = [Localized(), LocalizedFeatures("ls_features", features)]
    if "alignment" in metrics and subjects:
        found["alignment"] = [
            SubjectProbability(features, subjects),
            SubjectShown(features, subjects),
        ]
    nearest = None
    if "sscd" in metrics:
        nearest = NearestReference("sscd", sscd_of(args))
        found["sscd"] = [
            nearest,
            *(
                [LocalizedFeatures("ls_sscd", nearest.embedder), LocalizedGated(nearest)]
                if masked
                else []
            ),
        ]
    if "clip" in metrics:
        from memorization_suite.metrics.clip_score import ClipScore

        clip = ClipScore(
            args.clip_checkpoint,
            variant=args.clip,
            name=variant_of(args.clip, args.clip_checkpoint, f"clip_{args.clip}"),
            device=args.device,
            batch_size=args.batch_size,
        )
        found["clip"] = [ClipGenerated(clip), *([ClipReference(clip, nearest)] if nearest else [])]
        if nearest is None:
            print(
                "the training images' CLIP score is not computed: SSCD chooses which of a prompt's "
                "training images it is of",
                file=sys.stderr,
            )
    return found


SCRIPT = Script(
    "compute_sscd_orig_clip_score.py",
    "Copy similarity and text alignment of a run.",
    add_flags,
    files,
    scores,
    means(
        {
            "Mean SSCD score: ": "sscd",
            "Mean CLIP score (gt): ": "clip_gt",
            "Mean CLIP score (gen): ": "clip_gen",
        }
    ),
)

if __name__ == "__main__":
    sys.exit(run_script(SCRIPT))
