"""Why a part of a model does not load, told by its files, before or after a library tried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from memorization_suite.pipelines.model_files import WEIGHTS, is_beside, is_variant
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.pointers import pointer_fault
from memorization_suite.runs.text import first_of
from memorization_suite.runs.whole import tensors_fault

# Variants that are the same weights rounded, in the order of choice.
ROUNDED = ("fp32", "fp16", "bf16")


def variants_of(folder: Path) -> list[str]:
    """The variants of a part's weights, where there are no weights without one: `fp16`."""
    matches = [match for path in names(folder) if (match := WEIGHTS.fullmatch(path.name))]
    if not all(is_variant(match) for match in matches):
        return []
    found = {(match["late"] or match["variant"]).lstrip(".") for match in matches}
    known = [name for name in ROUNDED if name in found]
    return [*known, *sorted(found - set(known))]


def fault_of_part(folder: Path) -> str:
    """What is wrong with the files of a network or another part, as a sentence; empty if nothing
    is. Tensors are not looked at, but for the size of their files.
    """
    if not folder.is_dir():
        return f"there is no folder {folder}"
    files = list(names(folder))
    if not files:
        return f"{folder} is empty"
    return next(filter(None, faults(folder, files)), "")


def fault_of_network(folder: Path) -> str:
    """The same of a network, which needs a configuration and weights."""
    fault = fault_of_part(folder)
    if fault:
        return fault
    there = [path.name for path in names(folder)]
    if "config.json" not in there:
        return f"{folder} has no config.json, only {first_of(there)}"
    if not any(WEIGHTS.fullmatch(name) for name in there):
        return f"{folder} has no weights (model.safetensors and the like), only {first_of(there)}"
    return ""


def first_pointer(files: Iterable[Path]) -> str:
    """The fault of the first file that Git LFS did not bring; empty if all are there."""
    return next(filter(None, map(pointer_fault, files)), "")


def faults(folder: Path, files: list[Path]) -> Iterator[str]:
    """The fault of each file, empty for most."""
    yield first_pointer(files)
    for path in files:
        if path.suffix == ".json":
            yield fault_of_json(folder, path)
        elif path.suffix == ".safetensors":
            fault = tensors_fault(path)
            yield f"{path} {fault}" if fault else ""
        elif not path.stat().st_size:
            yield f"{path} is empty"


def fault_of_json(folder: Path, path: Path) -> str:
    """Of a JSON file, and of the pieces that it lists."""
    try:
        content = json_of(path.read_text(encoding="utf-8"))
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    except ValueError as error:
        return f"{path} is no JSON: {error}"
    pieces = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(pieces, dict):
        return ""
    lost = sorted({str(piece) for piece in pieces.values() if not (folder / str(piece)).is_file()})
    return f"{path} lists {first_of(lost)}, which {folder} does not have" if lost else ""


def names(folder: Path) -> Iterator[Path]:
    """The files of a part, in their order, without those that lie beside a model."""
    return (path for path in sorted(folder.iterdir()) if not is_beside(path))
