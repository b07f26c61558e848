"""The general flags, declared once: which model, which prompts, how they are sampled."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from memorization_suite import ROOT, tiny
from memorization_suite.commands.schedule import check_image, check_schedule, check_size
from memorization_suite.download.assets import Asset, hint, read_assets
from memorization_suite.pipelines import loading
from memorization_suite.pipelines.kinds import Kind, Unknown
from memorization_suite.pipelines.models import check_tokenizer, kind_of, resolve_model
from memorization_suite.prompts.flags import HUB_SET, caption_column
from memorization_suite.prompts.sets import prompt_sources
from memorization_suite.runs.environment import choose_device, set_tf32
from memorization_suite.runs.places import check_file
from memorization_suite.runs.plugins import plugin_flags
from memorization_suite.runs.settings import (
    Settings,
    flag,
    flag_names,
    flags,
    frozen_settings,
    unkeyed,
    unknown_name,
)
from memorization_suite.runs.shards import parse_shard
from memorization_suite.runs.tables import Damaged
from memorization_suite.sampling.denoiser import Denoiser, Unusable

SCHEDULERS = ("ddim", "euler", "keep")
DTYPES = ("fp32", "bf16", "fp16")
SHARD = "only batches I, I+N, I+2N, ...: a piece of the run"
# Flags that help where the memory does not suffice.
SMALLER = "--batch_size or --n_samples_per_prompt"
QUIET = "no progress, and no line on what comes next"
ON_MACHINE = ("dtype", "device", "tf32", "memory_budget", "compile")
# Of --help -> flags of generation and detection below it.
HEADINGS = {
    "model": ("model_id", "tokenizer", "unet_id", "scheduler", "preset", *ON_MACHINE),
    "method": ("method", "batch_wise", "per_sample", "screen"),
    "detector": ("detector",),
    "prompts": ("prompts", "caption_column", "start", "end", "nonmem_prompts", "nonmem_count"),
    "sampling": (
        "n_samples_per_prompt",
        "batch_size",
        "num_inference_steps",
        "guidance_scale",
        "image_length",
        "seed",
        "rng",
    ),
    "output": (
        "output_path",
        "save_latents",
        "trace",
        "save_masks",
        "shard",
        "verify",
        "overwrite",
        "quiet",
    ),
}
MODELS = f"hub id, diffusers folder, .safetensors file, or {', '.join(tiny.MODELS)}"


@frozen_settings
class Model(Settings):
    """Which model, and on what it runs."""

    model_id: str = flag("CompVis/stable-diffusion-v1-4", MODELS, preset=False)
    tokenizer: str = unkeyed("", "its folder, for a .safetensors file", metavar="DIR")
    scheduler: str = flag("ddim", "keep: the model's own", choices=SCHEDULERS)
    device: str = unkeyed("", "default: cuda if there is one", metavar="DEVICE")
    tf32: bool = unkeyed(False, "fp32 on CUDA in TensorFloat-32: faster, less exact")


@frozen_settings
class Trajectories(Model):
    """Images of the prompts of a file, from their own noises."""

    prompts: str = unkeyed("", f"prompt file, or {HUB_SET}", metavar="FILE")
    caption_column: str = caption_column()
    # None where nothing was typed; a number in every plan (see `sized`).
    image_length: int = flag(
        None,
        "pixels a side (default: the model's native size)",
        at_least=8,
        at_most=4096,
        metavar="N",
    )
    n_samples_per_prompt: int = flag(
        10, "images per prompt", alias="-n", at_least=1, at_most=10_000, metavar="N"
    )
    num_inference_steps: int = flag(50, "sampling steps", at_least=1, at_most=100_000, metavar="N")
    guidance_scale: float = flag(7.0, "classifier-free guidance", at_least=0.0, metavar="S")
    seed: int = flag(2, "seed of the run", at_least=0, at_most=2**63 - 1, preset=False, metavar="N")
    memory_budget: float | None = unkeyed(
        None, "memory of a run (default: what is free on CUDA)", above=0.0, metavar="GIB"
    )


@frozen_settings
class Sampling(Trajectories):
    """The same in batches, in any precision."""

    batch_size: int = flag(
        1, "prompts per batch", alias="-b", at_least=1, at_most=10_000, metavar="N"
    )
    dtype: str = flag("", "default: bf16 on CUDA, fp32 on the CPU", choices=DTYPES)
    compile: bool = unkeyed(False, "torch.compile the network: a minute, then faster steps")


def on_device(settings: Any) -> Any:
    """The settings with a device that is there, and the dtype for it. Raises ValueError.

    It is the last check of a plan, since it is the one that imports torch.
    """
    device = choose_device(settings.device)
    dtype = settings.dtype or ("bf16" if device.startswith("cuda") else "fp32")
    return replace(settings, device=device, dtype=dtype)


def check_out(path: Path, **inputs: Path | None) -> None:
    """Raises ValueError when no file can be written there, or when an input is there. inputs: flag
    -> file.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise ValueError(f"--out {path} is no file name in a folder that exists")
    for name, file in inputs.items():
        if file is not None and file.exists() and path.exists() and file.samefile(path):
            raise ValueError(f"--out is the file of --{name}: give another")
    check_file(path, "--out")


