"""Which files of a model's folder are read, and so decide what the model does."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
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

# What lies beside weights and is not loaded with them: states of an optimizer or of random numbers,
# notes, logs. `merges.txt` and `vocab.txt` are a tokenizer's.
LEFT_BY_TRAINING = re.compile(
    r"(?!merges\.txt|vocab).*\.txt"
    r"|(?!adapter_model\.).*\.(?:bin|pt|pth|pkl|npz|safetensors)"
    r"|trainer_state\.json|.*\.log|events\.out\.tfevents.*"
)


def every_file(folder: Path) -> list[Path]:
    """All files of a folder but those beside the model, also behind links."""
    return sorted(path for path in walk(folder) if not is_beside(path))


def files_of_part(folder: Path) -> list[Path]:
    """The files that diffusers and transformers read of a part such as `unet`: configurations and
    vocabularies, and the weights in one format, safetensors if they are there. Variants of weights
    count where there are no others.

    Beside weights only the folder itself is read, and nothing that a training left there.
    """
    found = every_file(folder)
    direct = [path for path in found if path.parent == folder]
    weights = weights_in(direct)
    if not weights:
        return without_others(found, weights)
    return [
        path
        for path in without_others(direct, weights)
        if path in weights or not LEFT_BY_TRAINING.fullmatch(path.name)
    ]


def former_files_of_part(folder: Path) -> list[Path]:
    """Those that earlier versions counted: also what lies beside the weights, and in folders."""
    found = every_file(folder)
    return without_others(found, weights_in(found))


def weights_in(found: Iterable[Path]) -> set[Path]:
    """The weights that are read."""
    weights = {path: match for path in found if (match := WEIGHTS.fullmatch(path.name))}
    usual = {path: match for path, match in weights.items() if not is_variant(match)}
    read = usual or weights
    if any(match["format"] == "safetensors" for match in read.values()):
        return {path for path, match in read.items() if match["format"] == "safetensors"}
    return set(read)


def without_others(found: Iterable[Path], read: Collection[Path]) -> list[Path]:
    """The files but those of weights that are not read."""
    files = []
    for path in found:
        is_other = WEIGHTS.fullmatch(path.name) and path not in read
        if not is_other and path.suffix not in OTHER_FORMATS:
            files.append(path)
    return files


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


def files_of_parts(
    folder: Path, names: Iterable[str], files: Callable[[Path], list[Path]] = files_of_part
) -> list[Path]:
    """The files of the named parts that are there. files: which of a part's."""
    parts = [folder / name for name in names if (folder / name).is_dir()]
    return [path for part in parts for path in files(part)]
