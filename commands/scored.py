"""Detectors' scores as they were given: their files, names and settings, and whether they
compare.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memorization_suite.commands.detect_plan import look_at
from memorization_suite.detection import DETECTORS, build_detector
from memorization_suite.detection.evaluation.score_files import PromptScore
from memorization_suite.runs.nobodys import is_nobodys
from memorization_suite.runs.settings import flag_names
from memorization_suite.runs.store import Store

# Of a detection's config.json: what figures depend on beside the prompts.
COMPARED = (
    "model_id",
    "scheduler",
    "num_inference_steps",
    "guidance_scale",
    "image_length",
    "dtype",
    "n_samples_per_prompt",
)


@dataclass(frozen=True)
class Scored:
    """A detector's scores of both sets."""

    name: str
    memorized: list[PromptScore]
    ordinary: list[PromptScore]
    # Where the memorized and the ordinary prompts came from, empty if that is not known.
    sources: tuple[str, str]
    # What else is known of how the scores were made: the detector's config.json.
    config: Mapping[str, Any] = field(default_factory=dict)
    # The hash of its model, from its manifest; empty if that does not tell.
    model: str = ""


# --- files ---


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Score files of the files and folders given, each once: of a folder its scores.csv, or those
    of the folders in it. A folder without one is told on stderr. Raises ValueError for a missing
    path.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path} is not there")
        inside = [path]
        if path.is_dir():
            below = [folder for folder in path.glob("*") if not is_nobodys(folder.name)]
            stores = (folder for folder in below if (folder / "manifest.json").is_file())
            for folder in (path, *stores):
                look_at(folder)
            inside = [file for file in [path / "scores.csv"] if file.is_file()]
            inside = inside or sorted(
                file for folder in below for file in folder.glob("scores.csv")
            )
        if not inside:
            print(f"{path} holds no scores.csv: left out", file=sys.stderr)
        files |= {file.resolve(): file for file in inside}
    return list(files.values())


def names_of(files: Sequence[Path]) -> list[str]:
    """Folder name of a scores.csv, else the file's own name; with as many folders before it as tell
    the files apart, or a number.
    """
    every = []
    for file in files:
        path = file.resolve()
        named = path.parent if file.name == "scores.csv" else path.with_suffix("")
        every.append(named.parts)
    names = []
    times: Counter[str] = Counter()
    for parts in every:
        size = 1
        while size < len(parts) and sum(parts[-size:] == other[-size:] for other in every) > 1:
            size += 1
        name = printable("/".join(parts[-size:]))
        times[name] += 1
        names.append(name if times[name] == 1 else f"{name} ({times[name]})")
    return names


def printable(text: object) -> str:
    """One line of text that a terminal and a UTF-8 file can take."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def config_beside(file: Path) -> dict[str, Any]:
    """The detector's config.json beside its scores; nothing where there is none."""
    if file.name == "scores.csv":
        with suppress(OSError, ValueError):
            return Store(file.parent).config()
    return {}


def model_beside(file: Path) -> str:
    """The hash of the model in the manifest beside the scores; empty where there is none."""
    model = ""
    if file.name == "scores.csv":
        with suppress(OSError, ValueError):
            identity = (Store(file.parent).manifest() or {}).get("identity", {})
            model = str(identity.get("model_id", ""))
    return model if model.startswith("sha256 ") else ""


def source_names(config: Mapping[str, Any]) -> tuple[str, str]:
    """Prompt sources as a detector's config has them; empty where it does not say."""
    return printable(config.get("prompts", "")), printable(config.get("nonmem_prompts", ""))


# --- comparing ---


def other_prompts(detections: Sequence[Scored]) -> list[str]:
    """A warning for each detector that was not scored on the prompts of the first, as far as the
    files tell.
    """
    first = detections[0]
    return [
        f"{other.name} was not scored on the same prompts as {first.name}: their figures are not "
        "comparable"
        for other in detections[1:]
        if differ(first.memorized, other.memorized) or differ(first.ordinary, other.ordinary)
    ]


def other_settings(detections: Sequence[Scored]) -> list[str]:
    """A warning for each detector whose scores are of another model or sampler than the first's, or
    of another number of images, as far as the files tell.
    """
    first = detections[0]
    warnings = []
    for other in detections[1:]:
        differing = []
        for name in COMPARED:
            if are_alike(first, other, name):
                continue
            ours, theirs = (one.config.get(name) for one in (first, other))
            if ours == theirs:  # two models were at one place
                ours, theirs = first.model, other.model
            differing.append(f"{name} {printable(theirs)} and {printable(ours)}")
        if differing:
            warnings.append(
                f"{other.name} was not scored as {first.name} ({', '.join(differing)}): their "
                "figures are not comparable"
            )
    return warnings


def are_alike(first: Scored, other: Scored, name: str) -> bool:
    """Whether a setting of two detectors is one, or does not matter, as far as the files tell."""
    if name == "model_id" and first.model and other.model:
        return first.model == other.model
    if name == "guidance_scale" and (reads_first_step(first) or reads_first_step(other)):
        return True
    ours, theirs = first.config.get(name), other.config.get(name)
    return None in (ours, theirs) or ours == theirs


def reads_first_step(scored: Scored) -> bool:
    """Whether a detector looks at the first step alone, which does not know the guidance."""
    name = str(scored.config.get("detector", ""))
    total = scored.config.get("num_inference_steps")
    if name not in DETECTORS or not isinstance(total, int):
        return False
    own = flag_names(DETECTORS[name])
    try:
        settings = {key: value for key, value in scored.config.items() if key in own}
        detector = build_detector(name, **settings)
    except ValueError:  # of another version
        return False
    return detector.steps(total) == 1 and not detector.needs_final


def differ(ours: Sequence[PromptScore], theirs: Sequence[PromptScore]) -> bool:
    """Whether these are scores of different prompts, as far as the files tell."""
    first = sorted(score.prompt for score in ours)
    second = sorted(score.prompt for score in theirs)
    known = all(first + second)
    return first != second if known else len(first) != len(second)