def fill(settings: type[Settings], typed: Mapping[str, Any], preset: Mapping[str, Any]) -> Any:
    """The settings with what was typed, else the preset's values, else the defaults.

    preset: its table `generate`, of which the flags that a preset may set are used. Raises
    ValueError.
    """
    own = {option.name for option in flags(settings) if option.metadata["preset"]}
    general = {name: value for name, value in preset.items() if name in own}
    return settings(**(general | dict(typed)))


def split(typed: Mapping[str, Any], settings: type[Settings], more: Collection[str] = ()) -> tuple:
    """(flags of the settings, the others). more: names that the others may have.

    Raises ValueError for a name that nobody has.
    """
    own = flag_names(settings)
    for name in typed:
        if name not in own and name not in more:
            raise unknown_name("flag", name, [*own, *more])
    general = {name: value for name, value in typed.items() if name in own}
    return general, {name: value for name, value in typed.items() if name not in own}


def command_line(script: str, typed: Mapping[str, Any], settings: type[Settings]) -> str:
    """What one would type to ask for the same. settings: of the flags that are no method's."""
    return shlex.join(command_words(script, typed, settings))


def command_words(script: str, typed: Mapping[str, Any], settings: type[Settings]) -> list[str]:
    """Its words."""
    words = ["python", *script.split(), *plugin_flags()]
    switches = flag_names(settings)
    for name, value in typed.items():
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, (list, tuple)):
            words += [f"--{name}", *map(str, value)]
        elif value is False:
            words += [] if name in switches else [f"--{name}=0"]
        elif value is not None:
            words.append(f"--{name}={value}")
    return words


def check_range(start: int, end: int | None, total: int, source: str | Path) -> int:
    """The row after the last one. Raises ValueError when --start and --end select nothing."""
    end = total if end is None else end
    if not start < end <= total:
        raise ValueError(
            f"--start {start} --end {end} is no range of the {total} rows of {source}: "
            f"0 <= start < end <= {total}"
        )
    return end


def check_shard(settings: Any) -> None:
    """Raises ValueError for what is no piece, and for one that would remove what others made."""
    if parse_shard(settings.shard) and settings.overwrite:
        raise ValueError(
            f"--shard {settings.shard} makes one of several pieces, and --overwrite would remove "
            "those of the others. Give another --output_path, or remove the folder first"
        )


def check_model(model_id: str, tokenizer: str = "") -> None:
    """Raises ValueError for a name that is no model, one that download/ would have put there, or a
    --tokenizer that cannot go with it.
    """
    asset = asset_at(ROOT / model_id)  # as documents name it, wherever one stands
    if asset and not Path(model_id).exists():
        raise ValueError(f"the model {hint(asset.name)}")
    resolve_model(model_id)
    check_tokenizer(model_id, tokenizer)


def sized(settings: Any) -> Any:
    """The settings with the model's native size if no size was asked for. Raises ValueError for
    steps or a size that the model does not have, and for a model that does not tell its size.
    """
    try:
        kind = kind_of(settings.model_id, getattr(settings, "unet_id", None))
    except Unknown as error:
        if settings.image_length is not None:
            return settings
        raise ValueError(
            f"{error}. Type its size with --image_length PIXELS, or give a diffusers folder"
        ) from error
    settings = replace(settings, image_length=settings.image_length or kind.native_size)
    check_size(settings.image_length, kind.downsampling)
    if kind.train_steps and settings.num_inference_steps > kind.train_steps:
        raise ValueError(
            f"--num_inference_steps {settings.num_inference_steps} is more than the "
            f"{kind.train_steps} that {settings.model_id} was trained with"
        )
    if kind.by_name:
        say_by_name(settings.model_id, kind)
    return settings


