"""calibrate.py threshold: the score that few ordinary images exceed, for --screen."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from memorization_suite.runs.files import read_csv

HELP = (
    "Threshold of a detector for generate_images.py --screen, from its scores of ordinary prompts."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of this subcommand."""
    parser.add_argument(
        "scores",
        type=Path,
        help="a detector's folder or scores.csv, made by detect_memorization.py with "
        "--nonmem_prompts",
    )
    parser.add_argument(
        "--fpr",
        type=float,
        default=0.01,
        help="largest share of ordinary images that may lie above it (default 0.01)",
    )


def threshold(scores: list[float], fpr: float) -> float:
    """The smallest of the scores that at most a share `fpr` of them exceeds. Raises ValueError
    without finite scores.
    """
    found = sorted(score for score in scores if math.isfinite(score))
    if not found:
        raise ValueError("there is no finite score of an ordinary image")
    return found[len(found) - 1 - math.floor(fpr * len(found))]


def run(args: argparse.Namespace) -> str:
    """The text to print. Raises ValueError for what the user can mend."""
    if not 0 <= args.fpr < 1:
        raise ValueError(f"--fpr {args.fpr:g} is no share: it must be at least 0 and below 1")
    path = args.scores / "scores.csv" if args.scores.is_dir() else args.scores
    rows = read_csv(path)
    if not rows or not {"set", "score"} <= set(rows[0]):
        raise ValueError(f"{path} is no scores.csv of a detector")
    ordinary = [float(row["score"]) for row in rows if row["set"] == "nonmem"]
    if not ordinary:
        raise ValueError(
            f"{path} has no scores of ordinary prompts: give detect_memorization.py "
            "--nonmem_prompts"
        )
    limit = threshold(ordinary, args.fpr)
    memorized = [float(row["score"]) for row in rows if row["set"] == "mem"]
    shares = [
        f"{sum(score > limit for score in scores) / len(scores):.1%} of {len(scores)} {name} images"
        for name, scores in (("ordinary", ordinary), ("memorized", memorized))
        if scores
    ]
    return (
        f"above {limit:.6g}: {', '.join(shares)}\n--screen {path.resolve().parent.name}:{limit:.6g}"
    )
