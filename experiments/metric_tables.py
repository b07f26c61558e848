"""What the registry of metrics says, as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from memorization_suite.commands.distances import networks
from memorization_suite.metrics.base import METRICS, Job, Metric, Quantity, Scoring
from memorization_suite.metrics.checkpoints import Checkpoint
from memorization_suite.metrics.scripts import CHANGE, COPIES, PREFERENCE
from memorization_suite.runs.settings import flags, number_text
from memorization_suite.runs.text import markdown_table

# A job without a run: enough to ask which files a metric loads.
JOB = Job(Scoring(gen_folder=Path("run")), typed={}, run=SimpleNamespace(), gt_folder=Path("gt"))  # type: ignore[arg-type]
# What images are compared with.
AGAINST = {"references": "training images", "unmitigated": "unmitigated run", "": ""}
# What compute_fid.py computes: features -> (checkpoint, what the two distances are).
DISTANCES = {
    "fid": ("inception_v3", "Inception features, images resized as clean-fid does"),
    "clip_fid": ("clip_vit_b_32_openai", "features of OpenAI's CLIP"),
    "features": ("", "ImageNet features of EfficientNet-lite0; no FID, and not called so"),
}


def scripts() -> str:
    """The scripts that score a run, and what they compute."""
    rows = []
    for script in (COPIES, PREFERENCE, CHANGE):
        rows.append({"script": f"`{script.name}`", "metrics": words(script.metrics)})
    rows.append({"script": "`compute_fid.py`", "metrics": words(DISTANCES)})
    return markdown_table(rows)


def quantities() -> str:
    """What every number is, and which values one wants."""
    rows = []
    for metric in METRICS.values():
        for quantity in metric.quantities:
            rows.append(quantity_row(metric.name, quantity))
    unknown = Checkpoint(None, "", "")
    for name, network in networks(unknown, unknown).items():
        for quantity, distance in ((network.frechet, "Fréchet"), (network.kernel, "kernel")):
            what = f"{distance} distance of {DISTANCES[name][1]}"
            rows.append(quantity_row(name, Quantity(quantity, better="lower", what=what)))
    return markdown_table(rows)


def quantity_row(metric: str, quantity: Quantity) -> dict[str, str]:
    """A line of the table."""
    return {
        "quantity": f"`{quantity.name}`",
        "metric": f"`{metric}`",
        "better": quantity.better,
        "copy from": ", ".join(map(number_text, quantity.thresholds)),
        "what it is": quantity.what,
    }


def variants() -> str:
    """The variant of each number with the default flags, and what it needs."""
    rows = []
    for metric in METRICS.values():
        for quantity in metric.quantities:
            rows.append(
                {
                    "quantity": f"`{quantity.name}`",
                    "compared with": AGAINST[metric.against],
                    "checkpoint": words(assets_of(metric)) or "none",
                    "variant by default": f"`{quantity.variant}`",
                }
            )
    return markdown_table(rows)


def assets_of(metric: type[Metric]) -> list[str]:
    """The assets that a metric loads."""
    return [checkpoint.asset for checkpoint in metric().checkpoints(JOB)]


def choices() -> str:
    """The flags that choose another variant."""
    rows = []
    for name, metric in METRICS.items():
        for option in flags(metric):
            chosen = option.metadata["choices"]
            values = words([option.default, *(each for each in chosen if each != option.default)])
            if not chosen:
                values = str(option.metadata["help"])
            rows.append({"metric": f"`{name}`", "flag": f"`--{option.name}`", "values": values})
    return markdown_table(rows)


def words(names: Any) -> str:
    """Names in the form of code."""
    return ", ".join(f"`{name}`" for name in names)


METRIC_PARTS: dict[str, Callable[[], str]] = {
    "metric_scripts": scripts,
    "metric_quantities": quantities,
    "metric_variants": variants,
    "metric_flags": choices,
}