@cache
def say_by_name(model_id: str, kind: Kind) -> None:
    """Says once on stderr that a model was not looked at."""
    print(
        f"{model_id} is known by its name alone ({kind}): its files are not on this machine, and "
        "the hub gives none",
        file=sys.stderr,
    )


def say_preset(what: str, preset: str, settings: Settings) -> None:
    """Says on stderr where values come from that were not typed, and those of the sampler."""
    names = ("scheduler", "image_length", "num_inference_steps", "guidance_scale")
    shown = " ".join(f"{name}={getattr(settings, name)}" for name in names)
    print(f"{what}, preset {preset}: {shown}", file=sys.stderr)


def load_model(settings: Any, load: Callable | None = None, **more: Any) -> Denoiser:
    """The model of the settings, which can make their steps and size. load: in the place of
    `load_pipeline`. Raises ValueError.
    """
    set_tf32(settings.tf32)
    given = {
        "device": settings.device,
        "scheduler": settings.scheduler,
        "tf32": settings.tf32,
        **({"tokenizer": settings.tokenizer} if settings.tokenizer else {}),
        **more,
    }
    try:
        model = (load or loading.load_pipeline)(settings.model_id, **given)
    except Unusable as error:
        fetched = what_fetches(settings.model_id)
        if not fetched or Path(settings.model_id).is_dir():
            raise
        raise Unusable(f"{error} {fetched}") from error
    check_schedule(model, settings.num_inference_steps, train_steps(settings))
    if settings.image_length is not None:
        check_image(model, settings.image_length, settings.num_inference_steps)
    return model


def train_steps(settings: Any) -> int | None:
    """How many timesteps the model was trained with; None where that is not known."""
    try:
        return kind_of(settings.model_id).train_steps
    except Unknown:
        return None


# --- files that download/ gets ---


def asset_at(path: str | Path) -> Asset | None:
    """What download/ puts there, if anything."""
    wanted = Path(path).resolve()
    return next((asset for asset in read_assets().values() if ROOT / asset.path == wanted), None)


def what_fetches(wanted: str | Path) -> str:
    """A sentence with the command that gets what belongs at a path, or what a hub id names.

    Empty if download/ has no such thing.
    """
    placed = asset_at(wanted)
    if placed:
        return f"python download/fetch.py {placed.name} gets it."
    for asset in read_assets().values():
        if wanted == asset.repo:
            return f"python download/fetch.py {asset.name} gets it, for --model_id {asset.path}."
    return ""


def check_prompts(*files: str | Path) -> None:
    """Raises ValueError for a prompt file that is not here and that download/ gets."""
    for file in files:
        fetched = "" if Path(file).exists() else what_fetches(file)
        if fetched:
            raise ValueError(f"the prompt file {file} is not here. {fetched}")


def prompt_sets(model_id: str, prompts: str, nonmem_prompts: str = "") -> tuple[str, str]:
    """The two prompt sets; an embedded model has its own.

    Raises ValueError when there is none, or a file has to be fetched first.
    """
    try:
        sources = prompt_sources(model_id, prompts, nonmem_prompts)
    except ValueError as error:
        fetched = "python download/fetch.py prompts gets those of the papers"
        raise ValueError(f"{error}. {fetched}.") from error
    check_prompts(*sources)
    return sources


@contextmanager
def at_work() -> Iterator[None]:
    """Past all checks a ValueError is a bug, and keeps its traceback.

    But for a model that lacks what the method needs, and a file of the run that was damaged
    meanwhile, which is an OSError then.
    """
    try:
        yield
    except Unusable:
        raise
    except Damaged as error:
        raised = OSError(str(error))
        for note in getattr(error, "__notes__", []):
            raised.add_note(note)
        raise raised from error
    except ValueError as error:
        raise RuntimeError(f"a fault of the suite or of a method: {error}") from error
