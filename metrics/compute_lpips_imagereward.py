"""Diversity among a prompt's images (LPIPS) and preference (ImageReward), with their counterparts
that need no download.

python metrics/compute_lpips_imagereward.py --gen_folder DIR [--prompts CSV] [--num_samples 10]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from memorization_suite.metrics.command import Script, checkpoint, means, run_script, variant_of
from memorization_suite.metrics.runs import Run


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Checkpoints."""
    parser.add_argument(
        "--alexnet",
        type=Path,
        help="torchvision's AlexNet weights, for LPIPS (default: where download/ puts them)",
    )
    parser.add_argument(
        "--image_reward_checkpoint",
        type=Path,
        help="ImageReward.pt (default: where download/ puts it)",
    )
    parser.add_argument(
        "--image_reward_tokenizer",
        type=Path,
        help="folder of bert-base-uncased's tokenizer (default: where download/ puts it)",
    )


def files(args: argparse.Namespace) -> dict[str, dict[Path, str]]:
    """What each metric needs; fills in the default places."""
    args.alexnet, lpips = checkpoint(args.alexnet, "--alexnet", "lpips_alexnet")
    args.image_reward_checkpoint, reward = checkpoint(
        args.image_reward_checkpoint, "--image_reward_checkpoint", "image_reward"
    )
    args.image_reward_tokenizer, words = checkpoint(
        args.image_reward_tokenizer, "--image_reward_tokenizer", "bert_base_uncased", folder=True
    )
    return {"lpips": lpips, "image_reward": reward | words, "diversity": {}, "quality": {}}


def scores(args: argparse.Namespace, run: Run, metrics: set[str]) -> dict[str, list]:
    """The scores of the metrics that can be computed."""
    from memorization_suite.metrics.image_features import EfficientNet
    from memorization_suite.metrics.offline import FeatureDiversity, Realism
    from memorization_suite.metrics.scores import LpipsScore, RewardScore

    options = {"device": args.device, "batch_size": args.batch_size}
    features = EfficientNet(**options)
    found: dict[str, list] = {
        "diversity": [FeatureDiversity(features)],
        "quality": [Realism(features)] if run.embedded else [],
    }
    if "lpips" in metrics:
        from memorization_suite.metrics.lpips_diversity import LpipsDiversity

        found["lpips"] = [
            LpipsScore(
                LpipsDiversity(
                    args.alexnet,
                    name=variant_of("alex_v0.1", args.alexnet, "lpips_alexnet"),
                    **options,
                )
            )
        ]
    if "image_reward" in metrics:
        from memorization_suite.metrics.image_reward import ImageReward

        name = variant_of("v1.0", args.image_reward_checkpoint, "image_reward")
        found["image_reward"] = [
            RewardScore(
                ImageReward(
                    args.image_reward_checkpoint, args.image_reward_tokenizer, name=name, **options
                )
            )
        ]
    return found


SCRIPT = Script(
    "compute_lpips_imagereward.py",
    "Diversity and preference of a run.",
    add_flags,
    files,
    scores,
    means({"LPIPS mean :  ": "lpips", "Mean Image-reward (gen, Overall): ": "image_reward"}),
    references=False,
)

if __name__ == "__main__":
    sys.exit(run_script(SCRIPT))
