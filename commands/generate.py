"""The main job: images for the prompts of a file, with one mitigation or none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from memorization_suite import ROOT
from memorization_suite.commands.image_job import Job
from memorization_suite.commands.screen import Screen, parse_screen
from memorization_suite.commands.settings import (
    Sampling,
    check_range,
    command_line,
    fill,
    on_device,
    split,
)
from memorization_suite.detection import DETECTORS, Detector
from memorization_suite.download.assets import hint
from memorization_suite.mitigation.base import Mitigation
from memorization_suite.mitigation.registry import (
    METHODS,
    OFFICIAL,
    choose_mitigation,
    method_name,
)
from memorization_suite.pipelines import loading
from memorization_suite.pipelines.models import (
    EMBEDDED,
    check_unet,
    fingerprint,
    load_preset,
    resolve_model,
)
from memorization_suite.prompts.files import Prompt, read_prompts, sha256_of
from memorization_suite.runs.files import write_json
from memorization_suite.sampling.denoiser import Unusable
from memorization_suite.runs.plugins import plugins_of
from memorization_suite.runs.run_folder import Key, RunFolder
from memorization_suite.runs.settings import (
    checked,
    flag,
    flag_names,
    flag_owners,
    flags,
    frozen_settings,
    identity_of,
    number_text,
    plain_values,
    unkeyed,
)

SCRIPT = "generate_images.py"
OFFICIAL_PROMPTS = ROOT / "prompts" / "memorized_laion_prompts.csv"


@frozen_settings
class Generation(Sampling):
    """The general flags. Defaults are the official script's, where that has the flag."""

    unet_id: str | None = flag(None, "folder or hub id of another UNet", preset=False)
    start: int = unkeyed(0, "first prompt, by row", at_least=0, metavar="ROW")
    end: int | None = unkeyed(None, "row after the last prompt", metavar="ROW")
    rng: str = flag(
        "per_image",
        "per_image: a seed for each image; official: the official script's one stream, in file "
        "order",
        choices=("per_image", "official"),
        preset=False,
    )
    output_path: str = unkeyed("generated_images", "folder of all runs", metavar="FOLDER")


@frozen_settings
class Request(Generation):
    """All that can be asked of generate_images.py, but for the flags of the methods."""

    method: str = unkeyed(
        "no_mitigation",
        f"a name of --list_methods, several joined by +, or {OFFICIAL}; with --help: its flags",
    )
    batch_wise: bool = unkeyed(False, f"with --method {OFFICIAL}: few steps, then delayed guidance")
    per_sample: bool = unkeyed(False, f"with --method {OFFICIAL}: optimize until --target_loss")
    preset: str = unkeyed(
        "auto",
        "values for flags that were not typed (auto: the model's own; none: official defaults)",
        metavar="{auto,none,FILE}",
    )
    screen: str | None = unkeyed(
        None,
        "mitigate only images whose score is above the threshold",
        metavar="DETECTOR:THRESHOLD",
    )
    save_latents: bool = unkeyed(
        False, "also write latents/img_PPPP_SS.safetensors: initial, adjusted, final"
    )
    trace: bool = unkeyed(
        False, "also write trace.csv: magnitude and guidance of each step; runs both halves"
    )
    overwrite: bool = unkeyed(False, "start over instead of going on")
    quiet: bool = unkeyed(False, "no progress bar")


