"""A memorization score for every image of a prompt set, by one detector or several."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from memorization_suite.commands.captions import cut_of_sets
from memorization_suite.commands.detect_plan import SCRIPT, DetectionPlan, Request, ScoreFolder
from memorization_suite.commands.detection_job import Job
from memorization_suite.commands.machine import (
    choose_memory,
    limits_of,
    memory_facts,
    say_derivatives,
    use_machine,
)
from memorization_suite.commands.room import bytes_in, bytes_of_scores, check_room
from memorization_suite.commands.settings import at_work, command_words, load_model, say_preset
from memorization_suite.detection.evaluation.summary import highest, report_line
from memorization_suite.runs.library_warnings import hearing
from memorization_suite.runs.notebook import text_html
from memorization_suite.runs.store import beginning
from memorization_suite.runs.text import counted
from memorization_suite.sampling.denoiser import Denoiser


@dataclass(frozen=True, repr=False)
class Detections:
    """Scores that were made, or were there already."""

    plan: DetectionPlan
    # By the detector's name.
    folders: dict[str, ScoreFolder]

    @cached_property
    def closed(self) -> bool:
        """Whether all scores are there; of a piece, those of the other pieces too."""
        return all(folder.is_finished() for folder in self.folders.values())

    @property
    def following(self) -> list[str]:
        """What one would type next: of one detector a threshold, of several how they compare;
        without ordinary prompts images of these prompts with a mitigation. Nothing yet of a piece.
        """
        settings = self.plan.settings
        if not self.closed:
            return []
        folders = [str(folder.path) for folder in self.folders.values()]
        if "nonmem" not in self.plan.sets:
            typed = {name: getattr(settings, name) for name in ("model_id", "prompts")}
            return command_words("generate_images.py", {**typed, "method": "per_sample"}, Request)
        if len(folders) == 1:
            return ["python", SCRIPT, "calibrate", "threshold", *folders]
        return ["python", SCRIPT, "evaluate", *folders]

    @cached_property
    def summary(self) -> str:
        """Where each detector's scores are, and how well they tell the sets apart; of one set the
        prompts with the largest means.
        """
        lines = []
        if not self.closed:
            made = sum(len(prompts) for _, prompts in self.plan.batches())
            places = ", ".join(str(folder.path) for folder in self.folders.values())
            return (
                f"{made} prompts of piece {self.plan.shard} in {places} (other pieces are not made "
                "yet)"
            )
        for folder in self.folders.values():
            table = folder.path / "scores.csv"
            more = len(folder.scored()) - sum(self.plan.asked.values())
            beyond = f" (with {counted(more, 'prompt')} beyond --end)" if more > 0 else ""
            lines.append(f"{table}: {report_line(table)}{beyond}")
            if "nonmem" not in self.plan.sets:
                lines += highest(table)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        return text_html(self.summary)


def check_before(plan: DetectionPlan, folders: Mapping[str, ScoreFolder]) -> None:
    """Raises ValueError for damaged tables, and for a disk that has no room."""
    settings = plan.settings
    wanted = {(name, prompt.row) for name, prompts in plan.batches() for prompt in prompts}
    missing = {}
    for name, folder in folders.items():
        there: set[tuple[str, int]] = set()
        if not settings.overwrite:
            folder.check_tables()
            there = folder.scored(settings.n_samples_per_prompt)
        missing[name] = wanted - there
    size = bytes_of_scores(plan, missing)
    freed = sum(bytes_in(folder.path) for folder in folders.values()) if settings.overwrite else 0
    check_room(Path(settings.output_path), size, "the scores and masks", freed=freed)


@hearing
def detect(plan: DetectionPlan, *, load: Callable | None = None) -> Detections:
    """Makes the scores that are missing in the detectors' folders.

    load: in the place of `load_pipeline`, for several runs of one model. Raises ValueError for what
    the user can mend, before a folder is changed.
    """
    for name, reason in plan.left_out.items():
        print(f"left out of all: {name} {reason}", file=sys.stderr)
    folders = {detector.name: plan.folder(detector) for detector in plan.detectors}
    with beginning(folders.values()):
        model = begin(plan, folders, load)
    job = Job(plan, folders, model)
    with at_work():
        job.go()
    return Detections(plan, folders)


def begin(
    plan: DetectionPlan, folders: Mapping[str, ScoreFolder], load: Callable | None
) -> Denoiser:
    """The model, then the folders, which are changed last. Raises ValueError."""
    settings = plan.settings
    for detector in plan.detectors:
        folders[detector.name].prepare(plan.identity(detector), overwrite=settings.overwrite)
    check_before(plan, folders)
    say_preset(f"detector {settings.detector}", plan.preset, settings)
    say_derivatives(plan.detectors, settings.dtype)
    model = load_model(settings, load, dtype=settings.dtype)
    going_on = [] if settings.overwrite else list(folders.values())
    memory = choose_memory(model, settings, gradients=False, stores=going_on)
    use_machine(model, settings, memory, max(map(len, plan.sets.values())))
    cut = cut_of_sets(model, plan.sets)
    for detector in plan.detectors:
        folders[detector.name].start(
            plan.identity(detector),
            overwrite=settings.overwrite,
            config=plan.config(detector),
            asked=plan.asked,
            **memory_facts(settings, memory),
            **cut,
        )
    for folder in folders.values():  # another piece may have begun first
        model.limits = limits_of((folder.manifest() or {})["memory"])
    return model
