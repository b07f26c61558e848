"""What a mitigation is: five hooks of the sampler, and flags declared beside the method."""
from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from sampling import Batch, GuidanceSchedule, NoisePredictor, Prediction

HOOKS = ("edit_prompts", "edit_embeddings", "adjust_initial_noise", "guidance", "patch")


@dataclass
class Adjustment:
    """What `adjust_initial_noise` returns.

    x: (n, 4, h, w) float32, where sampling starts. prediction: e at x, if it was computed, so that step 0 need not run
    the UNet again. numbers: the method's own figures, one per image (n,); they become columns of images.csv.
    """

    x: torch.Tensor
    prediction: Prediction | None = None
    numbers: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Mitigation:
    """Does nothing. A method overrides the hooks it needs; images of a batch never see each other.

    x is what the UNet reads at the first timestep t, (n, 4, h, w) float32 of unit variance, for every scheduler.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    cost: ClassVar[str] = "2N"                     # UNet rows per image, N steps

    def edit_prompts(self, batch: Batch) -> list[str]:
        """The prompts to encode."""
        return batch.prompts

    def edit_embeddings(self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch) -> dict[str, torch.Tensor]:
        """May replace or add entries of predictor.embeds; returns figures as in `Adjustment.numbers`."""
        return {}

    def adjust_initial_noise(self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch) -> Adjustment:
        """The noise to start from."""
        return Adjustment(x)

    def guidance(self, batch: Batch) -> GuidanceSchedule:
        """A new schedule for one batch; asked for after the hooks above."""
        return GuidanceSchedule()

    def patch(self, predictor: NoisePredictor, batch: Batch) -> contextlib.AbstractContextManager:
        """Changes to the UNet while one batch is sampled, also during the hooks above; predictor.call tells what its rows are."""
        return contextlib.nullcontext()

    def check(self, num_steps: int) -> None:
        """Raises ValueError for settings that make no sense with this number of steps."""

    def settings(self) -> dict[str, Any]:
        """Short name -> value of what is in use, in the order of the folder's name; unset options are left out."""
        used = {}
        for option in flags(self):
            value = getattr(self, option.name)
            always = option.metadata["always_named"] or value != option.default
            if value is not None and option.metadata["changes_result"] and always:
                used[option.metadata["short"]] = file_name(value) if option.metadata["file"] else value
        return used

    def __post_init__(self) -> None:
        for option in flags(self):
            value = getattr(self, option.name)
            check_value(option, value)
            if value is not None and value_type(option) is float:
                object.__setattr__(self, option.name, float(value))       # 50 and 50.0 are one setting


def flag(default, text: str, *, short: str = "", above: float | None = None, at_least: float | None = None, always_named: bool = True,
         changes_result: bool = True, excludes: str = "", choices: tuple[str, ...] = (), file: bool = False) -> Any:
    """A dataclass field that is also a command-line flag.

    short: its name in folder names. above, at_least: bounds. always_named=False: in the folder's name only when it is
    not the default. changes_result=False: never in the name. excludes: a flag that may not be typed beside it.
    choices: what a text may be. file: a text that names a file, which must exist; folder names carry a hash of its content.
    """
    return field(default=default, metadata={"help": text, "short": short, "above": above, "at_least": at_least, "always_named": always_named,
                                            "changes_result": changes_result, "excludes": excludes, "choices": choices, "file": file})


def quirks(*known: str) -> Any:
    """The flag --official: peculiarities of a method's official code to repeat, for comparisons with it; comma-separated."""
    return flag("", f"peculiarities of the official code to repeat, any of {','.join(known)}", choices=known, always_named=False)


def flags(method: Mitigation | type[Mitigation]) -> list[dataclasses.Field]:
    """The fields of a method that are flags."""
    return [option for option in dataclasses.fields(method) if "help" in option.metadata]  # type: ignore[arg-type]


def value_type(option: dataclasses.Field) -> type:
    """int, float or str: the first name in the field's annotation."""
    annotation = getattr(option.type, "__name__", str(option.type))
    return {"int": int, "float": float, "str": str}[annotation.split(" ")[0]]


def check_value(option: dataclasses.Field, value: Any) -> None:
    """Raises ValueError when a flag's value is of the wrong type, not finite or out of its bounds."""
    if value is None and option.default is None:
        return
    wanted = value_type(option)
    fits = isinstance(value, (int, float)) if wanted is float else isinstance(value, wanted)
    if isinstance(value, bool) or not fits:
        raise ValueError(f"--{option.name} must be of type {wanted.__name__}, not {value!r}")
    if wanted is not str:
        check_bounds(option, value)
    elif option.metadata["choices"]:
        check_choice(option, value)
    elif option.metadata["file"] and not Path(value).is_file():
        raise ValueError(f"--{option.name}: there is no file {value}")


def check_choice(option: dataclasses.Field, value: str) -> None:
    """Raises ValueError for a text that is none of the flag's choices; --official takes several, or none."""
    parts = [part for part in value.split(",") if part] if option.name == "official" else [value]
    unknown = [part for part in parts if part not in option.metadata["choices"]]
    if unknown or len(set(parts)) < len(parts):
        raise ValueError(f"--{option.name} {value!r} is not possible; there are {', '.join(option.metadata['choices'])}")


def file_name(path: str) -> str:
    """Stands for a file in folder names: the beginning of its content's hash, since a path is no part of a name."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]


def check_bounds(option: dataclasses.Field, value: float) -> None:
    """Raises ValueError when a number is not finite or out of the flag's bounds."""
    above, at_least = option.metadata["above"], option.metadata["at_least"]
    if not math.isfinite(value) or (above is not None and value <= above) or (at_least is not None and value < at_least):
        bound = f" above {above:g}" if above is not None else f" of at least {at_least:g}" if at_least is not None else ""
        raise ValueError(f"--{option.name} {value} is out of range: it must be a finite number{bound}")


def check_guided_step(flag_name: str, last_off: int, num_steps: int) -> None:
    """Raises ValueError when no step would be guided."""
    if last_off >= num_steps - 1:
        raise ValueError(f"--{flag_name} {last_off} leaves no step with guidance: the run has {num_steps} steps (0..{num_steps - 1}). "
                         f"Use at most {num_steps - 2}, or --guidance_scale 0 for an unconditional run.")


METHODS: dict[str, type[Mitigation]] = {}


def register(name: str, *, paper: str, cost: str = Mitigation.cost):
    """Class decorator: makes a frozen dataclass of the method and lists it under `name`."""

    def decorate(cls):
        if name in METHODS:
            raise ValueError(f"two methods are called {name!r}: {METHODS[name].__module__} and {cls.__module__}")
        cls.name, cls.paper, cls.cost = name, paper, cost
        for annotated, option in vars(cls).items():
            if isinstance(option, dataclasses.Field) and not option.metadata["short"]:
                option.metadata = option.metadata | {"short": annotated}  # type: ignore[assignment]
        METHODS[name] = dataclass(frozen=True)(cls)
        return METHODS[name]

    return decorate
