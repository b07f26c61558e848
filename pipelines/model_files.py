"""Which files of a model's folder are read, and so decide what the model does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from memorization_suite.runs.nobodys import is_nobodys, owned

# What lies beside a model for people, and weights that only other libraries read.
BESIDE = (".md", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg", ".pdf", ".lock", ".part")
OTHER_FORMATS = (".msgpack", ".h5", ".ckpt", ".onnx", ".onnx_data", ".pb", ".tflite", ".gguf")
NAMES_BESIDE = re.compile(r"\..*|LICEN[CS]E.*|README.*|NOTICE.*|presets\.toml", re.IGNORECASE)
# Weights of a part: model, pytorch_model, diffusion_pytorch_model; a variant is told by a word
# such as fp16 behind it, a piece by its number.
WEIGHTS = re.compile(
    r"(?:model|(?:diffusion_)?pytorch_model)"
    r"(?P<variant>\.(?!(?:safetensors|bin)\b)[\w-]+?)?"
    r"(?:-\d+-of-\d+)?\.(?P<format>safetensors|bin)(?P<index>\.index(?P<late>\.[\w-]+)?\.json)?"
)


def every_file(folder: Path) -> list[Path]:
    """All files of a folder but those beside the model, also behind links."""
    return sorted(path for path in walk(folder) if not is_beside(path))


def files_of_part(folder: Path) -> list[Path]:
    """The files that diffusers and transformers read of a part such as `unet`: all configurations,
    and the weights in one format, safetensors if they are there. Variants of weights count where
    there are no others.
    """
    found = every_file(folder)
    weights = {path: match for path in found if (match := WEIGHTS.fullmatch(path.name))}
    usual = {path: match for path, match in weights.items() if not is_variant(match)}
    read = usual or weights
    if any(match["format"] == "safetensors" for match in read.values()):
        read = {path: match for path, match in read.items() if match["format"] == "safetensors"}
    others = weights.keys() - read.keys()
    return [path for path in found if path not in others and path.suffix not in OTHER_FORMATS]


def is_variant(match: re.Match[str]) -> bool:
    """Whether weights are those of a variant."""
    return bool(match["variant"] or match["late"])


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, of which each is entered once."""
    entered = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(parent)
        visible = [name for name in owned(folders) if not name.startswith(".")]
        folders[:] = visible if here not in entered else []
        if here not in entered:
            yield from (Path(parent) / name for name in names)
        entered.add(here)


def is_beside(path: Path) -> bool:
    """Whether a file is none of the model's."""
    is_foreign = path.suffix.lower() in BESIDE or is_nobodys(path.name)
    return is_foreign or bool(NAMES_BESIDE.fullmatch(path.name)) or not path.is_file()


def files_of_parts(folder: Path, names: Iterable[str]) -> list[Path]:
    """The files of the named parts that are there."""
    parts = [folder / name for name in names if (folder / name).is_dir()]
    return [path for part in parts for path in files_of_part(part)]
