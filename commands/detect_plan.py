"""What a detection will be: its flags, and all checks that need no model."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from memorization_suite.commands.machine import derivatives, rounding
from memorization_suite.commands.settings import (
    QUIET,
    SHARD,
    Sampling,
    check_model,
    check_shard,
    command_line,
    fill,
    on_device,
    prompt_sets,
    sized,
    split,
)
from memorization_suite.detection import DETECTORS, Detector, build_detector
from memorization_suite.detection.evaluation.overlay import overlay
from memorization_suite.detection.evaluation.score_files import SETS
from memorization_suite.pipelines.fingerprints import fingerprint
from memorization_suite.pipelines.models import load_preset
from memorization_suite.prompts.files import Prompt
from memorization_suite.prompts.flags import FORMATS, HUB_SET
from memorization_suite.prompts.sets import (
    FOLDER,
    captions_hash,
    hashes_of_first,
    read_local,
    read_sample,
)
from memorization_suite.runs.batches import Row
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.growth import Growing
from memorization_suite.runs.identity import Content
from memorization_suite.runs.lazy import np
from memorization_suite.runs.places import check_names
from memorization_suite.runs.plugins import plugins_of
from memorization_suite.runs.settings import (
    again,
    flag,
    flag_names,
    flag_owners,
    frozen_settings,
    identity_of,
    plain_values,
    unkeyed,
    unknown_name,
)
from memorization_suite.runs.shards import InPieces
from memorization_suite.runs.store import Store
from memorization_suite.runs.tables import Fault, cell, shown, whole
from memorization_suite.runs.whole import Check, There, array_fault, ends_fault, faults_of

SCRIPT = "detect_memorization.py"
# Set of prompts -> the flag that gives it.
FLAGS = {"mem": "prompts", "nonmem": "nonmem_prompts"}


@frozen_settings
class Detection(Sampling):
    """The flags that say what is scored."""

    prompts: str = again(
        Sampling,
        "prompts",
        text=f"prompts that are looked at: {FORMATS}, or {HUB_SET}",
    )
    n_samples_per_prompt: int = again(Sampling, "n_samples_per_prompt", default=4, preset=False)
    guidance_scale: float = again(
        Sampling, "guidance_scale", default=7.5, preset=False, text="guidance of the trajectory"
    )
    seed: int = again(Sampling, "seed", default=0)
    batch_size: int = again(Sampling, "batch_size", preset=False, changes_result=False)
    nonmem_prompts: str = unkeyed(
        "", f"ordinary prompts to compare with: a file or {HUB_SET}", metavar="FILE"
    )
    nonmem_count: int = flag(
        500,
        "prompts drawn from a hub data set",
        at_least=1,
        at_most=10**7,
        preset=False,
        metavar="N",
    )
    end: int | None = unkeyed(
        None, "row after the last prompt of each set", at_least=1, at_most=10**9, metavar="ROW"
    )
    rng: str = flag(
        "per_image",
        "per_image: a seed for each image; official: the same draws for every prompt",
        choices=("per_image", "official"),
        preset=False,
    )
    output_path: str = unkeyed("detections", "folder of all detectors' scores", metavar="FOLDER")


@frozen_settings
class Request(Detection):
    """All that can be asked of detect_memorization.py, but for the flags of the detectors."""

    detector: str = unkeyed(
        "noise_norm", "all, or some of those of --list_detectors, joined by commas", metavar="NAME"
    )
    preset: str = unkeyed(
        "auto",
        "values for flags that were not typed (auto: the model's own; none: defaults)",
        metavar="{auto,none,FILE}",
    )
    save_masks: bool = unkeyed(
        False, "also write the masks of spatial detectors, as arrays and over the images"
    )
    shard: str = unkeyed("", SHARD, metavar="I/N")
    overwrite: bool = unkeyed(False, "start over instead of going on")
    quiet: bool = unkeyed(False, QUIET)


def prompt_of(row: Row) -> tuple[str, int]:
    """The set and the row of the prompt that a row is about; `mem` sorts before `nonmem`."""
    name = cell(row, "set")
    if name not in SETS:
        raise Fault(f"the set {shown(name)} is neither {' nor '.join(SETS)}")
    return name, whole(row, "prompt_index")


class ScoreFolder(Store):
    """`scores.csv`, `cost.csv`, `masks/`, `overlays/` of one detector.

    A batch is saved whole: masks first, then its rows, which mark it as done.
    """

    files = ("masks", "overlays")
    tables = {"cost": prompt_of, "scores": prompt_of}
    numbers = {
        "cost": ("images", "unet_rows", "pass_unet_rows", "pass_seconds"),
        "scores": ("sample_index", "score"),
    }

    def is_whole(self, asked: dict[str, int]) -> bool:
        """Whether every prompt of every set has its scores."""
        wanted = {(name, row) for name, count in asked.items() for row in range(count)}
        return self.scored().issuperset(wanted)

    def scored(self, samples: int | None = None) -> set[tuple[str, int]]:
        """The prompts that have the scores of so many images, by default of all."""
        if samples is None:
            samples = (self.manifest() or {}).get("identity", {}).get("n_samples_per_prompt", 1)
        rows = self.merged("scores")[0]
        return {prompt for prompt, scores in rows.items() if len(scores) >= samples}

    def look(self, samples: int, *, masks: bool) -> There:
        """The prompts that are whole.

        samples: the images that each has at least. masks: whether theirs are wanted.
        """
        complete = self.scored(samples) & self.done("cost")
        damaged: dict[Path, str] = {}
        for prompt in list(complete) if masks else ():
            files = [file for k in range(samples) for file in self.mask_files(*prompt, k)]
            faults = faults_of(files)
            damaged |= faults
            if faults:
                complete.remove(prompt)
        return There(complete, damaged)

    def mask_files(self, name: str, row: int, k: int) -> list[tuple[Path, Check]]:
        """The files of an image's mask, and what tells whether each is whole.

        name: of the set. row: of the prompt. k: the sample.
        """
        stem = f"{name}_{row:04d}_{k:02d}"
        return [
            (self.path / "masks" / f"{stem}.npy", array_fault),
            (self.path / "overlays" / f"{stem}.png", ends_fault),
        ]

    def save_mask(self, name: str, row: int, k: int, mask: np.ndarray, image: np.ndarray) -> None:
        """masks/<stem>.npy, float32 as the detector made it, and overlays/<stem>.png.

        name, row, k: as of `mask_files`. mask: (h, w). image: (H, W, 3) in [0, 1].
        """
        data = io.BytesIO()
        np.save(data, mask, allow_pickle=False)
        for kind in self.files:
            (self.path / kind).mkdir(exist_ok=True)
        (array, _), (picture, _) = self.mask_files(name, row, k)
        write_bytes(array, data.getvalue(), self.check_begun)
        write_bytes(picture, overlay(image, mask), self.check_begun)


@dataclass(frozen=True)
class DetectionPlan(InPieces):
    """A detection that was checked as far as is possible without a model."""

    settings: Request
    detectors: list[Detector]
    # With --detector all: name -> why.
    left_out: dict[str, str]
    # mem, and nonmem if it was given: all prompts of the files.
    files: dict[str, list[Prompt]]
    # Where the values came from that were not typed.
    preset: str
    # What was typed, by name.
    typed: dict[str, Any] = field(repr=False)

    def folder(self, detector: Detector) -> ScoreFolder:
        """<output_path>/<detector>."""
        return ScoreFolder(Path(self.settings.output_path) / detector.name)

    @cached_property
    def sets(self) -> dict[str, list[Prompt]]:
        """The prompts up to --end."""
        return {name: prompts[: self.settings.end] for name, prompts in self.files.items()}

    @cached_property
    def common_identity(self) -> dict:
        """Everything that decides the scores of all detectors."""
        hashes = {}
        for name, prompts in self.files.items():
            flag = FLAGS[name]
            source = getattr(self.settings, flag)
            # Earlier versions hashed the prompts up to --end.
            was = functools.partial(is_hash_of_first, prompts)
            hashes[f"{name}_prompts"] = Content(captions_hash(prompts), source, flag=flag, was=was)
        return {
            **identity_of(self.settings),
            "model_id": fingerprint(self.settings.model_id, self.settings.tokenizer),
            "device": self.settings.device.split(":")[0],
            **hashes,
        }

    def identity(self, detector: Detector) -> dict:
        """Everything that decides a detector's scores."""
        settings = detector.named_values()
        plugins = plugins_of(type(detector))
        samples = self.settings.n_samples_per_prompt
        may_grow = self.settings.rng == "per_image" and detector.least_images == 1
        return {
            **self.common_identity,
            "n_samples_per_prompt": Growing(samples) if may_grow else samples,
            **({"plugins": plugins} if plugins else {}),
            "detector": detector.name,
            "detector_settings": settings,
            **rounding(self.settings, [detector]),
        }

    def config(self, detector: Detector) -> dict:
        """All arguments and the command, for people."""
        values = plain_values(self.settings)
        return {
            "command": command_line(SCRIPT, self.typed_for_whole, Request),
            **{name: values[name] for name in flag_names(Detection)},
            "detector": detector.name,
            **plain_values(detector),
            "derivatives": derivatives([detector], self.settings.dtype),
        }

    @property
    def asked(self) -> dict[str, int]:
        """Prompts of each set, for the manifest."""
        return {name: len(prompts) for name, prompts in self.sets.items()}

    def batches(self) -> list[tuple[str, list[Prompt]]]:
        """(set, prompts) of every batch of this piece."""
        size = self.settings.batch_size
        every = [
            (name, prompts[i : i + size])
            for name, prompts in self.sets.items()
            for i in range(0, len(prompts), size)
        ]
        return [batch for number, batch in enumerate(every) if self.shard.has(number)]


