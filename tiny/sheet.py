"""A sheet of pictures that a model in training makes: what the loss does not say."""

from __future__ import annotations

import logging
from pathlib import Path

from memorization_suite.runs.lazy import Image, Lazy, no_grad, np, torch
from memorization_suite.tiny.bank import Bank

diffusers = Lazy("diffusers")
log = logging.getLogger("tiny.train")

SAMPLES = 4  # of a caption
GAP = 2  # pixels between pictures
GUIDANCE = 7.0
# How many captions of each kind.
MEMORIZED = 3
ORDINARY = 12


def captions_of(bank: Bank) -> list[str]:
    """Some test captions of each memorized group, then ordinary ones of each layout."""
    chosen = []
    for group in ("A", "B"):
        chosen += [c.caption for c in bank.concepts if c.group == group][-MEMORIZED:]
    for kind in ("TM", "LM"):
        chosen += [c.caption for c in bank.concepts if c.kind == kind][-MEMORIZED:]
    layouts = {}
    for caption, (layout, _) in bank.shown.items():
        if caption and caption not in bank.rows:
            layouts.setdefault(layout, caption)
    return chosen + list(layouts.values())[:ORDINARY]


@no_grad
def write_sheet(
    pipe: diffusers.StableDiffusionPipeline, bank: Bank, path: Path, *, steps: int
) -> None:
    """A row a caption: a training picture where it is memorized, then pictures of equal noises.

    steps: of sampling.
    """
    pipe.set_progress_bar_config(disable=True)
    captions = captions_of(bank)
    pixels = bank.pictures.shape[1]
    side = pixels + GAP
    sheet = np.full((side * len(captions), side * (1 + SAMPLES), 3), 255, np.uint8)
    for row, caption in enumerate(captions):
        shown = [np.zeros((pixels, pixels, 3), np.uint8)]
        if caption in bank.rows:
            shown = [bank.pictures[bank.rows[caption][0]]]
        generators = [torch.Generator().manual_seed(k) for k in range(SAMPLES)]
        images = pipe(
            [caption] * SAMPLES,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            generator=generators,
            output_type="np",
        ).images
        shown += [(255 * image).round().astype(np.uint8) for image in images]
        for column, picture in enumerate(shown):
            top, left = row * side, column * side
            sheet[top : top + pixels, left : left + pixels] = picture
    Image.fromarray(sheet).save(path)
    path.with_suffix(".txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    log.info("sheet %s", path)
