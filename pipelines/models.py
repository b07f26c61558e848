"""Models by name: the embedded ones, a local diffusers folder, a file, or a hub id. Checks that
need no heavy import come first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from memorization_suite import ROOT
from memorization_suite.pipelines.family import FAMILIES, Family
from memorization_suite.pipelines.kinds import KNOWN, Kind, NotHere, Unknown, reader
from memorization_suite.pipelines.model_files import files_of_part, files_of_parts
from memorization_suite.pipelines.part_files import fault_of_part, first_pointer
from memorization_suite.pipelines.single_files import read_single_file
from memorization_suite.runs.nobodys import owned
from memorization_suite.runs.parse import json_of, toml_of
from memorization_suite.runs.pointers import pointer_fault
from memorization_suite.runs.text import first_of, reason_of
from memorization_suite.tiny import MODELS

PRESETS = ROOT / "pipelines" / "presets"
INDEX = "model_index.json"
# One of these every folder of a tokenizer has.
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


def resolve_model(model_id: str) -> str:
    """Folder, file or hub id to load from.

    Raises ValueError for a folder or file that is no model, or a name that is none of them.
    """
    if model_id in MODELS:
        if not MODELS[model_id].is_dir():
            raise ValueError(
                f"the embedded model {model_id} is not in {MODELS[model_id]}: this checkout "
                "lacks it (make train-tiny builds it)"
            )
        model_id = str(MODELS[model_id])
    if Path(model_id).is_file():
        read_single_file(Path(model_id))
        return model_id
    if Path(model_id).exists():
        check_model_folder(Path(model_id))
        return model_id
    if model_id.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+/[\w.-]+", model_id):
        raise ValueError(
            f"there is no model {model_id!r}: give a diffusers folder, a .safetensors file, a hub "
            f"id like owner/name, or an embedded model ({', '.join(MODELS)})"
        )
    return model_id


def check_model_folder(folder: Path) -> None:
    """Raises ValueError when the folder lacks what a model of its family needs."""
    listed = read_index(folder)
    family = family_of(listed)
    missing = [part for part in family.parts if part not in listed or not (folder / part).is_dir()]
    if missing:
        raise ValueError(f"{folder} is no {family.title} model: it has no {', '.join(missing)}")
    fault = first_pointer(files_of_parts(folder, family.parts))
    if fault:
        raise ValueError(fault)


def read_index(folder: Path) -> dict:
    """What model_index.json says. Raises ValueError."""
    try:
        return dict(json_of((folder / INDEX).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        files = owned(path.name for path in sorted(folder.glob("*.safetensors")))
        instead = f". It has {first_of(files)}: give one file" if files else ""
        raise ValueError(f"{folder} is no diffusers model: it has no {INDEX}{instead}") from error
    except (OSError, ValueError, TypeError) as error:
        why = pointer_fault(folder / INDEX) or reason_of(error)
        raise ValueError(
            f"{folder} is no diffusers model: it has no readable {INDEX} ({why})"
        ) from error


def family_of(index: Mapping) -> Family:
    """The family of a model by its model_index.json; Stable Diffusion, if none claims it.

    That one then says what does not fit.
    """
    name = index.get("_class_name")
    claiming = (family for family in FAMILIES.values() if name in family.pipelines)
    return next(claiming, FAMILIES["stable_diffusion"])()


def check_tokenizer(model_id: str, tokenizer: str) -> None:
    """Raises ValueError for a --tokenizer that is none, or beside a model with its own."""
    if not tokenizer:
        return
    if not Path(model_id).is_file():
        raise ValueError(
            f"--tokenizer {tokenizer} is for a checkpoint of one file: {model_id} has its own"
        )
    folder = Path(tokenizer)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ValueError(
            f"--tokenizer {tokenizer} is no folder of a tokenizer: it has neither "
            f"{' nor '.join(TOKENIZER_FILES)}"
        )
    fault = fault_of_part(folder)
    if fault:
        raise ValueError(f"--tokenizer {tokenizer}: {fault}")


def check_unet(unet_id: str | None) -> None:
    """Raises ValueError when --unet_id looks like a folder and is none with a UNet in it."""
    if unet_id is None:
        return
    folder = Path(unet_id)
    if not folder.exists() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", unet_id):
        return  # a hub id
    parts = [folder / place for place in ("", "unet")]
    parts = [part for part in parts if (part / "config.json").is_file()]
    if not parts:
        raise ValueError(
            f"--unet_id {unet_id} is no folder of a diffusers UNet: it has neither config.json nor "
            "unet/config.json"
        )
    fault = first_pointer(files_of_part(parts[0]))
    if fault:
        raise ValueError(f"--unet_id {unet_id}: {fault}")


def kind_of(model_id: str, unet_id: str | None = None) -> Kind:
    """What a model is, with another UNet if one is given: by its JSON files, which of a hub id are
    in the cache or fetched, else by a name that is known.

    Raises Unknown, or ValueError for a name that is no model.
    """
    source = resolve_model(model_id)
    read = reader(source, unet_id)
    if Path(source).is_file():
        fault = read_single_file(Path(source)).open_fault()
        if fault:
            raise Unknown(fault)
    try:
        return family_of(read(INDEX)).describe(read)
    except NotHere as error:
        known = KNOWN.get(source.split("/")[-1].lower())
        if known is None or unet_id:
            raise Unknown(f"cannot tell what {model_id} is: {error}") from error
        return replace(known, by_name=True)
    except (Unknown, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unknown(f"cannot tell what {model_id} is: {error}") from error


def load_preset(
    preset: str, model_id: str, unet_id: str | None = None
) -> tuple[str, dict[str, dict]]:
    """(where it is from, tables `generate` and one a method) for --preset.

    `auto`: presets.toml in the model's folder, else ours for models of its kind, else nothing.
    `none`: nothing. Else a file. Raises ValueError for an unreadable file.
    """
    if preset == "none":
        return "none", {}
    if preset != "auto":
        return preset, read_preset(Path(preset))[1]
    models_own = Path(MODELS.get(model_id, model_id)) / "presets.toml"
    if models_own.is_file():
        return f"{model_id}'s own", read_preset(models_own)[1]
    try:
        return preset_of(kind_of(model_id, unet_id))
    except Unknown:
        return "none", {}


def preset_of(kind: Kind) -> tuple[str, dict[str, dict]]:
    """The preset of a kind of models, as of `load_preset`: ours, or that of an embedded model,
    without the files that lie beside that one.
    """
    for path in sorted(PRESETS.glob("*.toml")):
        wanted, tables = read_preset(path)
        if wanted and all(getattr(kind, name) == value for name, value in wanted.items()):
            return str(path.relative_to(ROOT)), tables
    for name, folder in MODELS.items():
        path = folder / "presets.toml"
        if path.is_file() and kind == kind_of(name):
            return f"{name}'s, a model of this kind", without_files(read_preset(path)[1], folder)
    return "none", {}


def without_files(tables: dict[str, dict], folder: Path) -> dict[str, dict]:
    """The tables without what names a file in or near a model's folder: it is of that model."""
    kept = {}
    for name, table in tables.items():
        kept[name] = {key: value for key, value in table.items() if str(folder) not in str(value)}
    return kept


def read_preset(path: Path) -> tuple[dict[str, Any], dict[str, dict]]:
    """(`kind`: what a model is that it is for, tables) of a preset file.

    A text that begins with ./ is a file beside it. Raises ValueError.
    """
    try:
        tables = toml_of(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the preset {path}: {error}") from error
    kind = tables.pop("kind", {})
    for table in tables.values():
        if not isinstance(table, dict):
            continue
        for name, value in table.items():
            if isinstance(value, str) and value.startswith("./"):
                table[name] = str(path.parent / value)
    return kind, tables
