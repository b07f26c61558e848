"""What a model is, told by its small JSON files: no weights, no heavy import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memorization_suite.pipelines.hub import hub_file, is_reachable
from memorization_suite.pipelines.single_files import read_single_file
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.pointers import pointer_fault
from memorization_suite.runs.text import reason_of

# Name of a JSON file in the model's folder -> its content.
Read = Callable[[str], dict]
# Where a folder or a hub id of a UNet has its file, in the order of looking.
UNET_FILES = ("config.json", "unet/config.json")


class Unknown(ValueError):
    """A model that does not tell what it is; the message says why."""


class NotHere(Unknown):
    """A file of a hub id that is neither on this machine nor can be fetched."""


@dataclass(frozen=True)
class Kind:
    """What presets and defaults depend on."""

    # As diffusers' schedulers call it: epsilon, v_prediction.
    prediction_type: str
    # Height and width that it was trained for, in pixels.
    native_size: int
    # Of a token's embedding.
    text_width: int
    # Timesteps that it was trained with; None where they are not counted.
    train_steps: int | None = None
    # Pixels along the side of a latent pixel.
    downsampling: int = 8
    # Whether its name alone tells this.
    by_name: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return f"{self.native_size} pixels, {self.prediction_type}, text of width {self.text_width}"


SD1 = Kind("epsilon", native_size=512, text_width=768, train_steps=1000)
SD2_BASE = Kind("epsilon", native_size=512, text_width=1024, train_steps=1000)
SD2_V = Kind("v_prediction", native_size=768, text_width=1024, train_steps=1000)
# Of hub ids what stands behind the owner, whoever uploaded it, for machines without a network.
KNOWN = {
    "stable-diffusion-v1-1": SD1,
    "stable-diffusion-v1-2": SD1,
    "stable-diffusion-v1-3": SD1,
    "stable-diffusion-v1-4": SD1,
    "stable-diffusion-v1-5": SD1,
    "stable-diffusion-2-base": SD2_BASE,
    "stable-diffusion-2-1-base": SD2_BASE,
    "stable-diffusion-2": SD2_V,
    "stable-diffusion-2-1": SD2_V,
}


def reader(source: str, unet_id: str | None = None) -> Read:
    """Reads the JSON files of a folder or hub id; the UNet's of another one if that is given.

    It raises `Unknown` for a file that is not there or cannot be read.
    """

    def read(name: str) -> dict:
        if unet_id and name == "unet/config.json":
            return read_unet(unet_id)
        if Path(source).is_file():
            return read_of_file(Path(source), name)
        return read_json(place_of(source, name), f"{source} has no readable {name}")

    return read


def read_of_file(path: Path, name: str) -> dict:
    """What a folder would have in a JSON file, of a checkpoint of one file. Raises Unknown."""
    try:
        return read_single_file(path).read(name)
    except (ValueError, OSError) as error:
        raise Unknown(str(error)) from error


def place_of(source: str, name: str) -> Path:
    """A file of a folder or hub id. Raises NotHere."""
    if Path(source).is_dir():
        return Path(source) / name
    found = hub_file(source, name)
    if found is None:
        why = "the hub does not hand it out" if is_reachable() else "the hub cannot be reached"
        raise NotHere(f"{name} of {source} is not on this machine, and {why}")
    return found


def read_unet(unet_id: str) -> dict:
    """The configuration of a UNet, itself or in its subfolder `unet`. Raises Unknown."""
    fault = f"--unet_id {unet_id} has no readable config.json"
    if Path(unet_id).is_dir():
        itself, below = (Path(unet_id) / name for name in UNET_FILES)
        return read_json(itself if itself.is_file() else below, fault)
    itself, below = UNET_FILES
    found = hub_file(unet_id, below)
    return read_json(found or place_of(unet_id, itself), fault)


def read_json(path: Path, fault: str) -> dict:
    """A file's content. Raises Unknown with this message."""
    try:
        return dict(json_of(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise Unknown(fault) from error
    except (OSError, ValueError, TypeError) as error:
        why = pointer_fault(path) or reason_of(error)
        raise Unknown(f"{fault} ({why})") from error


def side_of(sample_size: Any) -> int:
    """Side of a UNet's latents from its sample_size: a number, or height and width.

    Raises Unknown for none, or where they differ.
    """
    side = sample_size
    if isinstance(sample_size, (list, tuple)) and len(sample_size) == 2:
        side, width = sample_size
        if side != width:
            raise Unknown(f"its latents are {side} by {width}, and images here are square")
    if not isinstance(side, int) or side < 1:
        raise Unknown(f"its UNet's sample_size is {sample_size!r}")
    return side
