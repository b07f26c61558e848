"""Is an embedded model good enough? The figures of its model card, from the test split, without mitigation.

python benchmarks/evaluate_tiny.py --model_id tiny          # about half an hour on two cores; goes on where it stopped
Writes tiny/evaluation/<model>.json and contact sheets in --out.
"""
from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score

import generation
from metrics.copy_score import copy_scores
from metrics.embedded import TINY, Caption, copied, read_captions, score_run
from metrics.images import read_images
from pipelines.loading import load_pipeline
from pipelines.magnitudes import start_magnitudes
from results import Key, RunFolder
from results.files import write_json
from results.table import Result
from sampling import image_seed, initial_noise

STARTS = range(0, 21, 2)                   # first guided step of the transition study


def generate(args, prompts: str, samples: int, *flags: str) -> tuple[RunFolder, list[Caption]]:
    """The run folder of one prompt file, generated as far as it is missing, and its captions."""
    path = TINY / "prompts" / f"{args.model_id}_{prompts}.csv"
    argv = ["--model_id", args.model_id, "--prompts", str(path), "--output_path", str(args.out / f"{prompts}_{samples}"),
            "-b", str(max(1, 64 // samples)), "--n_samples_per_prompt", str(samples), *flags]
    code = generation.main(argv)
    if code:
        sys.exit(code)
    return RunFolder(generation.plan_of(argv).folder), read_captions(path)


def share(values: Iterable[bool]) -> float | None:
    """Mean of yes and no, three decimals; None without any."""
    found = list(values)
    return round(statistics.mean(found), 3) if found else None


def copy_table(found: list[Result], captions: list[Caption]) -> dict:
    """Share of copies per kind and group of memorized captions."""
    scores = [(captions[row.prompt_index], row.value) for row in found if row.quantity == "copy_score"]
    groups = {"VM A": ("VM", "A"), "VM B": ("VM", "B"), "TM": ("TM", None), "LM": ("LM", None)}
    return {name: share(copied(score) for caption, score in scores if caption.kind == kind and group in (None, caption.group))
            for name, (kind, group) in groups.items()}


def ordinary_copies(folder: RunFolder, captions: list[Caption], samples: int, model_id: str) -> dict:
    """How near ordinary images come to any verbatim training image: share of copies, and quantiles of the nearest one's score."""
    memorized = [caption for split in ("tuning", "test") for caption in read_captions(TINY / "prompts" / f"{model_id}_memorized_{split}.csv")]
    references = torch.cat([caption.references() for caption in memorized if caption.kind == "VM"])
    images = read_images(folder.image_path(Key(caption.row, k)) for caption in captions for k in range(samples))
    nearest = copy_scores(images, references).amax(1)
    return {"share of copies": share(copied(score) for score in nearest.tolist()), "nearest, median": round(nearest.median().item(), 3),
            "nearest, 99 %": round(nearest.quantile(0.99).item(), 3), "nearest, largest": round(nearest.max().item(), 3)}


def magnitudes(pipe, captions: list[Caption], seeds: int = 16) -> torch.Tensor:
    """First-step magnitude of every caption from the same noises. (captions, seeds)."""
    side = pipe.unet.config.sample_size
    noise = initial_noise([image_seed(0, 0, k) for k in range(seeds)], (4, side, side))
    prompts = [caption.text for caption in captions for _ in range(seeds)]
    return start_magnitudes(pipe, prompts, noise.repeat(len(captions), 1, 1, 1)).reshape(len(captions), seeds)


def separation(pipe, memorized: list[Caption], ordinary: list[Caption]) -> dict:
    """Mean magnitudes by kind, and the AUC of the 16-seed means against ordinary captions."""
    low = magnitudes(pipe, ordinary).mean(1)
    high = magnitudes(pipe, memorized).mean(1)
    table = {"ordinary": {"mean": round(low.mean().item(), 3)}}
    for name in ("VM", "VM A", "VM B", "TM", "LM"):
        kind, _, group = name.partition(" ")
        rows = [i for i, caption in enumerate(memorized) if caption.kind == kind and group in ("", caption.group)]
        labels, scores = [1] * len(rows) + [0] * len(low), torch.cat([high[rows], low]).tolist()
        table[name] = {"mean": round(high[rows].mean().item(), 3), "AUC": round(float(roc_auc_score(labels, scores)), 4)}
    return table


def transitions(args, samples: int) -> dict:
    """Group B with guidance started at step 0, 2, ..., 20: share of copies, subject shown, and when each image escapes for good."""
    copies, shown = {}, {}
    for start in STARTS:
        flags = ["--method", "static_transition", "--cfg_step", str(start - 1)]
        folder, captions = generate(args, "memorized_test", samples, *flags)
        found = [row for row in score_run(folder, captions, samples) if captions[row.prompt_index].group == "B"]
        copies[start] = {(r.prompt_index, r.sample_index): copied(r.value) for r in found if r.quantity == "copy_score"}
        shown[start] = [bool(r.value) for r in found if r.quantity == "subject_shown"]
    escape = {key: first_escape([copies[start][key] for start in STARTS]) for key in copies[0]}
    by_prompt: dict[int, set] = {}
    for (prompt, _), step in escape.items():
        by_prompt.setdefault(prompt, set()).add(step)
    return {"share of copies": {start: share(copies[start].values()) for start in STARTS},
            "subject shown": {start: share(shown[start]) for start in STARTS},
            "images by step of escape": {str(step): list(escape.values()).count(step) for step in [*STARTS, None]},
            "prompts whose noises escape at different steps": share(len(steps) > 1 for steps in by_prompt.values())}


def first_escape(copy_by_start: list[bool]) -> int | None:
    """First start of guidance from which on the image is never a copy again; None if it is one at the last."""
    last = max((i for i, copy in enumerate(copy_by_start) if copy), default=-1)
    return STARTS[last + 1] if last + 1 < len(STARTS) else None


def contact_sheet(path: Path, folder: RunFolder, captions: list[Caption], samples: int, columns: int = 4) -> None:
    """Training image (if there is one) and the first `samples` images of every caption."""
    cell, width = 66, 66 * (samples + 1) + 10
    sheet = Image.new("RGB", (columns * width, -(-len(captions) // columns) * (cell + 12)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, caption in enumerate(captions):
        x, y = i % columns * width, i // columns * (cell + 12)
        draw.text((x, y), caption.text[:width // 6], fill="black")
        pictures = sorted((TINY / "gt_images" / caption.index).glob("*.png"))[:1] if caption.index else []
        for k, picture in enumerate([*pictures, *(folder.image_path(Key(caption.row, k)) for k in range(samples))]):
            sheet.paste(Image.open(picture), (x + k * cell + (4 if k and pictures else 0), y + 12))
    sheet.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_id", default="tiny")
    parser.add_argument("--samples", type=int, default=10, help="images per prompt")
    parser.add_argument("--noises", type=int, default=4, help="images per prompt in the transition study; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=Path("build/evaluation"))
    args = parser.parse_args()
    args.out = args.out / args.model_id
    memorized, memorized_captions = generate(args, "memorized_test", args.samples)
    ordinary, ordinary_captions = generate(args, "ordinary_test", args.samples)
    contact_sheet(args.out / "memorized.png", memorized, memorized_captions, 4)
    contact_sheet(args.out / "ordinary.png", ordinary, ordinary_captions, 4)
    shown = [bool(row.value) for row in score_run(ordinary, ordinary_captions, args.samples)]
    pipe = load_pipeline(args.model_id)
    figures = {
        "copies": copy_table(score_run(memorized, memorized_captions, args.samples), memorized_captions),
        "ordinary": {"subject shown": share(shown), **ordinary_copies(ordinary, ordinary_captions, args.samples, args.model_id)},
        "first-step magnitude": separation(pipe, memorized_captions, ordinary_captions),
    }
    if args.noises:
        figures["guidance from step k, group B"] = transitions(args, args.noises)
    (TINY / "evaluation").mkdir(exist_ok=True)
    write_json(TINY / "evaluation" / f"{args.model_id}.json", figures)
    print((TINY / "evaluation" / f"{args.model_id}.json").read_text())


if __name__ == "__main__":
    main()
