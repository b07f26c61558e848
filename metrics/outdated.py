"""Scores in results.csv that stand no more: their training images, or masks, are others now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from memorization_suite.metrics.base import is_against
from memorization_suite.metrics.references import Coverage, stored_rows
from memorization_suite.runs.claims import Claim
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.table import Result, read_results

Kind = tuple[str, str]  # quantity, variant


def changed_prompts(folder: Path, coverage: Mapping[int, Coverage]) -> tuple[set[int], set[int]]:
    """(prompts of other training images, prompts of another mask) than references.csv has, which an
    earlier scoring wrote. A mask that only one of the two had changes nothing.
    """
    images: set[int] = set()
    masks: set[int] = set()
    for prompt, row in stored_rows(folder).items():
        now = coverage.get(prompt)
        if now is None:
            continue
        if set(row["sha256"].split()) != set(now.sha256):
            images.add(now.prompt.row)
        if now.mask and row.get("mask_sha256") not in (None, "", now.mask):
            masks.add(now.prompt.row)
    return images, masks


def reads_masks(row: Result) -> bool:
    """Whether a value is of what is inside a mask."""
    return is_against(row.quantity, "masks") or row.variant.endswith("_masks")


def drop_outdated(
    folder: Path, coverage: Mapping[int, Coverage], fresh: Collection[Kind], claim: Claim
) -> str:
    """Removes values that compare with training images which are others now, or look into masks
    that are, unless they were just computed. Returns what is to be said of it; empty for nothing.
    For one who is alone.

    fresh: what was just computed.
    """
    images, masks = changed_prompts(folder, coverage)
    kept: list[Result] = []
    gone: list[Result] = []
    for row in read_results(folder) if images or masks else []:
        of_images = row.prompt_index in images and is_against(row.quantity, "references")
        of_masks = row.prompt_index in masks and reads_masks(row)
        is_old = (row.quantity, row.variant) not in fresh
        (gone if is_old and (of_images or of_masks) else kept).append(row)
    if not gone:
        return ""
    claim.check()
    write_csv(folder / "results.csv", (row.row() for row in kept))
    names = ", ".join(dict.fromkeys(row.quantity for row in gone))
    changed = images | masks
    what = " and ".join(["training images"] * bool(images) + ["masks"] * bool(masks))
    return (
        f"the {what} of {len(changed)} prompt{'s' * (len(changed) > 1)} (first: prompt "
        f"{min(changed)}) are others than at an earlier scoring: {len(gone)} older values of "
        f"{names} are taken out of results.csv; score them again"
    )
