"""Is an embedded model good enough? The figures of its model card, from the test split, without
mitigation.

python -m benchmarks.evaluate_tiny --model_id tiny          # about half an hour on two cores; goes
on where it stopped Writes tiny/evaluation/<model>.json and contact sheets beside it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score

from memorization_suite.benchmarks.scored_run import ScoredRun, scored_run
from memorization_suite.metrics.copy_score import copy_scores
from memorization_suite.metrics.embedded import TINY, Caption, copied, read_captions
from memorization_suite.metrics.images import read_images
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.pipelines.magnitudes import start_magnitudes
from memorization_suite.runs.files import write_json
from memorization_suite.sampling import image_seed, initial_noise

STARTS = range(0, 21, 2)  # first guided step of the transition study
KINDS = {
    "VM": ("VM", ""),
    "VM A": ("VM", "A"),
    "VM B": ("VM", "B"),
    "TM": ("TM", ""),
    "LM": ("LM", ""),
}


def is_kind(name: str):
    """A test of captions: is it of this kind, and of this group if one is named?"""
    kind, group = KINDS[name]
    return lambda caption: caption.kind == kind and group in ("", caption.group)


def share(values: Iterable[bool]) -> float | None:
    """Mean of yes and no, three decimals; None without any."""
    found = list(values)
    return round(statistics.mean(found), 3) if found else None


def ordinary_copies(run: ScoredRun, model_id: str) -> dict:
    """How near ordinary images come to any verbatim training image: share of copies, and quantiles
    of the nearest one's score.
    """
    memorized = [
        caption
        for split in ("tuning", "test")
        for caption in read_captions(TINY / "prompts" / f"{model_id}_memorized_{split}.csv")
    ]
    references = torch.cat([caption.references() for caption in memorized if caption.kind == "VM"])
    nearest = copy_scores(
        read_images(run.folder.image_path(key) for key in run.rows), references
    ).amax(1)
    return {
        "share of copies": share(copied(score) for score in nearest.tolist()),
        "nearest, median": round(nearest.median().item(), 3),
        "nearest, 99 %": round(nearest.quantile(0.99).item(), 3),
        "nearest, largest": round(nearest.max().item(), 3),
    }


def by_layout(run: ScoredRun) -> dict[str, float]:
    """Share of images that show their subject, for each layout of ordinary captions."""
    return {
        layout: round(run.shown(lambda caption, layout=layout: caption.group == layout), 3)
        for layout in sorted({caption.group for caption in run.captions})
    }


def magnitudes(pipe, captions: list[Caption], seeds: int = 16) -> torch.Tensor:
    """First-step magnitude of every caption from the same noises. (captions, seeds)."""
    side = pipe.unet.config.sample_size
    noise = initial_noise([image_seed(0, 0, k) for k in range(seeds)], (4, side, side))
    prompts = [caption.text for caption in captions for _ in range(seeds)]
    return start_magnitudes(pipe, prompts, noise.repeat(len(captions), 1, 1, 1)).reshape(
        len(captions), seeds
    )


def separation(pipe, memorized: list[Caption], ordinary: list[Caption]) -> dict:
    """Mean magnitudes by kind, and the AUC of the 16-seed means against ordinary captions."""
    low, high = magnitudes(pipe, ordinary).mean(1), magnitudes(pipe, memorized).mean(1)
    table = {"ordinary": {"mean": round(low.mean().item(), 3)}}
    for name in KINDS:
        own = high[torch.tensor([is_kind(name)(caption) for caption in memorized])]
        auc = roc_auc_score([1] * len(own) + [0] * len(low), torch.cat([own, low]).tolist())
        table[name] = {"mean": round(own.mean().item(), 3), "AUC": round(float(auc), 4)}
    return table


def transitions(args, samples: int) -> dict:
    """Group B with guidance started at step 0, 2, ..., 20: share of copies, subject shown, and when
    each image escapes for good.
    """
    copies, shown, is_b = {}, {}, is_kind("VM B")
    rows = [
        caption.row
        for caption in read_captions(TINY / "prompts" / f"{args.model_id}_memorized_test.csv")
        if is_b(caption)
    ]
    for start in STARTS:
        run = scored_run(
            args.model_id,
            "memorized_test",
            args.out,
            ["--method", "static_transition", "--cfg_step", str(start - 1)],
            samples=samples,
            start=min(rows),
            end=max(rows) + 1,
        )
        copies[start] = {
            key: copied(score)
            for key, score in run.copy_score.items()
            if is_b(run.captions[key.prompt])
        }
        shown[start] = run.shown(is_b)
    escape = {key: first_escape([copies[start][key] for start in STARTS]) for key in copies[0]}
    by_prompt: dict[int, set] = {}
    for key, step in escape.items():
        by_prompt.setdefault(key.prompt, set()).add(step)
    return {
        "share of copies": {start: share(copies[start].values()) for start in STARTS},
        "subject shown": {start: round(shown[start], 3) for start in STARTS},
        "images by step of escape": {
            str(step): list(escape.values()).count(step) for step in [*STARTS, None]
        },
        "prompts whose noises escape at different steps": share(
            len(steps) > 1 for steps in by_prompt.values()
        ),
    }


def first_escape(copy_by_start: list[bool]) -> int | None:
    """First start of guidance from which on the image is never a copy again; None if it is one at
    the last.
    """
    last = max((i for i, copy in enumerate(copy_by_start) if copy), default=-1)
    return STARTS[last + 1] if last + 1 < len(STARTS) else None


def contact_sheet(path: Path, run: ScoredRun, samples: int, columns: int = 4) -> None:
    """Training image (if there is one) and the first `samples` images of every caption."""
    cell, width = 66, 66 * (samples + 1) + 10
    sheet = Image.new(
        "RGB", (columns * width, -(-len(run.captions) // columns) * (cell + 12)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for i, caption in enumerate(run.captions):
        x, y = i % columns * width, i // columns * (cell + 12)
        draw.text((x, y), caption.text[: width // 6], fill="black")
        pictures = (
            sorted((TINY / "gt_images" / caption.index).glob("*.png"))[:1] if caption.index else []
        )
        generated = [run.folder.image_path(key) for key in run.rows if key.prompt == caption.row][
            :samples
        ]
        for k, picture in enumerate([*pictures, *generated]):
            sheet.paste(
                Image.open(picture).resize((64, 64), Image.Resampling.LANCZOS),
                (x + k * cell + (4 if k and pictures else 0), y + 12),
            )
    sheet.save(path, quality=70, optimize=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_id", default="tiny")
    parser.add_argument("--samples", type=int, default=10, help="images per prompt")
    parser.add_argument(
        "--noises",
        type=int,
        default=4,
        help="images per prompt in the transition study; 0 leaves it out",
    )
    parser.add_argument("--out", type=Path, default=Path("build/evaluation"))
    args = parser.parse_args()
    memorized = scored_run(args.model_id, "memorized_test", args.out, [], samples=args.samples)
    ordinary = scored_run(args.model_id, "ordinary_test", args.out, [], samples=args.samples)
    path = TINY / "evaluation" / f"{args.model_id}.json"
    path.parent.mkdir(exist_ok=True)
    contact_sheet(path.with_name(f"{args.model_id}_memorized.jpg"), memorized, 2)
    contact_sheet(path.with_name(f"{args.model_id}_ordinary.jpg"), ordinary, 3)
    figures = {
        "copies": {name: round(memorized.copies(is_kind(name)), 3) for name in KINDS},
        "ordinary": {
            "subject shown": round(ordinary.shown(), 3),
            "subject shown by layout": by_layout(ordinary),
            **ordinary_copies(ordinary, args.model_id),
        },
        "first-step magnitude": separation(
            load_pipeline(args.model_id), memorized.captions, ordinary.captions
        ),
    }
    if args.noises:
        figures["guidance from step k, group B"] = transitions(args, args.noises)
    write_json(path, figures)
    print(path.read_text())


if __name__ == "__main__":
    main()
