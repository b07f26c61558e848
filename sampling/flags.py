"""Settings that are also command-line flags, declared once, beside what they set."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Settings:
    """A frozen dataclass whose fields made by `flag` are command-line flags; wrong values raise
    ValueError when it is made.
    """

    def settings(self) -> dict[str, Any]:
        """Short name -> value of what is in use, in the order of the folder's name; unset options
        are left out.
        """
        used = {}
        for option in flags(self):
            value = getattr(self, option.name)
            always = option.metadata["always_named"] or value != option.default
            if value not in (None, "") and option.metadata["changes_result"] and always:
                used[option.metadata["short"]] = (
                    file_name(value) if option.metadata["file"] else value
                )
        return used

    def __post_init__(self) -> None:
        for option in flags(self):
            value = getattr(self, option.name)
            check_value(option, value)
            if value is not None and value_type(option) is float:
                object.__setattr__(self, option.name, float(value))  # 50 and 50.0 are one setting


def flag(
    default,
    text: str,
    *,
    short: str = "",
    above: float | None = None,
    at_least: float | None = None,
    always_named: bool = True,
    changes_result: bool = True,
    excludes: str = "",
    choices: tuple[str, ...] = (),
    file: bool = False,
) -> Any:
    """A dataclass field that is also a command-line flag.

    short: its name in folder names. above, at_least: bounds. always_named=False: in the folder's
    name only when it is not the default. changes_result=False: never in the name. excludes: a flag
    that may not be typed beside it.
    choices: what a text may be. file: a text that names a file, which must exist ("": not given);
    folder names carry a hash of its content.
    """
    return field(
        default=default,
        metadata={
            "help": text,
            "short": short,
            "above": above,
            "at_least": at_least,
            "always_named": always_named,
            "changes_result": changes_result,
            "excludes": excludes,
            "choices": choices,
            "file": file,
        },
    )


def frozen_settings(cls):
    """Class decorator: a frozen dataclass, whose flags without a short name are called as they
    are.
    """
    for annotated, option in vars(cls).items():
        if isinstance(option, dataclasses.Field) and not option.metadata["short"]:
            option.metadata = option.metadata | {"short": annotated}  # type: ignore[assignment]
    return dataclass(frozen=True)(cls)


def quirks(*known: str) -> Any:
    """The flag --official: peculiarities of a method's official code to repeat, for comparisons
    with it; comma-separated.
    """
    return flag(
        "",
        f"peculiarities of the official code to repeat, any of {','.join(known)}",
        choices=known,
        always_named=False,
    )


def flags(settings: Settings | type[Settings]) -> list[dataclasses.Field]:
    """The fields that are flags."""
    return [option for option in dataclasses.fields(settings) if "help" in option.metadata]


def value_type(option: dataclasses.Field) -> type:
    """int, float or str: the first name in the field's annotation."""
    annotation = getattr(option.type, "__name__", str(option.type))
    return {"int": int, "float": float, "str": str}[annotation.split(" ")[0]]


def check_value(option: dataclasses.Field, value: Any) -> None:
    """Raises ValueError when a flag's value is of the wrong type, not finite or out of its
    bounds.
    """
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
    elif option.metadata["file"] and value and not Path(value).is_file():
        raise ValueError(f"--{option.name}: there is no file {value}")


def check_choice(option: dataclasses.Field, value: str) -> None:
    """Raises ValueError for a text that is none of the flag's choices; --official takes several, or
    none.
    """
    parts = [part for part in value.split(",") if part] if option.name == "official" else [value]
    unknown = [part for part in parts if part not in option.metadata["choices"]]
    if unknown or len(set(parts)) < len(parts):
        raise ValueError(
            f"--{option.name} {value!r} is not possible; there are "
            f"{', '.join(option.metadata['choices'])}"
        )


def file_name(path: str) -> str:
    """Stands for a file in folder names: the beginning of its content's hash, since a path is no
    part of a name.
    """
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]


def check_bounds(option: dataclasses.Field, value: float) -> None:
    """Raises ValueError when a number is not finite or out of the flag's bounds."""
    above, at_least = option.metadata["above"], option.metadata["at_least"]
    if (
        not math.isfinite(value)
        or (above is not None and value <= above)
        or (at_least is not None and value < at_least)
    ):
        bound = (
            f" above {above:g}"
            if above is not None
            else f" of at least {at_least:g}"
            if at_least is not None
            else ""
        )
        raise ValueError(
            f"--{option.name} {value} is out of range: it must be a finite number{bound}"
        )


def flag_owners(
    registry: Mapping[str, type[Settings]],
) -> dict[str, list[tuple[str, dataclasses.Field]]]:
    """Flag name -> [(name in the registry, field), ...]."""
    owners: dict[str, list[tuple[str, dataclasses.Field]]] = {}
    for name, cls in registry.items():
        for option in flags(cls):
            owners.setdefault(option.name, []).append((name, option))
    return owners


def add_flags(group, registry: Mapping[str, type[Settings]]) -> None:
    """Every flag of every entry, for argparse; what is not typed is absent from the namespace."""
    for name, owners in flag_owners(registry).items():
        kinds = {value_type(option) for _, option in owners}
        if len(kinds) > 1:
            raise TypeError(
                f"--{name} has different types in {', '.join(owner for owner, _ in owners)}"
            )
        text = "; ".join(
            f"{owner}: {option.metadata['help']} (default {option.default})"
            for owner, option in owners
        )
        group.add_argument(
            f"--{name}", type=kinds.pop(), default=argparse.SUPPRESS, help=text.replace("%", "%%")
        )


def listing(registry: dict[str, Any]) -> str:
    """A text with every entry: paper, cost in UNet rows per image, flags."""
    lines = []
    for name, cls in registry.items():
        lines += [name, f"    paper: {cls.paper}", f"    UNet rows per image (N steps): {cls.cost}"]
        lines += [
            f"    --{option.name} {option.default}: {option.metadata['help']}"
            for option in flags(cls)
        ]
    return "\n".join(lines)