def look_at(folder: Path) -> None:
    """Ends a detection in a folder that is whole but was not ended; says on stderr when it is not
    whole, or has lost scores. Another folder is left as it is. Raises ValueError for a damaged one.
    """
    store = ScoreFolder(folder)
    manifest = store.manifest() or {}
    if "detector" not in manifest.get("identity", {}):
        return
    prompts = len(store.scored())
    if not store.close_if_whole():
        print(f"{folder} is not finished: it has {prompts} prompts so far", file=sys.stderr)
    elif not store.is_whole(manifest.get("asked", {})):
        again = store.command_again() or "its command"
        print(
            f"{folder} has lost scores: only {prompts} prompts have all of theirs; this makes the "
            f"others again: {again}",
            file=sys.stderr,
        )


def plan_detection(**typed: Any) -> DetectionPlan:
    """A checked detection. typed: flags of detect_memorization.py by name, the detectors' included.

    What is not given comes from the model's preset, else it is the default. No model is loaded.
    Raises ValueError that says what was given, what is possible and what to type.
    """
    general, detector_flags = split(typed, Request, flag_owners(DETECTORS))
    asked = Request(**general)
    check_shard(asked)
    names = detector_names(asked.detector)
    check_owners(asked.detector, names, detector_flags)
    check_model(asked.model_id, asked.tokenizer)
    source, preset = load_preset(asked.preset, asked.model_id)
    settings = fill(Request, general, preset.get("generate", {}))
    chosen = choose(asked.detector, detector_flags, preset)
    left_out = unusable(chosen, asked.detector, settings.n_samples_per_prompt)
    usable = [detector for detector in chosen if detector.name not in left_out]
    for detector in usable:
        detector.check(settings.num_inference_steps)
    memorized, ordinary = prompt_sets(asked.model_id, asked.prompts, asked.nonmem_prompts)
    settings = replace(settings, prompts=memorized, nonmem_prompts=ordinary)
    column = settings.caption_column
    sets: dict[str, list[Prompt] | None] = {"mem": read_local("prompts", memorized, column)}
    if ordinary:
        sets["nonmem"] = read_local("nonmem_prompts", ordinary, column, needed=False)
    settings = on_device(sized(settings))
    for detector in usable:
        check_names(Path(settings.output_path) / detector.name, "--output_path")
    return DetectionPlan(
        settings, usable, left_out, read_files(settings, sets), preset=source, typed=typed
    )


