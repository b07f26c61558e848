"""A place that is free, to type, for work whose own place holds other work."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memorization_suite.runs.identity import Content, named_in
from memorization_suite.runs.settings import number_text

# What names a folder best, first, and what it is called there.
FIRST = ("model_id", "unet_id", "num_inference_steps")
SHORT = {
    "num_inference_steps": "steps",
    "n_samples_per_prompt": "n",
    "image_length": "size",
    "batch_size": "batch",
    "guidance_scale": "g",
}
# How many differences a name tells, letters of each, and of the name that is there.
MOST = 2
LENGTH = 40
LONGEST = 100
# How many names are tried.
TRIED = 100


def free_place(base: Path, suffix: str, fits: Callable[[Path], bool]) -> str:
    """A path beside this one, quoted for a shell. fits: whether it can be used."""
    named = base.name not in ("", "..")
    stem = f"{base.stem[:LONGEST]}_{suffix}" if named else suffix
    above = base.parent if named else base
    ends = ["", *(f"_{number}" for number in range(2, TRIED))]
    places = [above / f"{stem}{end}{base.suffix if named else ''}" for end in ends]
    return shlex.quote(str(next(filter(fits, places), places[0])))


def suffix_of(changed: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What tells a run from the one that is there: `tiny-v_steps20`.

    changed: name -> value of what is not the same. config: what had been typed there, by flags.
    """
    names = [name for name in FIRST if name in changed]
    names += [name for name in changed if name not in FIRST]
    parts = [part_of(name, changed[name], named_in(config, changed[name])) for name in names]
    return "_".join([part for part in parts if part][:MOST]) or "other"


def part_of(name: str, value: Any, there: str) -> str:
    """What a value is called in a folder's name; empty for one that is none."""
    if isinstance(value, Content):
        return as_name(told_apart(value.label or value, there))
    if isinstance(value, str):
        return as_name(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return as_name(f"{SHORT.get(name, name)}{number_text(value)}")
    return ""


def told_apart(label: str, there: str) -> str:
    """The last parts of a path or hub id, as many as tell it from another one."""
    own = Path(os.path.normpath(label)).parts[-3:]
    other = Path(os.path.normpath(there)).parts
    for length in range(1, len(own) + 1):
        if own[-length:] != other[-length:]:
            return "-".join(own[-length:])
    return own[-1] if own else ""


def as_name(text: str) -> str:
    """A text with letters that a folder's name may have, and no shell reads."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip("-.")[:LENGTH]
