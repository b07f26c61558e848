"""What a metric is: numbers of each prompt's images. Its flags, its checkpoint and what its numbers
mean are declared beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from memorization_suite.download.assets import hint
from memorization_suite.metrics.checkpoints import Checkpoint
from memorization_suite.metrics.runs import GROUND_TRUTH, Run
from memorization_suite.metrics.scores import Score
from memorization_suite.prompts.flags import caption_column
from memorization_suite.runs.digits import exact_text
from memorization_suite.runs.environment import choose_device, set_tf32
from memorization_suite.runs.registry import Registry
from memorization_suite.runs.settings import (
    Settings,
    flag,
    flag_names,
    frozen_settings,
)

Made = TypeVar("Made")
M = TypeVar("M", bound="Metric")


@dataclass(frozen=True)
class Quantity:
    """What some of a metric's numbers mean: a name in results.csv."""

    name: str
    # Which values one wants: lower or higher.
    better: str
    # What it is an axis of: copy, alignment, diversity, quality, change. Empty: a detail of tables.
    role: str = ""
    # Scores of at least so much mean a copy (`intervals.is_copy`), the strictest last.
    thresholds: tuple[float, ...] = ()
    # What the official script prints before the figure; empty: nothing.
    title: str = ""
    # What it compares images with, where that is not what all of its metric does.
    against: str = ""
    # Of a yes or no (1 or 0): what a yes says.
    yes: str = ""
    # For the documents: what it is, and its variant with the default flags.
    what: str = ""
    variant: str = ""

    def __post_init__(self) -> None:
        if list(self.thresholds) != sorted(self.thresholds):
            raise ValueError(f"the thresholds of {self.name} do not rise: {self.thresholds}")


# --- what is scored


@frozen_settings
class Scoring(Settings):
    """The flags of all scripts that score a run."""

    gen_folder: Path = flag(MISSING, "run folder with img_PPPP_SS.png", alias="-f")
    prompts: Path | None = flag(
        None, "prompt file of the run (default: the one that the run names)", alias="-p"
    )
    caption_column: str = caption_column()
    num_samples: int | None = flag(
        None,
        "score the first so many images of each prompt (default: all)",
        at_least=1,
        metavar="N",
    )
    gt_folder: Path | None = flag(
        None,
        f"training images, <folder>/<Index>/*.png (default {GROUND_TRUTH}, or the embedded "
        "model's)",
    )
    masks: Path | None = flag(
        None,
        "<Index>.png, white where a prompt's image was memorized (default: the embedded model's)",
    )
    unmitigated: Path | None = flag(
        None, "run folder without mitigation, of the same prompts and seed"
    )
    incomplete: bool = flag(False, "score the images of an unfinished run")
    shard: str = flag(
        "",
        "only chunks of prompts I, I+N, I+2N, ...: the last of N commands writes the tables",
        metavar="I/N",
    )
    quiet: bool = flag(False, "no progress, and no line on what comes next")
    device: str = flag("", "default: cuda if there is one")
    batch_size: int = flag(32, "images at once through a network", at_least=1, metavar="N")
    require: tuple[str, ...] = flag(
        (), "exit with code 2 when one of these cannot be computed", metavar="METRIC"
    )


@dataclass(frozen=True)
class Job:
    """What is scored: a run, with what belongs to its prompts, and the networks that do it."""

    settings: Scoring
    # Flags of metrics, by name.
    typed: Mapping[str, Any]
    run: Run
    # Of the training images; it need not be there.
    gt_folder: Path
    # None: it is not known where prompts' images were memorized.
    masks: Path | None = None
    # The run of equal seeds to compare with.
    unmitigated: Run | None = None
    # What `network` loaded.
    networks: dict[tuple, Any] = field(default_factory=dict)

    @cached_property
    def device(self) -> str:
        """Where the networks run. Raises ValueError for a device that is not there."""
        return choose_device(self.settings.device)

    def metric(self, kind: type[M]) -> M:
        """A metric with its flags as they were typed. Raises ValueError for a wrong one."""
        names = flag_names(kind)
        return kind(**{name: value for name, value in self.typed.items() if name in names})

    def network(self, load: Callable[..., Made], *files: Path, **options: Any) -> Made:
        """The network, which is loaded once. Raises ValueError for a file that is no checkpoint.

        options: of `load`, beside device and batch_size.
        """
        key = (load, *files, *options.items())
        if key not in self.networks:
            set_tf32(False)
            usual = {"device": self.device, "batch_size": self.settings.batch_size}
            self.networks[key] = load(*files, **options, **usual)
        return self.networks[key]


