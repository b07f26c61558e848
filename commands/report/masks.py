"""Masks of detectors: pictures by caption, each with its sample and its range of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from memorization_suite.commands.report.detections import Detection
from memorization_suite.commands.report.figures import tidy
from memorization_suite.commands.report.pictures import Pictures
from memorization_suite.detection import DETECTORS
from memorization_suite.detection.evaluation.score_files import SETS, PromptScore
from memorization_suite.runs.lazy import np
from memorization_suite.runs.text import counted

# Pictures of a detector that are shown without being asked for.
OPEN = 24


def masks_of(detection: Detection, pictures: Pictures, folder: str) -> dict[str, Any]:
    """Pictures with masks over them by caption, the highest scores of a set first.

    folder: no other detector's, for pictures beside the page.
    """
    entries = []
    for name, score in detection.sets():
        rank = -score.score if math.isfinite(score.score) else math.inf
        entries.append((name, rank, score))
    groups: list[dict[str, Any]] = []
    for name, _, score in sorted(entries, key=lambda entry: entry[:2]):
        tiles = tiles_of(detection, pictures, folder, name, score)
        if tiles:
            groups.append(
                {
                    "caption": score.prompt,
                    "set": SETS[name],
                    "row": score.row,
                    "score": tidy(f"{score.score:.4g}"),
                    "of": len(detection.images.get((name, score.row), {})),
                    "tiles": tiles,
                }
            )
    total = sum(len(group["tiles"]) for group in groups)
    return {
        "name": detection.name,
        "groups": groups,
        "count": f"{counted(total, 'image')} of {counted(len(groups), 'caption')}",
        "open": total <= OPEN,
    }


def tiles_of(
    detection: Detection, pictures: Pictures, folder: str, name: str, score: PromptScore
) -> list[dict[str, Any]]:
    """The pictures of a prompt of the set with this name, by sample."""
    stem = f"{name}_{score.row:04d}_"
    scores = detection.images.get((name, score.row), {})
    tiles = []
    for file in (each for each in detection.overlays if each.startswith(stem)):
        number = file.removeprefix(stem)
        sample = int(number) if number.isdecimal() else None
        own = scores.get(sample) if sample is not None else None
        tiles.append(
            {
                "picture": pictures.add(detection.overlays[file], f"{folder}/{file}"),
                "image": number if sample is None else str(sample + 1),
                "score": "" if own is None else tidy(f"{own:.4g}"),
                "range": range_of(detection.folder / "masks" / f"{file}.npy"),
            }
        )
    return tiles


def range_of(path: Path) -> str:
    """`0.1 to 2.3`: the least and the largest value of a mask; empty where they are not known."""
    with suppress(OSError, ValueError, EOFError):
        mask = np.load(path, allow_pickle=False)
        if mask.size and np.isfinite(mask).all():
            return f"{tidy(f'{mask.min():.3g}')} to {tidy(f'{mask.max():.3g}')}"
    return ""


def without_masks(detections: Sequence[Detection]) -> list[str]:
    """Which detectors have no masks and why, a line a reason, where others have some or could."""
    scores_only: list[str] = []
    not_asked: list[str] = []
    for detection in detections:
        if not detection.overlays:
            detector = DETECTORS.get(detection.detector)
            has_place = detector is not None and detector.spatial
            (not_asked if has_place else scores_only).append(detection.name)
    lines = []
    if not_asked:
        lines.append(f"{', '.join(not_asked)}: made without --save_masks")
    if scores_only and len(scores_only) < len(detections):
        lines.append(f"{', '.join(scores_only)}: gives a score without a place in the image")
    return lines
