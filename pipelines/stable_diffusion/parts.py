"""The networks of a model folder, each loaded with the report of the library that does it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memorization_suite.pipelines.part_files import (
    ROUNDED,
    fault_of_network,
    fault_of_part,
    variants_of,
)
from memorization_suite.runs.lazy import Lazy, torch
from memorization_suite.runs.nobodys import owned
from memorization_suite.runs.notices import say
from memorization_suite.runs.text import reason_of
from memorization_suite.runs.weights import Incomplete, Report, quiet_reports

diffusers = Lazy("diffusers")
transformers = Lazy("transformers")

# Arguments of `from_pretrained` that a network is loaded with: of both libraries, of diffusers.
PASSED = ("use_safetensors", "low_cpu_mem_usage", "disable_mmap")
# Arguments of `from_pretrained` that change how a network is built or where it lies: with one of
# these diffusers loads it itself, and nothing is checked.
NOT_CHECKED = (
    "custom_pipeline",
    "device_map",
    "provider",
    "quantization_config",
    "use_flashpack",
    "use_onnx",
)

# Part -> how names of tensors begin that no output uses, and that may be missing: what BERT makes
# of its first token alone.
NOT_NEEDED = {"text_encoder": ("pooler.",)}


def load_networks(folder: Path, index: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Part -> network, for all that the index names and the options do not give.

    index: of model_index.json. options: of `from_pretrained`. Raises Incomplete.
    """
    dtype = options.pop("dtype", None) or options.pop("torch_dtype", None)
    if dtype is not None and not isinstance(dtype, (dict, torch.dtype)):
        dtype = torch.float32  # as diffusers does, which says so
    networks = {}
    rounded: dict[str | None, list[str]] = {}
    listed = [part for part in index if part not in options and (folder / part).is_dir()]
    for part in listed:
        kind = class_of(index[part])
        if kind is None:
            continue
        given = dict(options)
        if not options.get("variant"):
            given["variant"] = only_variant(folder / part, f"its {part}")
            rounded.setdefault(given["variant"], []).append(part)
        networks[part] = load_network(folder / part, part, kind, dtype=dtype, **given)
    for variant, parts in rounded.items():
        say_variant(variant, f"its {', '.join(parts)}", folder)
    return networks


def say_variant(variant: str | None, what: str, folder: Path) -> None:
    """Says once that weights are those of a variant, which nobody asked for."""
    if variant:
        say(f"{folder}: of {what} there are weights of the variant {variant} alone, which are used")


def only_variant(folder: Path, what: str) -> str | None:
    """The variant that has to be loaded, where a part has no weights without one.

    Raises Incomplete where there are several that are not the same weights rounded.
    """
    found = variants_of(folder)
    if len(found) > 1 and found[0] not in ROUNDED:
        first = found[0]
        raise Incomplete(
            f"{what} has weights of the variants {', '.join(found)} alone: take .{first} or "
            f"another out of the names of the files in {folder} that are meant"
        )
    return found[0] if found else None


def class_of(entry: Any) -> type | None:
    """The class of a network by its entry in model_index.json, (library, name); None for others."""
    if not isinstance(entry, (list, tuple)) or len(entry) != 2 or None in entry:
        return None
    library, name = entry
    if hasattr(diffusers.pipelines, library):
        return None  # one pipeline's own, as a safety checker: diffusers takes no object for it
    try:
        module = importlib.import_module(library)
    except ImportError:
        return None  # of code that lies beside the model
    kind = getattr(module, name, None)
    networks = (diffusers.ModelMixin, transformers.PreTrainedModel)
    return kind if isinstance(kind, type) and issubclass(kind, networks) else None


def load_network(
    folder: Path, part: str, kind: type, *, dtype: Any, variant: str | None = None, **options
) -> Any:
    """A network as diffusers loads it. dtype: one for all, or of each part.

    Raises Incomplete when tensors are missing or have another shape.
    """
    if not (folder / "config.json").is_file():  # transformers would take one of its own
        raise Incomplete(f"its {part} cannot be loaded: {fault_of_network(folder)}")
    if isinstance(dtype, dict):
        dtype = dtype.get(part, dtype.get("default", torch.float32))
    ours = issubclass(kind, diffusers.ModelMixin)
    passed = PASSED if ours else PASSED[:1]
    given = {name: options[name] for name in passed if name in options}
    if variant and any(f".{variant}" in name for name in owned(os.listdir(folder))):
        given["variant"] = variant
    given["torch_dtype" if ours else "dtype"] = dtype
    return checked(kind, f"its {part}", folder, not_needed=NOT_NEEDED.get(part, ()), **given)


def checked(
    kind: Any, what: str, place: str | Path, *, not_needed: tuple[str, ...] = (), **options: Any
) -> Any:
    """The network of a class that diffusers or transformers load from a folder or hub id.

    what: it is, for people. not_needed: how names of tensors begin that may be missing. Raises
    Incomplete when others are, or have another shape, and for files that the library cannot read.
    """
    folder = Path(place) / (options.get("subfolder") or "")
    with quiet_reports(), told_of(what, folder, fault_of_network):
        network, told = kind.from_pretrained(
            place, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    Report.of(told, network).but(not_needed).check(what, place)
    return network


@contextmanager
def told_of(what: str, folder: Path, fault_of: Callable[[Path], str]) -> Iterator[None]:
    """Inside the block an error of a library becomes Incomplete that names the part, the file and
    the library's own reason. What is no folder, such as a hub id, is left to others.
    """
    try:
        yield
    except (Incomplete, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if not folder.parent.is_dir():
            raise
        fault = fault_of(folder) or f"it lies in {folder}"
        raise Incomplete(f"{what} cannot be loaded: {fault} ({reason_of(error)})") from error


def check_others(folder: Path, index: Mapping[str, Any]) -> None:
    """Raises Incomplete for the first part that is no network and that cannot be loaded, to be
    asked when a library failed to load all. index: of the parts that are needed.
    """
    for part, entry in index.items():
        if not isinstance(entry, (list, tuple)) or len(entry) != 2 or None in entry:
            continue
        library, name = entry
        with told_of(f"its {part}", folder / part, fault_of_part):
            getattr(importlib.import_module(library), name).from_pretrained(folder / part)
