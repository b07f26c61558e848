"""Whether the disk has room for what a command is to write: estimated before the work.

The estimate is low, so that no run is refused that would fit: a byte a pixel of every picture. A
PNG of a photograph has 1.3 to 1.8.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from memorization_suite.commands.detect_plan import DetectionPlan
from memorization_suite.commands.generate_plan import Plan
from memorization_suite.commands.sweeps.measured import kind_or_none
from memorization_suite.download.transfer import size_text
from memorization_suite.pipelines.kinds import SD1
from memorization_suite.runs.places import nearest
from memorization_suite.runs.run_folder import Key
from memorization_suite.runs.text import counted
from memorization_suite.runs.whole import names_in

# Bytes, as counted of runs: a row of images.csv with the image's rows of results.csv, a step of
# trace.csv, and what a file of latents has beside its numbers.
TABLE_ROW = 700
TRACE_ROW = 35
LATENTS_HEAD = 224
# Bytes of a number of the latents.
NUMBER = 4
# What a file of latents holds: initial, adjusted, final; and the channels of each.
LATENTS = 3
CHANNELS = 4
# Bytes of a pixel of a picture, at least, and of a row of scores.csv beside its prompt.
PIXEL = 1
SCORE_ROW = 20
HOW = f"{PIXEL} byte a pixel, and what is kept beside each"


def beside_picture(settings: Any) -> float:
    """Bytes that are kept of an image beside its picture: rows, latents, trace."""
    kept = float(TABLE_ROW)
    if settings.save_latents:
        kept += LATENTS_HEAD + LATENTS * CHANNELS * side_of(settings) ** 2 * NUMBER
    if settings.trace:
        kept += TRACE_ROW * settings.num_inference_steps
    return kept


def side_of(settings: Any) -> int:
    """Of the latents of an image."""
    kind = kind_or_none(settings) or SD1
    return settings.image_length // kind.downsampling


def bytes_of_images(plan: Plan, images: int) -> float:
    """What so many images of a run take, at least."""
    pixels = plan.settings.image_length**2
    return images * (PIXEL * pixels + beside_picture(plan.settings))


def bytes_of_scores(plan: DetectionPlan, missing: Mapping[str, Iterable[tuple[str, int]]]) -> float:
    """What the scores of prompts take, at least. missing: detector -> (set, row) of the prompts."""
    settings = plan.settings
    captions = {
        (name, prompt.row): len(prompt.caption.encode())
        for name, prompts in plan.sets.items()
        for prompt in prompts
    }
    total = 0
    for detector in plan.detectors:
        image = 0
        if settings.save_masks and detector.spatial:
            image = PIXEL * settings.image_length**2
        there = names_in(Path(settings.output_path) / detector.name / "overlays")
        for name, row in missing[detector.name]:
            text = SCORE_ROW + captions[name, row]
            for k in range(settings.n_samples_per_prompt):
                total += text + (0 if f"{name}_{row:04d}_{k:02d}.png" in there else image)
    return total


def check_room(folder: Path, size: float, what: str, *, freed: int = 0) -> None:
    """Raises ValueError when a disk has clearly no room. freed: bytes that are removed first."""
    place = nearest(folder)
    free = shutil.disk_usage(place).free + freed
    if size > free:
        raise ValueError(
            f"no room on the disk of {place}: {what} take {size_text(round(size))} or more "
            f"({HOW}), and {free_text(free)} are free. Make room there, or give another "
            "--output_path"
        )


def check_room_of_images(plan: Plan, missing: Collection[Key]) -> None:
    """The same of images of a run that are to be made. Files that are replaced take no more."""
    place = Path(plan.settings.output_path)
    freed = bytes_in(plan.folder) if plan.settings.overwrite else 0
    there = set() if plan.settings.overwrite else names_in(plan.folder)
    new = sum(f"img_{key}.png" not in there for key in missing)
    check_room(place, bytes_of_images(plan, new), counted(new, "image"), freed=freed)


def free_text(size: int) -> str:
    """Bytes that are free."""
    return size_text(size) if size else "0 bytes"


def bytes_in(folder: Path) -> int:
    """What the files of a folder take, and of the folders in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
