"""What runs on Stable Diffusion cost: time on a GPU, and room on a disk.

Times come from commands/speeds.toml, the sizes of downloads from download/assets.toml.
"""

from __future__ import annotations

import textwrap
import tomllib
from dataclasses import dataclass

from memorization_suite import ROOT
from memorization_suite.download.assets import named
from memorization_suite.experiments.metric_tables import assets_of
from memorization_suite.experiments.reference_tables import Rows, size_text
from memorization_suite.metrics.base import METRICS
from memorization_suite.runs.text import markdown_table

SPEEDS = ROOT / "commands" / "speeds.toml"
TITLES = {
    "no_mitigation": "no mitigation",
    "batch_wise": "batch-wise",
    "per_sample": "per-sample",
}
# What a line is of -> images.
RUNS = {"one image": 1, "10 prompts x 10 images": 100, "500 prompts x 10 images": 5000}
# Metrics of the official scripts.
OFFICIAL = ("sscd", "clip", "lpips", "image_reward")


@dataclass(frozen=True)
class Cost:
    """Of one run."""

    # Wall time of the generation alone.
    seconds: float
    # Of its images without compression: an upper bound.
    bytes: int


def cost(method: str, images: int) -> Cost:
    """What so many images of a method cost. Raises KeyError for one that was not measured."""
    speeds = tomllib.loads(SPEEDS.read_text(encoding="utf-8"))
    measured = speeds["measured"]
    seconds = speeds["seconds"][method] * images / measured["images"]
    return Cost(seconds=seconds, bytes=images * 3 * measured["pixels"] ** 2)


def update_seconds() -> float:
    """Of one more update of an image by the per-sample method."""
    speeds = tomllib.loads(SPEEDS.read_text(encoding="utf-8"))
    measured = speeds["measured"]
    more = speeds["seconds"]["per_sample"] - speeds["seconds"]["no_mitigation"]
    return more / measured["images"] / measured["updates"]


def download_size() -> int:
    """Bytes of the checkpoints of the official scripts' metrics."""
    names = {name for metric in OFFICIAL for name in assets_of(METRICS[metric])}
    return sum(named(name).size for name in names)


def time_text(seconds: float) -> str:
    """`0.35 s`, `35 s`, `29 min`, `2.3 h`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def rows() -> Rows:
    """A line for each number of images."""
    made = []
    for title, images in RUNS.items():
        costs = {name: cost(method, images) for method, name in TITLES.items()}
        size = next(iter(costs.values())).bytes
        made.append(
            {
                "a run of": title,
                **{name: time_text(each.seconds) for name, each in costs.items()},
                "images on disk, at most": size_text(size),
            }
        )
    return made


def sd_cost() -> str:
    """The README's table of what Stable Diffusion costs, and what it is of."""
    speeds = tomllib.loads(SPEEDS.read_text(encoding="utf-8"))
    measured = speeds["measured"]
    counted = speeds["counted_mib"]
    times = (
        f"Time of generation alone, without scoring, on {measured['device']}: "
        f"{measured['model']}, {measured['dtype']}, {measured['pixels']} pixels, "
        f"{measured['steps']} steps, {measured['images']} images of a prompt together, median of "
        f"{measured['repeats']}; per-sample with {measured['updates']} updates an image, each "
        f"further one takes about {update_seconds():.2f} s; --optim_iters caps them. It was "
        "measured before its gradients saved memory, which adds a pass through the network to an "
        "update."
    )
    memory = (
        f"GPU memory, counted from shapes: {counted['no_mitigation'] / 1024:.1f} GiB, per-sample "
        f"{counted['per_sample'] / 1024:.1f} GiB. --memory_budget 8 plans to stay within 8 GiB."
    )
    downloads = (
        f"Downloads: the model {size_text(named('sd14').size)}, the checkpoints of the official "
        f"metrics {size_text(download_size())}, the prompt file "
        f"{size_text(named('memorized_laion_prompts').size)}."
    )
    lines = [textwrap.fill(text, 118) for text in (times, memory, downloads)]
    return "\n".join([markdown_table(rows()), *lines]) + "\n"


COST_PARTS = {"sd_cost": sd_cost}
