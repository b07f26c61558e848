"""Scores in results.csv that stand no more: their training images, or masks, are others now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from memorization_suite.metrics.base import is_against
from memorization_suite.metrics.references import Coverage
from memorization_suite.runs.claims import Claim
from memorization_suite.runs.files import read_csv, write_csv
from memorization_suite.runs.table import Result, read_results

Kind = tuple[str, str]  # quantity, variant


def changed_prompts(folder: Path, coverage: Mapping[int, Coverage]) -> list[int]:
    """The prompts whose training images or masks are not those of references.csv, which an earlier
    scoring wrote. A mask that only one of the two had changes nothing.
    """
    changed = []
    for row in read_csv(folder / "references.csv"):
        now = coverage.get(int(row["prompt_index"]))
        if now is None:
            continue
        mask = row.get("mask_sha256") or now.mask
        if set(row["sha256"].split()) != set(now.sha256) or mask != (now.mask or mask):
            changed.append(now.prompt.row)
    return sorted(changed)


def drop_outdated(
    folder: Path, coverage: Mapping[int, Coverage], fresh: Collection[Kind], claim: Claim
) -> str:
    """Removes values that compare with training images which are others now, unless they were just
    computed. Returns what is to be said of it; empty for nothing. For one who is alone.

    fresh: what was just computed.
    """
    changed = set(changed_prompts(folder, coverage))
    kept: list[Result] = []
    gone: list[Result] = []
    for row in read_results(folder) if changed else []:
        is_old = (row.quantity, row.variant) not in fresh and row.prompt_index in changed
        (gone if is_old and is_against(row.quantity, "references") else kept).append(row)
    if not gone:
        return ""
    claim.check()
    write_csv(folder / "results.csv", (row.row() for row in kept))
    names = ", ".join(dict.fromkeys(row.quantity for row in gone))
    return (
        f"the training images of {len(changed)} prompt{'s' * (len(changed) > 1)} (first: prompt "
        f"{min(changed)}) are others than at an earlier scoring: {len(gone)} older values of "
        f"{names} are taken out of results.csv; score them again"
    )
