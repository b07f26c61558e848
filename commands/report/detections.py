"""What a page tells of detectors: figures by kind, errors that all make, masks, their origin."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from memorization_suite.commands.detect_plan import ScoreFolder, look_at
from memorization_suite.commands.evaluate import EvaluationSettings, rows_of
from memorization_suite.commands.report.details import Origin
from memorization_suite.commands.report.gather import WITHIN, Listings
from memorization_suite.commands.scored import (
    Scored,
    model_beside,
    names_of,
    other_prompts,
    other_settings,
    source_names,
)
from memorization_suite.detection.evaluation.score_files import (
    SETS,
    PromptScore,
    read_images,
    read_scores,
)
from memorization_suite.detection.evaluation.summary import finite, scores_of, warnings_of
from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.prompts.sets import is_hub
from memorization_suite.runs.lazy import np
from memorization_suite.runs.marks import number_of
from memorization_suite.runs.parse import json_of


@dataclass(frozen=True)
class Detection:
    """One detector's scores."""

    folder: Path
    scored: Scored
    # Of `evaluate`: all prompts, then each type.
    rows: list[dict]
    origin: Origin
    # Row of a memorized prompt -> its type.
    types: Mapping[int, str] = field(default_factory=dict)
    # NFE of an image, of the detector by itself; None where it is not known.
    nfe: float | None = None
    # A score of at least so much is called memorized: with the best accuracy on these scores. None
    # without two sets.
    threshold: float | None = None
    # Stem of a picture with a mask over it, such as mem_0003_00 -> the file.
    overlays: Mapping[str, Path] = field(default_factory=dict)
    # (set, row of the prompt) -> sample -> score of the image.
    images: Mapping[tuple[str, int], Mapping[int, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.scored.name

    @property
    def detector(self) -> str:
        """The detector itself, as one types it; empty where nothing says it."""
        return str(self.scored.config.get("detector") or "")

    @property
    def has_both(self) -> bool:
        """Whether there are finite scores of both sets."""
        return self.threshold is not None

    def sets(self) -> Iterator[tuple[str, PromptScore]]:
        """Every prompt's score with its set."""
        for name, scores in zip(SETS, (self.scored.memorized, self.scored.ordinary)):
            for score in scores:
                yield name, score


# --- finding


def find_detections(folder: Path, listings: Listings) -> list[Path]:
    """Folders of detectors' scores: the given one, or all below it, by name."""
    own = folder.resolve()
    return sorted(detections_below(own, listings)) if own.is_dir() else []


def detections_below(folder: Path, listings: Listings) -> Iterator[Path]:
    """The same in any order."""
    names, folders = listings.of(folder)
    if "manifest.json" in names:
        if "scores.csv" in names and is_detection(folder / "manifest.json"):
            yield folder
            return
        folders = [below for below in folders if below.name not in WITHIN]
    for below in folders:
        yield from detections_below(below, listings)


def is_detection(manifest: Path) -> bool:
    """Whether this manifest is a detector's."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return "detector" in json_of(manifest.read_text(encoding="utf-8"))["identity"]
    return False


# --- reading


def read_detections(folders: Sequence[Path]) -> list[Detection]:
    """Everything that the folders say. Raises ValueError for a damaged one."""
    names = names_of([folder / "scores.csv" for folder in folders])
    return [read_detection(folder, name) for folder, name in zip(folders, names)]


def read_detection(folder: Path, name: str) -> Detection:
    """One detector. Raises ValueError."""
    look_at(folder)
    store = ScoreFolder(folder)
    sets = read_scores(folder / "scores.csv")
    config = store.config()
    scored = Scored(
        name,
        sets.get("mem", []),
        sets.get("nonmem", []),
        source_names(config),
        config,
        model_beside(folder / "scores.csv"),
    )
    prompts = prompts_of(scored)
    settings = EvaluationSettings()
    if prompts:
        settings = EvaluationSettings(by="type", prompts=Path(scored.sources[0]))
    overlays = sorted((folder / "overlays").glob("*.png"))
    return Detection(
        folder,
        scored,
        rows_of(scored, settings, prompts or None),
        Origin.of(store, config, ()),
        types={prompt.row: prompt.type for prompt in prompts},
        nfe=nfe_of(store, scored),
        threshold=best_threshold(scored),
        overlays={path.stem: path for path in overlays},
        images=images_of(folder) if overlays else {},
    )


def images_of(folder: Path) -> dict[tuple[str, int], dict[int, float]]:
    """Scores of single images. Raises ValueError."""
    images = read_images(folder / "scores.csv")
    return {(name, row): scores for (name, row, _), scores in images.items()}


def prompts_of(scored: Scored) -> list[Prompt]:
    """The memorized prompts with their types, where the file is there, has types, and is what was
    scored.
    """
    source = scored.sources[0]
    if not source or is_hub(source) or not Path(source).is_file():
        return []
    with suppress(ValueError):
        prompts = read_prompts(Path(source), str(scored.config.get("caption_column", "")))
        captions = {prompt.row: prompt.caption.strip() for prompt in prompts}
        is_same = all(captions.get(each.row) == each.prompt.strip() for each in scored.memorized)
        if is_same and any(prompt.type for prompt in prompts):
            return prompts
    return []


def nfe_of(store: ScoreFolder, scored: Scored) -> float | None:
    """Mean NFE of an image."""
    images = number_of(str(scored.config.get("n_samples_per_prompt", "")))
    counts = [number_of(row.get("unet_rows")) for row in store.rows("cost")]
    known = [count for count in counts if count is not None]
    return statistics.fmean(known) / images if known and images else None


def best_threshold(scored: Scored) -> float | None:
    """The threshold of the largest accuracy, 1 - (FPR + FNR) / 2; of equal ones the highest."""
    memorized, ordinary = (finite(scores_of(each)) for each in (scored.memorized, scored.ordinary))
    if not len(memorized) or not len(ordinary):
        return None
    thresholds = np.unique(np.concatenate([memorized, ordinary]))[::-1]
    hits = (memorized[None] >= thresholds[:, None]).mean(1)
    alarms = (ordinary[None] >= thresholds[:, None]).mean(1)
    return float(thresholds[(hits - alarms).argmax()])


def remarks_on(detections: Sequence[Detection]) -> list[str]:
    """What a reader must know before believing or comparing the figures."""
    scored = [detection.scored for detection in detections]
    remarks = [*other_prompts(scored), *other_settings(scored)] if scored else []
    for detection in detections:
        remarks += [f"{detection.name}: {text}" for text in warnings_of(detection.rows[0])]
    return remarks


# --- errors


@dataclass(frozen=True)
class Mistake:
    """A prompt that every detector gets wrong."""

    # `memorized` or `ordinary`.
    kind: str
    type: str
    row: int
    caption: str
    # By detector.
    scores: tuple[float, ...]


def mistakes(detections: Sequence[Detection]) -> list[Mistake]:
    """Prompts that every detector with two sets gets wrong by its own threshold, the memorized ones
    first.
    """
    judged = [detection for detection in detections if detection.has_both]
    if not judged:
        return []
    wrong = [wrong_of(detection) for detection in judged]
    common = set.intersection(*(set(each) for each in wrong))
    found = []
    for name, row, caption in sorted(common):
        scores = tuple(each[name, row, caption] for each in wrong)
        of_type = judged[0].types.get(row, "") if name == "mem" else ""
        found.append(Mistake(SETS[name], of_type, row, caption, scores))
    return found


def wrong_of(detection: Detection) -> dict[tuple[str, int, str], float]:
    """(set, row, caption) -> score, of prompts on the wrong side of the threshold. Scores that are
    not finite are left out, as of the figures.
    """
    threshold = detection.threshold
    return {
        (name, score.row, score.prompt): score.score
        for name, score in detection.sets()
        if threshold is not None
        and math.isfinite(score.score)
        and (score.score >= threshold) != (name == "mem")
    }
