"""What would have been faster: figures of a GPU in commands/speeds.toml, said beside a run."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import Any

from memorization_suite import ROOT
from memorization_suite.runs.progress import duration_text

# What is gained by less is not worth a line.
WORTH = 1.1
# Rows in flight beyond which little is gained.
ENOUGH = 64
# Guidance runs every image with and without its prompt.
HALVES = 2


@cache
def speeds() -> dict[str, Any]:
    """commands/speeds.toml."""
    return tomllib.loads((ROOT / "commands" / "speeds.toml").read_text(encoding="utf-8"))


def measured_on() -> str:
    """What the figures are of, as the end of a sentence."""
    measured = speeds()["measured"]
    model = measured["model"].partition("'s")[0]
    return f"as {model} at {measured['pixels']} pixels on {measured['device']}"


def rows_per_second(rows: int) -> float:
    """Of the UNet with so many rows in flight, between measured points by straight lines."""
    table = {int(count): float(speed) for count, speed in speeds()["rows_per_second"].items()}
    points = sorted(table)
    if rows <= points[0]:
        return table[points[0]] * rows / points[0]
    for low, high in zip(points, points[1:]):
        if rows <= high:
            share = (rows - low) / (high - low)
            return table[low] + share * (table[high] - table[low])
    return table[points[-1]]


def batch_size_hint(batch_size: int, samples: int, prompts: int, limit: int | None = None) -> str:
    """What a larger --batch_size would bring; empty when that is little.

    samples: images of a prompt. prompts: that there are. limit: rows in a pass; None: no limit.
    """
    rows = HALVES * batch_size * samples
    best = max(point for point in map(int, speeds()["rows_per_second"]) if point <= ENOUGH)
    if limit is not None:
        best = min(best, limit)
    larger = min(prompts, best // (HALVES * samples))
    if larger <= batch_size:
        return ""
    gain = rows_per_second(HALVES * larger * samples) / rows_per_second(rows)
    if gain < WORTH:
        return ""
    return f"--batch_size {larger} would be about {gain:.2g} times as fast ({measured_on()})"


def compile_hint(seconds: float) -> str:
    """What --compile would have brought to a run of so many seconds; empty when that is little."""
    figures = speeds()["compile"]
    compiled = figures["seconds"] + figures["factor"] * seconds
    if seconds / compiled < WORTH:
        return ""
    return (
        f"--compile would have taken about {duration_text(compiled)} instead of "
        f"{duration_text(seconds)} ({measured_on()})"
    )


def measured_seconds(network: float, backward: float, *, rows: int, pixels: int) -> float:
    """Of an image on the GPU of the figures, with decoding.

    network, backward: its NFE, and backward passes. rows: of a guided step, in flight. pixels: its
    side.
    """
    measured = speeds()["measured"]
    images = measured["images"]
    updates = measured["updates"]
    seconds = speeds()["seconds"]
    guided = HALVES * measured["steps"]
    each = seconds["no_mitigation"] / images / guided
    gradients = seconds["per_sample"] / images - each * (guided + HALVES * updates)
    slower = rows_per_second(measured["rows"]) / rows_per_second(rows)
    larger = (pixels / measured["pixels"]) ** speeds()["size"]["power"]
    return slower * larger * (network * each + backward * gradients / updates)


def speed_sources(pixels: int, backward: float) -> list[str]:
    """What is said beside such a number."""
    measured = speeds()["measured"]
    model = measured["model"].partition(" with ")[0]
    said = [
        f"seconds: of {measured['device']}, {model}, {measured['dtype']}, not measured here; "
        "scaled by NFE"
    ]
    if pixels != measured["pixels"]:
        said.append(f"{pixels} pixels: from {measured['pixels']} by counted multiplications")
    if backward:
        said.append(
            "gradients: as measured before they saved memory, which adds a pass through the "
            "network to each"
        )
    return said
