"""Every detector on an embedded model's test prompts, memorized against ordinary: AUC and TPR by
kind of memorization, NFE and seconds.

python -m experiments.compare_detectors --model_id tiny

Prints the tables of docs/RESULTS.md and writes tiny/evaluation/<model>_detectors.json. All score
every prompt in one pass. What a detector costs: alone, on the first prompts of both sets. Also:
how well the masks of spatial detectors find the planted region of local memorization (intersection
over union with it, binarized by Otsu's threshold; AUC over pixels). Interrupted runs resume: rerun
the command.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from memorization_suite import tiny
from memorization_suite.commands.detect import detect
from memorization_suite.commands.detect_plan import ScoreFolder, plan_detection
from memorization_suite.detection import DETECTORS, build_detector
from memorization_suite.detection.bright_ending import binarize
from memorization_suite.detection.evaluation.score_files import read_scores
from memorization_suite.detection.evaluation.summary import summarize
from memorization_suite.experiments.common import model_parser
from memorization_suite.experiments.result_tables import (
    SAMPLES,
    by_auc,
    by_kind,
    masks,
    one_pass,
)
from memorization_suite.experiments.scored_run import load_once
from memorization_suite.metrics.embedded import Caption, read_captions
from memorization_suite.metrics.intervals import average, mean_over_prompts
from memorization_suite.pipelines.models import load_preset
from memorization_suite.runs.files import write_json
from memorization_suite.runs.run_folder import Key
from memorization_suite.runs.text import table_text

KINDS = ("VM", "TM", "LM")
# So many prompts of each set say what a detector costs.
TIMED = 8


def run(args: argparse.Namespace, detector: str, out: Path, **flags) -> dict[str, ScoreFolder]:
    """Scores of one detector, or all of them. Raises ValueError."""
    planned = plan_detection(
        model_id=args.model_id,
        detector=detector,
        n_samples_per_prompt=args.samples,
        batch_size=4,
        output_path=str(out),
        quiet=True,
        **flags,
    )
    made = detect(planned, load=load_once)
    print(made.summary)
    return made.folders


# --- scores


def mean_of(rows: list[dict[str, str]], column: str) -> float:
    """Mean of a column."""
    return average([float(row[column]) for row in rows])


def line_of(
    name: str, folder: ScoreFolder, cost: dict[str, float], captions: list[Caption]
) -> dict:
    """One detector's figures; `by kind`: AUC of one kind of memorized prompts against all ordinary
    ones. cost: as of `cost_of`.
    """
    sets = read_scores(folder.path / "scores.csv")
    memorized = {entry.row: entry.score for entry in sets["mem"]}
    ordinary = [entry.score for entry in sets["nonmem"]]
    by_kind = {}
    for kind in KINDS:
        of_kind = [memorized[caption.row] for caption in captions if caption.kind == kind]
        by_kind[kind] = summarize(of_kind, ordinary)
    return {
        "detector": name,
        **summarize(list(memorized.values()), ordinary),
        "by kind": by_kind,
        "rows per prompt": cost["pass_unet_rows"],
        "seconds per prompt": cost["pass_seconds"],
    }


def cost_of(args: argparse.Namespace, detector: str) -> dict[str, float]:
    """Rows and seconds of a pass for one prompt. detector: one, or `all`."""
    folders = run(args, detector, args.out / f"{args.model_id}_timed_{detector}", end=TIMED)
    rows = next(iter(folders.values())).rows("cost")
    return {name: mean_of(rows, name) for name in ("pass_unet_rows", "pass_seconds")}


# --- masks


def overlap(mask: np.ndarray, truth: torch.Tensor) -> dict[str, float]:
    """Of one image's mask with the planted region. mask: (h, w); truth: (H, W) bool."""
    large = torch.nn.functional.interpolate(
        torch.from_numpy(mask)[None, None], truth.shape, mode="bilinear"
    )
    inside = binarize(large, "otsu")[0, 0] > 0
    return {
        "IoU": float((inside & truth).sum() / (inside | truth).sum()),
        "area": float(inside.float().mean()),
        "pixel AUC": float(roc_auc_score(truth.flatten().numpy(), large.flatten().numpy())),
    }


def localization(
    folder: ScoreFolder, captions: list[Caption], samples: int
) -> dict[str, dict[str, float]]:
    """Mean over local prompts of the means over their images, with 95 % intervals."""
    overlaps = {}
    for caption in captions:
        truth = caption.mask()
        if truth is None:
            continue
        for sample in range(samples):
            file = folder.path / "masks" / f"mem_{Key(caption.row, sample)}.npy"
            mask = np.load(file, allow_pickle=False)
            for name, value in overlap(mask, truth).items():
                overlaps.setdefault(name, []).append((caption.row, value))
    return {name: asdict(mean_over_prompts(values)) for name, values in overlaps.items()}


def main() -> None:
    """The command line."""
    parser = model_parser(__doc__, samples=SAMPLES["detectors"], out="build/detection")
    args = parser.parse_args()
    captions = read_captions(tiny.prompts(args.model_id, "memorized_test"))
    preset = load_preset("auto", args.model_id)[1]
    folders = run(args, "all", args.out / args.model_id, save_masks=True)
    lines = []
    places = {}
    for name in DETECTORS:
        detector = build_detector(name, **preset.get(name, {}))
        if name not in folders:
            print(f"left out: {name} {detector.missing()}")
            continue
        lines.append(line_of(name, folders[name], cost_of(args, name), captions))
        if detector.spatial:
            places[name] = localization(folders[name], captions, args.samples)
    together = cost_of(args, "all")
    figures = {"detectors": lines, "all in one pass": together, "local masks": places}
    print(table_text(by_auc(figures)))
    print(one_pass(figures))
    print(table_text(by_kind(figures)))
    print(table_text(masks(figures)))
    args.figures.mkdir(parents=True, exist_ok=True)
    write_json(args.figures / f"{args.model_id}_detectors.json", figures)


if __name__ == "__main__":
    main()