def detector_names(asked: str) -> list[str]:
    """The names of --detector. Raises ValueError for one that does not exist."""
    chosen = list(DETECTORS) if asked == "all" else list(dict.fromkeys(asked.split(",")))
    for name in chosen:
        if name not in DETECTORS:
            known = ["all", *DETECTORS]
            raise unknown_name("detector", name, known, " (--list_detectors tells more)")
    return chosen


def choose(names: str, typed: Mapping[str, Any], preset: Mapping[str, dict]) -> list[Detector]:
    """The detectors with what was typed, else the preset's values, else their defaults.

    names: as of --detector. Raises ValueError, unless all are asked for, for a detector that lacks
    what it cannot run without.
    """
    built = []
    for name in detector_names(names):
        options = flag_names(DETECTORS[name])
        own = {option: typed[option] for option in options if option in typed}
        detector = build_detector(name, **(preset.get(name, {}) | own))
        if detector.missing() and names != "all":
            raise ValueError(f"--detector {name} {detector.missing()}")
        built.append(detector)
    return built


def unusable(chosen: Collection[Detector], names: str, images: int) -> dict[str, str]:
    """Name -> why, of the detectors that lack what they cannot run without.

    names: as of --detector. images: of a prompt. Raises ValueError, unless all are asked for, for
    one that compares more images.
    """
    left_out = {}
    for detector in chosen:
        few = detector.too_few(images)
        if few and names != "all":
            raise ValueError(f"--detector {detector.name} {few}")
        if detector.missing() or few:
            left_out[detector.name] = detector.missing() or few
    return left_out


def check_owners(names: str, chosen: Collection[str], typed: Mapping[str, Any]) -> None:
    """Raises ValueError for a typed flag that none of the chosen detectors has."""
    owners = flag_owners(DETECTORS)
    for option in typed:
        having = [name for name, _ in owners[option]]
        if not set(having) & set(chosen):
            raise ValueError(
                f"--detector {names} does not take --{option} (a flag of {', '.join(having)})"
            )


def is_hash_of_first(prompts: list[Prompt], there: object, named: str) -> bool:
    """Whether it is the hash of the first prompts alone. named: not used, see `Was`."""
    return any(there == first for first in hashes_of_first(prompts))


def read_files(
    settings: Detection, local: Mapping[str, list[Prompt] | None]
) -> dict[str, list[Prompt]]:
    """The prompts of each set. local: None for a set that is a data set by name."""
    folder = Path(settings.output_path) / FOLDER
    sources = {"mem": settings.prompts, "nonmem": settings.nonmem_prompts}
    sets = {}
    for name, prompts in local.items():
        if prompts is None:
            prompts = read_sample(sources[name], folder, settings.nonmem_count, settings.seed)
        sets[name] = prompts
    return sets