# --- metrics


def setting_text(value: Any) -> str:
    """A setting in a variant's name: two settings are two names."""
    return exact_text(value) if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Metric(Settings, Score):
    """A metric's settings, and the scores that it makes of them.

    One that gives `values` is a score itself, of the quantity by its own name; its variant are its
    settings. Others give `scores`.
    """

    name: ClassVar[str]
    quantities: ClassVar[tuple[Quantity, ...]]
    # What images are compared with: references, unmitigated, or nothing.
    against: ClassVar[str]
    # Metrics whose networks it uses, and so their flags.
    uses: ClassVar[tuple[str, ...]]

    @property
    def variant(self) -> str:  # type: ignore[override]
        """Its settings as a name."""
        values = self.named_values().items()
        return "_".join(f"{name}{setting_text(value)}" for name, value in values) or self.name

    def checkpoints(self, job: Job) -> list[Checkpoint]:
        """What is loaded. Raises ValueError when a flag names a file that is not there."""
        return []

    def scores(self, job: Job) -> list[Score]:
        """What is computed of a run for which all files are there; nothing where it means nothing.

        Raises ValueError for a file that is no checkpoint.
        """
        return [self]

    def partly(self, job: Job) -> dict[str, str]:
        """What of it cannot be computed -> why."""
        return {}

    def missing(self, job: Job) -> str:
        """Which of its files are not there, and what gets them; empty when all are."""
        lines = [checkpoint.missing for checkpoint in self.checkpoints(job)]
        if self.against == "references" and not job.gt_folder.exists():
            fetch = hint("sdv1_500_mem_groundtruth")
            lines.append(
                f"there are no training images in {job.gt_folder}: {fetch}, or give --gt_folder"
            )
        return "; ".join(filter(None, lines))

    @classmethod
    def figure(cls, by_prompt: Sequence[Sequence[float]]) -> str:
        """What stands behind the title of a quantity: the mean over prompts of their means."""
        return f"{statistics.mean(map(statistics.mean, by_prompt)):.6g}"


METRICS: Registry[Metric] = Registry("metric", "metrics")


def register(
    name: str,
    *quantities: Quantity,
    against: str = "",
    uses: tuple[str, ...] = (),
    **meaning: Any,
) -> Callable[[type], type[Metric]]:
    """Class decorator: makes frozen settings of the metric and lists it under `name`.

    quantities: what it yields; by default one of the metric's name with this meaning, the fields of
    `Quantity`.
    """
    yields = quantities or (Quantity(name, **meaning),)
    return METRICS.register(name, quantity=name, quantities=yields, against=against, uses=uses)


def quantity_named(name: str) -> Quantity | None:
    """What is known of a quantity in results.csv; None when no metric declares it."""
    for metric in METRICS.values():
        for quantity in metric.quantities:
            if quantity.name == name:
                return quantity
    return None


def is_against(name: str, what: str) -> bool:
    """Whether a quantity in results.csv compares images with this, such as references."""
    for metric in METRICS.values():
        for quantity in metric.quantities:
            if quantity.name == name:
                return what in (quantity.against or metric.against)
    return False


def quantities_of(role: str) -> list[Quantity]:
    """The quantities of a role, those of the official scripts first."""
    every = [quantity for metric in METRICS.values() for quantity in metric.quantities]
    chosen = [quantity for quantity in every if quantity.role == role]
    return sorted(chosen, key=lambda quantity: not quantity.title)