@dataclass(frozen=True)
class Plan:
    """A run that was checked as far as is possible without a model."""

    settings: Request
    mitigation: Mitigation
    # Every prompt of the file; `wanted` selects those of --start and --end.
    prompts: list[Prompt]
    # Where the values came from that were not typed.
    preset: str
    screen: Screen | None
    # What was typed, by name.
    typed: dict[str, Any] = field(repr=False)

    @cached_property
    def folder(self) -> Path:
        """<output_path>/<method>/<settings>_seed<seed>: 7 and 7.0 give the same folder."""
        screened = self.screen.named_values() if self.screen else {}
        values = {"g": self.settings.guidance_scale, **self.mitigation.named_values(), **screened}
        values["seed"] = self.settings.seed
        name = "_".join(f"{name}{number_text(value)}" for name, value in values.items())
        return Path(self.settings.output_path) / self.mitigation.name / name

    @cached_property
    def identity(self) -> dict:
        """Everything that decides the bytes of an image."""
        general = identity_of(self.settings)
        general["model_id"] = fingerprint(self.settings.model_id)
        screened = {"screen": self.screen.identity()} if self.screen else {}
        plugins = plugins_of(*map(type, self.parts()))
        return {
            **general,
            **screened,
            **({"plugins": plugins} if plugins else {}),
            "method": self.mitigation.name,
            "method_settings": self.mitigation.named_values(),
            "prompts_sha256": sha256_of(Path(self.settings.prompts)),
            "device": self.settings.device.split(":")[0],
        }

    @property
    def config(self) -> dict:
        """All arguments and the command, for people."""
        return {
            "command": command_line(SCRIPT, self.typed, Request),
            **self.general(),
            "preset": self.preset,
            "prompts": str(Path(self.settings.prompts).resolve()),
            "method": self.mitigation.name,
            **method_values(self.mitigation),
            "screen": self.settings.screen,
            "save_latents": self.settings.save_latents,
            "trace": self.settings.trace,
        }

    def parts(self) -> list[Mitigation | Detector]:
        """The methods, and the detector that screens."""
        screening = [self.screen.detector] if self.screen else []
        return [*getattr(self.mitigation, "methods", [self.mitigation]), *screening]

    def general(self) -> dict[str, Any]:
        """The general flags, whether typed or not."""
        values = plain_values(self.settings)
        return {name: values[name] for name in flag_names(Generation)}

    def batches(self) -> list[tuple[int, list[Prompt]]]:
        """(number, prompts) of every batch of the file.

        They are counted from row 0, so that a range has the same ones.
        """
        size = self.settings.batch_size
        starts = range(0, len(self.prompts), size)
        return [(start // size, self.prompts[start : start + size]) for start in starts]

    def keys(self, prompts: list[Prompt]) -> list[Key]:
        """The images of these prompts."""
        samples = range(self.settings.n_samples_per_prompt)
        return [Key(prompt.row, sample) for prompt in prompts for sample in samples]

    def wanted(self, prompts: list[Prompt]) -> list[Key]:
        """The images of these prompts that --start and --end ask for."""
        end = len(self.prompts) if self.settings.end is None else self.settings.end
        return [key for key in self.keys(prompts) if self.settings.start <= key.prompt < end]

    def is_finished(self) -> bool:
        """Whether the run ended, and every image that is asked for is there."""
        return RunFolder(self.folder).is_finished() and not self.missing()

    def missing(self) -> set[Key]:
        """The images that are asked for and that the run folder lacks: where a run goes on."""
        settings = self.settings
        wanted = self.wanted(self.prompts)
        folder = RunFolder(self.folder)
        return folder.missing(wanted, latents=settings.save_latents, trace=settings.trace)


@dataclass
class Run:
    """A run that was made, or was there already."""

    plan: Plan
    folder: RunFolder
    # Keys of the images that were made now, and the seconds that they took.
    made: list[Key] = field(default_factory=list)
    seconds: float = 0.0
    # Of the processes of `accelerate launch` one speaks for all.
    is_main: bool = True

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def summary(self) -> str:
        """What there is and what it cost, in a line."""
        wanted = len(self.plan.wanted(self.plan.prompts))
        text = f"{wanted} images in {self.path} "
        if not self.made:
            return text + "(nothing to make)"
        rows = self.folder.costs()
        made = [rows[key] for key in self.made]
        evals = sum(int(row["unet_evals"]) for row in made) / len(made)
        each = f"{evals:.4g} UNet rows and {self.seconds / len(made):.2f} s each"
        return text + f"({len(made)} images made, {each}{warnings(made)})"

    def sheet(self, prompts: int = 8, samples: int = 4):
        """The first prompts' training image and images, a row each, as a PIL image."""
        from memorization_suite.commands.sheet import run_sheet

        return run_sheet(self.path, prompts=prompts, samples=samples)


# --- planning ---


def plan(**typed: Any) -> Plan:
    """A checked run. typed: flags of generate_images.py by name, those of the method included.

    What is not given comes from the model's preset, else it is the official default. No model is
    loaded. Raises ValueError that says what was given, what is possible and what to type.
    """
    general, method_flags = split(typed, Request, flag_owners(METHODS))
    model_id = general.get("model_id", Request.model_id)
    resolve_model(model_id)
    check_unet(general.get("unet_id"))
    source, preset = load_preset(general.get("preset", Request.preset), model_id)
    check_preset(source, preset)
    settings = fill(Request, general, preset.get("generate", {}))
    mitigation = choose_mitigation(method_of(settings), method_flags, preset)
    mitigation.check(settings.num_inference_steps)
    prompts_file = settings.prompts or str(default_prompts(model_id))
    prompts = read_prompts(Path(prompts_file))
    check_range(settings.start, settings.end, len(prompts), prompts_file)
    screen = None
    if settings.screen:
        screen = parse_screen(settings.screen, preset, settings.num_inference_steps)
    settings = on_device(replace(settings, prompts=prompts_file))
    made = Plan(settings, mitigation, prompts, source, screen, typed)
    mitigation.check_run(made.identity)
    return made


def method_of(settings: Request) -> str:
    """The registered name of the method that is asked for. Raises ValueError."""
    return method_name(
        settings.method, batch_wise=settings.batch_wise, per_sample=settings.per_sample
    )


def check_preset(source: str, preset: dict) -> None:
    """Raises ValueError for a table or flag that does not exist, or a value that it cannot have."""
    for name, table in preset.items():
        known = name in ("generate", *METHODS, *DETECTORS)
        if not isinstance(table, dict) or not known:
            raise ValueError(
                f"the preset {source} has {name!r}, which is neither the table 'generate' nor one "
                "of a method or a detector"
            )
    possible = {option.name: option for option in flags(Generation) if option.metadata["preset"]}
    for name, value in preset.get("generate", {}).items():
        if name not in possible:
            raise ValueError(
                f"the preset {source} sets {name!r} in 'generate', which takes "
                f"{', '.join(possible)}"
            )
        try:
            checked(possible[name], value)
        except ValueError as error:
            raise ValueError(f"the preset {source} sets {name} to {value!r}: {error}") from error


def default_prompts(model_id: str) -> Path:
    """The embedded model's test prompts, or the official file. Raises ValueError without it."""
    if model_id in EMBEDDED:
        return ROOT / "tiny" / "prompts" / f"{model_id}_memorized_test.csv"
    if not OFFICIAL_PROMPTS.exists():
        raise ValueError(
            f"the official prompt file {hint('memorized_laion_prompts')}. Or give another file "
            "with --prompts, or use the embedded model with --model_id tiny."
        )
    return OFFICIAL_PROMPTS


def method_values(mitigation: Mitigation) -> dict[str, Any]:
    """The method's flags by name, for people."""
    parts = getattr(mitigation, "methods", ())
    if parts:
        return {"methods": [plain_values(part) for part in parts]}
    return plain_values(mitigation)


# --- making ---


def generate(planned: Plan, *, load: Callable | None = None) -> Run:
    """Makes the images that a run lacks; a finished one loads no model.

    load: in the place of `load_pipeline`, for several runs of one model. Processes started by
    `accelerate launch` share the batches. Raises ValueError for what the user can mend, before the
    folder is changed.
    """
    from accelerate import PartialState

    # Per-sample work is uneven, so processes wait long for each other.
    cpu = planned.settings.device == "cpu"
    state = PartialState(cpu=cpu, timeout=timedelta(days=7))
    run = Run(planned, RunFolder(planned.folder), is_main=state.is_main_process)
    if run.is_main:
        run.folder.prepare(planned.identity, overwrite=planned.settings.overwrite)
        describe(planned)
    if planned.is_finished() and not planned.settings.overwrite:
        if run.is_main:
            write_json(run.path / "config.json", planned.config)  # files may have moved
    else:
        job = begin(run, state, load or loading.load_pipeline)
        with at_work():
            job.go()
    if state.num_processes > 1:
        state.destroy_process_group()
    return run


def describe(planned: Plan) -> None:
    """Says on stderr what is used, so that a preset's values are seen."""
    used = {**planned.general(), **planned.mitigation.named_values()}
    shown = " ".join(f"{name}={value}" for name, value in used.items() if value not in (None, ""))
    print(f"method {planned.mitigation.name}, preset {planned.preset}: {shown}", file=sys.stderr)


def begin(run: Run, state, load: Callable) -> Job:
    """The model, then the folder, which is changed last. Raises ValueError."""
    settings = run.plan.settings
    device = str(state.device) if state.num_processes > 1 else settings.device
    pipe = load(
        settings.model_id,
        unet_id=settings.unet_id,
        dtype=settings.dtype,
        device=device,
        scheduler=settings.scheduler,
    )
    if run.is_main:
        identity = run.plan.identity
        run.folder.start(identity, overwrite=settings.overwrite, config=run.plan.config)
    state.wait_for_everyone()
    return Job(run, pipe, state)


@contextmanager
def at_work() -> Iterator[None]:
    """Past all checks a ValueError is a bug, and keeps its traceback.

    But for a model that lacks what the method needs.
    """
    try:
        yield
    except Unusable:
        raise
    except ValueError as error:
        raise RuntimeError(f"a fault of the suite or of a method: {error}") from error


def warnings(rows: list[dict[str, str]]) -> str:
    """What is not as it should be in some rows of images.csv, as the end of a sentence."""
    faults = {
        "missed the target": ("reached", 0.0),
        "kept their noise after a non-finite magnitude": ("failed", 1.0),
        "are not finite": ("finite", 0.0),
    }
    text = ""
    for what, (column, bad) in faults.items():
        values = [row[column] for row in rows if row.get(column) not in (None, "")]
        count = sum(float(value) == bad for value in values)
        if count:
            text += f"; {count} {what}"
    return text
