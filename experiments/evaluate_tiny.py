"""Is an embedded model good enough? The figures of its model card, from the test split, without
mitigation.

python -m experiments.evaluate_tiny --model_id tiny

Writes tiny/evaluation/<model>.json and contact sheets beside it. Interrupted runs resume: rerun the
command.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score

from memorization_suite import tiny
from memorization_suite.experiments.common import model_parser
from memorization_suite.experiments.magnitudes import start_magnitudes
from memorization_suite.experiments.result_tables import SAMPLES
from memorization_suite.experiments.scored_run import (
    KINDS,
    ScoredRun,
    is_kind,
    load_once,
    mean,
    scored_run,
)
from memorization_suite.metrics.copy_score import THRESHOLD, copy_scores
from memorization_suite.metrics.embedded import Caption, read_captions
from memorization_suite.metrics.images import read_images
from memorization_suite.metrics.intervals import is_copy, share_of_copies
from memorization_suite.metrics.subject import all_shown, likeliest_of_parts
from memorization_suite.runs.files import write_json
from memorization_suite.runs.run_folder import Key
from memorization_suite.sampling import image_seed, initial_noise

METRICS = ("copy", "alignment", "quality")
COLORS = 2  # of a template
CELL = 66  # pixels of an image on a contact sheet, with its margin


# --- ordinary captions


def ordinary_copies(run: ScoredRun, model_id: str) -> dict:
    """How near ordinary images come to any verbatim training image.

    Share of copies, and quantiles of the nearest one's score.
    """
    references = []
    for split in ("memorized_tuning", "memorized_test"):
        captions = read_captions(tiny.prompts(model_id, split))
        references += [caption.references() for caption in captions if caption.kind == "VM"]
    images = read_images(run.folder.image_path(key) for key in run.rows)
    nearest = copy_scores(images, torch.cat(references)).amax(1)
    scores = zip((key.prompt for key in run.rows), nearest.tolist())
    return {
        "share of copies": round(share_of_copies(scores, THRESHOLD).mean, 3),
        "nearest, median": round(nearest.median().item(), 3),
        "nearest, 99 %": round(nearest.quantile(0.99).item(), 3),
        "nearest, largest": round(nearest.max().item(), 3),
    }


def by_number(run: ScoredRun) -> dict[str, float]:
    """Share of images that show all their subjects, for captions of one subject and of two."""
    one, two = (
        run.only(lambda caption, count=count: len(caption.subjects) == count) for count in (1, 2)
    )
    images = read_images(run.folder.image_path(key) for key in two.rows)
    subjects = [run.captions[key.prompt].subjects for key in two.rows]
    seen = zip(likeliest_of_parts(images), subjects)
    both = [all_shown(parts[None], names).item() for parts, names in seen]
    return {"one": round(one.average("subject_shown"), 3), "two": round(mean(both), 3)}


def by_layout(run: ScoredRun) -> dict[str, float]:
    """Share of images that show their subject, for each layout of ordinary captions."""
    shares = {}
    for layout in sorted({caption.group for caption in run.captions}):
        part = run.only(lambda caption, layout=layout: caption.group == layout)
        shares[layout] = round(part.average("subject_shown"), 3)
    return shares


# --- copies


def distances_of_copies(run: ScoredRun) -> dict[str, float | None]:
    """Root mean squared difference of pixels in [0, 1] between copies and the nearest training
    image, mean by kind and of all: how sharp copies are.

    Of a local caption: inside the mask. Of a template: to its picture in the nearest colors, as it
    was taught in all of them.
    """
    distances = {key: distance_of(run, key) for key in run.rows if is_copied(run, key)}
    found = {}
    for name in ("all", *KINDS):
        part = run if name == "all" else run.only(is_kind(name))
        values = [distances[key] for key in part.rows if key in distances]
        found[name] = round(mean(values), 3) if values else None
    return found


def is_copied(run: ScoredRun, key: Key) -> bool:
    """Whether an image is a copy of a training image of its caption."""
    return is_copy(run.scores["copy_score"][key], THRESHOLD)


def distance_of(run: ScoredRun, key: Key) -> float:
    """An image's distance to its caption's nearest training image."""
    caption = run.captions[key.prompt]
    image = read_images([run.folder.image_path(key)])
    references = caption.references()
    if caption.kind == "TM":
        references = recolored(references, image)
    squares = (image - references).square().mean(1)
    mask = caption.mask()
    if mask is not None:
        squares = squares[:, mask]
    return squares.flatten(1).mean(1).sqrt().min().item()


def recolored(references: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """A template's picture in the colors that are nearest to an image's, (1, 3, h, w) in [0, 1].

    A picture is linear in the template's two colors. So in each channel all its pictures lie in a
    plane, which the references (3 or more) span.
    """
    known = references.transpose(0, 1).flatten(2)
    middle = known.mean(1, keepdim=True)
    _, _, directions = torch.linalg.svd(known - middle, full_matrices=False)
    plane = directions[:, :COLORS]
    found = middle + (image[0].flatten(1)[:, None] - middle) @ plane.mT @ plane
    return found.reshape(image.shape).clamp(0, 1)


# --- magnitudes


def magnitudes(pipe, captions: list[Caption], seeds: int = 16) -> torch.Tensor:
    """First-step magnitude of every caption from the same noises. (captions, seeds)."""
    shape = pipe.latent_shape(pipe.native_size, pipe.native_size)
    noise = initial_noise([image_seed(0, 0, k) for k in range(seeds)], shape)
    prompts = [caption.text for caption in captions for _ in range(seeds)]
    values = start_magnitudes(pipe, prompts, noise.repeat(len(captions), 1, 1, 1))
    return values.reshape(len(captions), seeds)


def ordinary_magnitude(pipe, model_id: str) -> float:
    """Mean over the ordinary captions of the tuning split."""
    captions = read_captions(tiny.prompts(model_id, "ordinary_tuning"))
    return magnitudes(pipe, captions).mean().item()


def separation(pipe, memorized: list[Caption], ordinary: list[Caption]) -> dict:
    """Mean magnitudes by kind, and the AUC of the 16-seed means against ordinary captions."""
    low = magnitudes(pipe, ordinary).mean(1)
    high = magnitudes(pipe, memorized).mean(1)
    table = {"ordinary": {"mean": round(low.mean().item(), 3)}}
    for name in KINDS:
        chosen = torch.tensor([*map(is_kind(name), memorized)])
        of_kind = high[chosen]
        labels = [1] * len(of_kind) + [0] * len(low)
        auc = float(roc_auc_score(labels, torch.cat([of_kind, low])))
        table[name] = {"mean": round(of_kind.mean().item(), 3), "AUC": round(auc, 4)}
    return table


# --- pictures


def contact_sheet(path: Path, run: ScoredRun, samples: int, columns: int = 4) -> None:
    """Training image (if there is one) and the first `samples` images of every caption."""
    width = CELL * (samples + 1) + 10
    height = CELL + 12
    rows = -(-len(run.captions) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, caption in enumerate(run.captions):
        x = i % columns * width
        y = i // columns * height
        draw.text((x, y), caption.text[: width // 6], fill="black")
        if caption.index:
            reference = tiny.GT_IMAGES / caption.index / "00.png"
            sheet.paste(small(reference), (x, y + 12))
            x += CELL + 4
        keys = [key for key in run.rows if key.prompt == caption.row]
        for k, key in enumerate(keys[:samples]):
            sheet.paste(small(run.folder.image_path(key)), (x + k * CELL, y + 12))
    sheet.save(path, quality=70, optimize=True)


def small(file: Path) -> Image.Image:
    """The picture at the size of a contact sheet."""
    return Image.open(file).resize((64, 64), Image.Resampling.LANCZOS)


def main() -> None:
    """The command line."""
    parser = model_parser(__doc__, samples=SAMPLES["evaluation"], out="build/evaluation")
    args = parser.parse_args()
    memorized = scored_run(args, "memorized_test", metrics=METRICS)
    ordinary = scored_run(args, "ordinary_test", metrics=METRICS)
    args.figures.mkdir(parents=True, exist_ok=True)
    contact_sheet(args.figures / f"{args.model_id}_memorized.jpg", memorized, 2)
    contact_sheet(args.figures / f"{args.model_id}_ordinary.jpg", ordinary, 3)
    pipe = load_once(args.model_id)
    figures = {
        "captions": {name: sum(map(is_kind(name), memorized.captions)) for name in KINDS},
        "copies": {name: round(memorized.only(is_kind(name)).copies(), 3) for name in KINDS},
        "distance of copies": distances_of_copies(memorized),
        "realism": {
            "memorized": round(memorized.average("realism"), 3),
            "ordinary": round(ordinary.average("realism"), 3),
        },
        "ordinary": {
            "subject shown": round(ordinary.average("subject_shown"), 3),
            "all subjects shown, captions of": by_number(ordinary),
            "subject shown by layout": by_layout(ordinary),
            **ordinary_copies(ordinary, args.model_id),
        },
        "first-step magnitude": separation(pipe, memorized.captions, ordinary.captions),
    }
    path = args.figures / f"{args.model_id}.json"
    write_json(path, figures)
    print(path.read_text())


if __name__ == "__main__":
    main()
