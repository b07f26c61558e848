"""How much a mitigation changed the images of equal seeds, and how alike the images of one prompt
are, as NeMo reports it.

python metrics/compute_diversity.py --gen_folder DIR --unmitigated DIR [--prompts CSV]
[--num_samples 10]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from memorization_suite.metrics.command import Script, checkpoint, run_script
from memorization_suite.metrics.compute_sscd_orig_clip_score import add_sscd_flags, sscd_of
from memorization_suite.metrics.runs import Run, open_run
from memorization_suite.runs.table import Result

TITLES = {
    "SSCD_gen": "sscd_gen",
    "SSCD diversity": "sscd_pairs",
    "feature_gen (not SSCD)": "feature_gen",
    "feature diversity (not SSCD)": "feature_pairs",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The run to compare with, and the SSCD checkpoint."""
    parser.add_argument(
        "--unmitigated",
        type=Path,
        required=True,
        help="run folder without mitigation, of the same prompts and seed",
    )
    add_sscd_flags(parser)


def files(args: argparse.Namespace) -> dict[str, dict[Path, str]]:
    """What each metric needs."""
    args.sscd_checkpoint, needed = checkpoint(args.sscd_checkpoint, "--sscd_checkpoint", args.sscd)
    return {"sscd": needed, "features": {}}


def scores(args: argparse.Namespace, run: Run, metrics: set[str]) -> dict[str, list]:
    """The scores of the metrics that can be computed."""
    from memorization_suite.metrics.image_features import EfficientNet
    from memorization_suite.metrics.same_seed import PairwiseSimilarity, SameSeed, Unmitigated

    other = open_run(
        args.unmitigated,
        args.prompts or run.prompts_file,
        num_samples=args.num_samples,
        incomplete=args.incomplete,
        flag="--unmitigated",
    )
    embedders = {"features": EfficientNet(device=args.device, batch_size=args.batch_size)} | (
        {"sscd": sscd_of(args)} if "sscd" in metrics else {}
    )
    unmitigated = Unmitigated(run, other, list(embedders.values()))
    names = {"features": "feature", "sscd": "sscd"}
    return {
        metric: [
            SameSeed(f"{names[metric]}_gen", embedder, unmitigated),
            PairwiseSimilarity(f"{names[metric]}_pairs", embedder),
        ]
        for metric, embedder in embedders.items()
    }


def headlines(results: list[Result]) -> list[str]:
    """NeMo's form: median over prompts of each prompt's median, and its median absolute
    deviation.
    """
    from memorization_suite.metrics.same_seed import median_and_deviation

    lines = []
    for title, quantity in TITLES.items():
        by_prompt: dict[int, list[float]] = {}
        for row in results:
            if row.quantity == quantity:
                by_prompt.setdefault(row.prompt_index, []).append(row.value)
        if by_prompt:
            lines.append(
                "{}: {:.6g} ± {:.6g}".format(title, *median_and_deviation(list(by_prompt.values())))
            )
    return lines


SCRIPT = Script(
    "compute_diversity.py",
    "Change against the unmitigated run, and diversity among seeds.",
    add_flags,
    files,
    scores,
    headlines,
    references=False,
)

if __name__ == "__main__":
    sys.exit(run_script(SCRIPT))
