"""Every detector on an embedded model's test prompts, memorized against ordinary: AUC and TPR by
kind of memorization, rows and seconds.

python -m benchmarks.compare_detectors --model_id tiny       # prints the tables; writes
tiny/evaluation/<model>_detectors.{json,md} Each detector runs alone, so that its seconds are its
own, and then all together. Also: how well the masks of spatial detectors find the planted region of
local memorization (intersection over union with it, binarised by Otsu's threshold; AUC over
pixels). Goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from memorization_suite.detection import build_detector, detectors
from memorization_suite.metrics.embedded import TINY, Caption, read_captions
from memorization_suite.metrics.intervals import interval
from memorization_suite.metrics.summary import table_text
from memorization_suite.pipelines.models import EMBEDDED, load_preset
from memorization_suite.runs.files import read_csv, write_bytes, write_json
from memorization_suite.sampling.bright_ending import binarise
from memorization_suite.screening import command
from memorization_suite.screening.folder import ScoreFolder
from memorization_suite.screening.summary import summarise

KINDS = ("VM", "TM", "LM")


def run(args, name: str, out: Path, *more: str) -> None:
    """detect_memorization.py with this detector; raises SystemExit with its code when it fails."""
    argv = [
        "--model_id",
        args.model_id,
        "--detector",
        name,
        "-n",
        str(args.samples),
        "-b",
        "4",
        "--output_path",
        str(out),
        "--quiet",
        *more,
    ]
    code = command.main(argv)
    if code:
        raise SystemExit(code)


def prompt_scores(folder: Path) -> dict[str, dict[int, float]]:
    """Set -> prompt row -> mean over its images."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in ScoreFolder(folder).all_rows("scores"):
        found.setdefault(row["set"], {}).setdefault(int(row["prompt_index"]), []).append(
            float(row["score"])
        )
    return {
        name: {row: sum(values) / len(values) for row, values in prompts.items()}
        for name, prompts in found.items()
    }


def line_of(name: str, folder: Path, captions: list[Caption]) -> dict:
    """One detector's figures; `by kind`: AUC of one kind of memorized prompts against all ordinary
    ones.
    """
    scores, cost = prompt_scores(folder), read_csv(folder / "cost.csv")
    ordinary = list(scores["nonmem"].values())
    kinds = {
        kind: summarise(
            [scores["mem"][caption.row] for caption in captions if caption.kind == kind], ordinary
        )
        for kind in KINDS
    }
    return {
        "detector": name,
        **summarise(list(scores["mem"].values()), ordinary),
        "by kind": kinds,
        "rows per prompt": float(np.mean([float(row["unet_rows"]) for row in cost])),
        "seconds per prompt": float(np.mean([float(row["pass_seconds"]) for row in cost])),
    }


def shown(line: dict) -> dict[str, str]:
    """A line as text."""

    def text(found: dict, name: str) -> str:
        return f"{found[name]:.3f} [{found[name + '_low']:.3f}, {found[name + '_high']:.3f}]"

    return {
        "detector": line["detector"],
        "AUC": text(line, "auc"),
        "TPR@1%FPR": text(line, "tpr_at_0.01"),
        "TPR@3%FPR": text(line, "tpr_at_0.03"),
        **{f"AUC {kind}": text(found, "auc") for kind, found in line["by kind"].items()},
        **{
            f"TPR@1% {kind}": f"{found['tpr_at_0.01']:.2f}"
            for kind, found in line["by kind"].items()
        },
        "rows": f"{line['rows per prompt']:.0f}",
        "s": f"{line['seconds per prompt']:.2f}",
    }


def overlap(mask: np.ndarray, truth: torch.Tensor) -> dict[str, float]:
    """Of one image's mask with the planted region. mask: (h, w); truth: (H, W) bool."""
    large = torch.nn.functional.interpolate(
        torch.from_numpy(mask)[None, None], truth.shape, mode="bilinear"
    )
    found = binarise(large, "otsu")[0, 0] > 0
    return {
        "IoU": float((found & truth).sum() / (found | truth).sum()),
        "area": float(found.float().mean()),
        "pixel AUC": float(roc_auc_score(truth.flatten().numpy(), large.flatten().numpy())),
    }


def localisation(
    folder: Path, captions: list[Caption], samples: int
) -> dict[str, dict[str, float]]:
    """Mean over local prompts of the means over their images, with 95 % intervals."""
    values: dict[str, list[float]] = {}
    for caption in captions:
        truth = caption.mask()
        if truth is not None:
            each = [
                overlap(
                    np.load(
                        folder / "masks" / f"mem_{caption.row:04d}_{k:02d}.npy", allow_pickle=False
                    ),
                    truth,
                )
                for k in range(samples)
            ]
            for name in each[0]:
                values.setdefault(name, []).append(float(np.mean([one[name] for one in each])))
    return {
        name: dict(zip(("mean", "low", "high"), (float(np.mean(some)), *interval(some))))
        for name, some in values.items()
    }


def markdown(rows: list[dict[str, str]]) -> str:
    """A table for the model card."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(row.values()) + " |" for row in rows]) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_id", default="tiny", choices=list(EMBEDDED))
    parser.add_argument("--samples", type=int, default=4, help="images per prompt")
    parser.add_argument("--out", type=Path, default=Path("build/detection"))
    args = parser.parse_args()
    captions = read_captions(TINY / "prompts" / f"{args.model_id}_memorized_test.csv")
    preset = load_preset("auto", args.model_id)[1]
    known = {name: build_detector(name, **preset.get(name, {})) for name in detectors()}
    lines, places = [], {}
    for name, detector in known.items():
        if detector.missing():
            print(f"left out: {name} {detector.missing()}")
            continue
        run(args, name, args.out / args.model_id)
        lines.append(line_of(name, args.out / args.model_id / name, captions))
        if (
            detector.spatial
        ):  # for the overlays pictures are made, so that its seconds are not the detector's
            run(args, name, args.out / f"{args.model_id}_masks", "--save_masks")
            places[name] = localisation(
                args.out / f"{args.model_id}_masks" / name, captions, args.samples
            )
    run(args, "all", args.out / f"{args.model_id}_all")
    cost = read_csv(args.out / f"{args.model_id}_all" / "noise_norm" / "cost.csv")
    together = {
        name: float(np.mean([float(row[name]) for row in cost]))
        for name in ("pass_unet_rows", "pass_seconds")
    }
    table = [shown(line) for line in sorted(lines, key=lambda line: -line["auc"])]
    print(table_text(table))
    print(
        f"all in one pass: {together['pass_unet_rows']:.0f} rows and "
        f"{together['pass_seconds']:.2f} s a prompt; one after the other "
        f"{sum(line['rows per prompt'] for line in lines):.0f} rows and "
        f"{sum(line['seconds per prompt'] for line in lines):.2f} s"
    )
    masks = [
        {
            "masks of": name,
            **{
                quantity: f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
                for quantity, found in own.items()
            },
        }
        for name, own in places.items()
    ]
    print(table_text(masks))
    write_json(
        TINY / "evaluation" / f"{args.model_id}_detectors.json",
        {"detectors": lines, "all in one pass": together, "local masks": places},
    )
    write_bytes(
        TINY / "evaluation" / f"{args.model_id}_detectors.md",
        (markdown(table) + "\n" + markdown(masks)).encode(),
    )


if __name__ == "__main__":
    main()
