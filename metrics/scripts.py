"""What the scripts that score a run have in common."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, ClassVar

from memorization_suite.metrics.checkpoints import Needs
from memorization_suite.metrics.runs import GROUND_TRUTH, Run
from memorization_suite.metrics.scores import Score
from memorization_suite.metrics.summary import prompt_means
from memorization_suite.runs.settings import Settings, flag, frozen_settings
from memorization_suite.runs.table import Result


@frozen_settings
class Scoring(Settings):
    """The flags of all scripts that score a run."""

    gen_folder: Path = flag(MISSING, "run folder with img_PPPP_SS.png", alias="-f")
    prompts: Path | None = flag(
        None, "prompt file of the run (default: the one that the run names)", alias="-p"
    )
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
    incomplete: bool = flag(False, "score the images of an unfinished run")
    quiet: bool = flag(False, "no progress bar")
    device: str = flag("", "default: cuda if there is one")
    batch_size: int = flag(32, "images at once through a network", at_least=1, metavar="N")
    require: tuple[str, ...] = flag(
        (), "exit with code 2 when one of these cannot be computed", metavar="METRIC"
    )


@dataclass(frozen=True)
class Job:
    """What is scored: a run, with what belongs to its prompts."""

    # As typed.
    settings: Scoring
    run: Run
    # Of the training images; it need not be there.
    gt_folder: Path
    # None: it is not known where prompts' images were memorized.
    masks: Path | None


class Script:
    """A group of metrics that are computed together. It is made for one run.

    flags: the script's own ones, besides those of all scripts. Raises ValueError when a flag names
    a file that is not there.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    flags: ClassVar[type[Settings]]
    metrics: ClassVar[tuple[str, ...]]
    # Whether it compares with the training images, and so takes --masks.
    references: ClassVar[bool] = True
    # The official scripts' lines: title -> quantity whose mean follows it.
    titles: ClassVar[Mapping[str, str]] = {}

    def __init__(self, flags: Any, job: Job):
        self.settings = flags
        self.job = job

    def needs(self) -> Needs:
        """What each metric needs."""
        raise NotImplementedError

    def scores(self, metrics: Collection[str], options: dict[str, Any]) -> dict[str, list[Score]]:
        """The scores of the metrics. options: device and batch_size of the networks.

        Raises ValueError for a file that is no checkpoint.
        """
        raise NotImplementedError

    def partly(self, metrics: Collection[str]) -> dict[str, str]:
        """What these metrics have no score for -> why."""
        return {}

    @classmethod
    def headlines(cls, results: list[Result]) -> list[str]:
        """Lines to print first: means over images and then prompts of what was computed."""
        lines = []
        for title, quantity in cls.titles.items():
            means = prompt_means(row for row in results if row.quantity == quantity)
            if means:
                lines.append(f"{title}{statistics.mean(means.values()):.6g}")
        return lines
