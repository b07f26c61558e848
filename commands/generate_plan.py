"""What a run will be: its flags, and all checks that need no model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from memorization_suite import ROOT, tiny
from memorization_suite.commands.machine import derivatives, rounding
from memorization_suite.commands.screen import Screen, parse_screen
from memorization_suite.commands.settings import (
    QUIET,
    SHARD,
    Sampling,
    check_model,
    check_prompts,
    check_range,
    check_shard,
    command_line,
    fill,
    on_device,
    sized,
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
from memorization_suite.pipelines.fingerprints import fingerprint, unet_fingerprint
from memorization_suite.pipelines.models import check_unet, load_preset
from memorization_suite.prompts.files import Prompt
from memorization_suite.prompts.sets import is_hub, other_column, prompt_file, read_again
from memorization_suite.runs.growth import Growing
from memorization_suite.runs.hashes import content_hash
from memorization_suite.runs.identity import Content
from memorization_suite.runs.places import check_names
from memorization_suite.runs.plugins import plugins_of
from memorization_suite.runs.run_folder import Asked, Key, RunFolder
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
from memorization_suite.runs.shards import InPieces, Shard
from memorization_suite.runs.whole import There

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
        "official: one stream of noise, in file order",
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
    batch_wise: bool = unkeyed(False, f"with {OFFICIAL}: few steps, then delayed guidance")
    per_sample: bool = unkeyed(False, f"with {OFFICIAL}: optimize until --target_loss")
    preset: str = unkeyed(
        "auto",
        "values for flags that were not typed (auto: the model's own; none: official defaults)",
        metavar="{auto,none,FILE}",
    )
    screen: str | None = unkeyed(
        None,
        "mitigate only images with a larger score",
        metavar="DETECTOR:THRESHOLD",
    )
    save_latents: bool = unkeyed(False, "also write latents/: initial, adjusted, final")
    trace: bool = unkeyed(False, "trace.csv: each step's magnitude and guidance; runs both halves")
    shard: str = unkeyed("", SHARD, metavar="I/N")
    verify: bool = unkeyed(False, "decode all that is there; damaged ones are made again")
    overwrite: bool = unkeyed(False, "start over instead of going on")
    quiet: bool = unkeyed(False, QUIET)


@dataclass(frozen=True)
class Plan(InPieces):
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
        general["model_id"] = fingerprint(self.settings.model_id, self.settings.tokenizer)
        general["unet_id"] = unet_fingerprint(self.settings.unet_id)
        if self.may_grow:
            general["n_samples_per_prompt"] = Growing(self.settings.n_samples_per_prompt)
        prompts = self.settings.prompts
        column = other_column(Path(prompts), self.settings.caption_column, self.prompts)
        screened = {"screen": self.screen.identity()} if self.screen else {}
        plugins = plugins_of(*map(type, self.parts()))
        return {
            **general,
            **screened,
            **({"plugins": plugins} if plugins else {}),
            "method": self.mitigation.name,
            "method_settings": self.mitigation.named_values(),
            "prompts_sha256": Content(content_hash(Path(prompts)), prompts, flag="prompts"),
            **({"caption_column": column} if column else {}),
            "device": self.settings.device.split(":")[0],
            **rounding(self.settings, self.parts()),
        }

    @property
    def may_grow(self) -> bool:
        """Whether a prompt's images stay as they are when it gets more of them."""
        if self.settings.rng == "official" or self.mitigation.pools_images:
            return False
        return not (self.screen and self.screen.detector.least_images > 1)

    @property
    def config(self) -> dict:
        """All arguments and the command, for people."""
        return {
            "command": command_line(SCRIPT, self.typed_for_whole, Request),
            **self.general(),
            "preset": self.preset,
            "prompts": str(Path(self.settings.prompts).resolve()),
            "method": self.mitigation.name,
            **method_values(self.mitigation),
            "screen": self.settings.screen,
            "derivatives": derivatives(self.parts(), self.settings.dtype),
            "save_latents": self.settings.save_latents,
            "trace": self.settings.trace,
        }

    def piece(self, shard: Shard) -> Plan:
        """The same run, of which this piece is to be made."""
        typed = {"shard": str(shard)} if shard else {}
        settings = replace(self.settings, shard=typed.get("shard", ""))
        return replace(self, settings=settings, typed={**self.typed_for_whole, **typed})

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

    def keys(self, prompts: list[Prompt], samples: range | None = None) -> list[Key]:
        """The images of these prompts. samples: their numbers, default all that are asked for."""
        samples = samples or range(self.settings.n_samples_per_prompt)
        return [Key(prompt.row, sample) for prompt in prompts for sample in samples]

    @property
    def rows(self) -> range:
        """The prompts of --start and --end, by their rows."""
        end = len(self.prompts) if self.settings.end is None else self.settings.end
        return range(self.settings.start, end)

    def wanted(self, prompts: list[Prompt]) -> list[Key]:
        """The images of these prompts that --start and --end ask for."""
        return [key for key in self.keys(prompts) if key.prompt in self.rows]

    def own(self) -> list[Key]:
        """The images that are asked for and that are in this piece of the run."""
        batches = [prompts for number, prompts in self.batches() if self.shard.has(number)]
        return [key for prompts in batches for key in self.wanted(prompts)]

    def there(self) -> There:
        """What the run folder has of the own images, and what is damaged of it."""
        settings = self.settings
        return RunFolder(self.folder).look(
            self.own(),
            latents=settings.save_latents,
            trace=settings.trace,
            decode=settings.verify,
        )

    @property
    def asked(self) -> Asked:
        """What makes the run whole, for its manifest."""
        settings = self.settings
        return Asked(
            start=self.rows.start,
            end=self.rows.stop,
            samples=settings.n_samples_per_prompt,
            of=len(self.prompts) * settings.n_samples_per_prompt,
            latents=settings.save_latents,
            trace=settings.trace,
        )


def plan(**typed: Any) -> Plan:
    """A checked run. typed: flags of generate_images.py by name, those of the method included.

    What is not given comes from the model's preset, else it is the official default. No model is
    loaded. Raises ValueError that says what was given, what is possible and what to type.
    """
    general, method_flags = split(typed, Request, flag_owners(METHODS))
    asked = Request(**general)
    check_shard(asked)
    method = method_of(asked)
    model_id = asked.model_id
    check_model(model_id, asked.tokenizer)
    check_unet(asked.unet_id)
    source, preset = load_preset(asked.preset, model_id, asked.unet_id)
    check_preset(source, preset)
    settings = fill(Request, general, preset.get("generate", {}))
    mitigation = choose_mitigation(method, method_flags, preset)
    mitigation.check(settings.num_inference_steps)
    prompts_file = settings.prompts or str(default_prompts(model_id))
    check_prompts(prompts_file)
    file = prompt_file(prompts_file, Path(settings.output_path), settings.caption_column)
    prompts = read_again(file, settings.caption_column)
    prompts_file = str(file) if is_hub(prompts_file) else prompts_file
    check_range(settings.start, settings.end, len(prompts), prompts_file)
    screen = None
    if settings.screen:
        screen = parse_screen(
            settings.screen,
            preset,
            settings.num_inference_steps,
            settings.n_samples_per_prompt,
        )
    settings = on_device(sized(replace(settings, prompts=prompts_file)))
    made = Plan(settings, mitigation, prompts, source, screen, typed)
    check_names(made.folder, "--output_path", made=RunFolder.levels)
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
    if model_id in tiny.MODELS:
        return tiny.prompts(model_id)
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
