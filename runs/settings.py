"""Settings: frozen dataclasses whose fields are command-line flags, declared once.

A flag knows its type, default, range, choices, help, what it excludes, whether it belongs to the
identity of a run, and whether a preset may set it. The command line (`runs/cli.py`), presets,
sweeps and Python calls all go through it, so a wrong value gives the same message everywhere.

argparse stays underneath. The official flags are flat and spelled with underscores, two methods may
share a flag with different defaults, and a preset fills what was not typed. Libraries that make a
command line from a dataclass fill its defaults in first, so that this is lost. pydantic would check
ranges, but its messages do not say what to type, and to import its dataclasses takes about 0.2 s of
processor time, nearly as long as all of `--help`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, dataclass_transform, get_args

from memorization_suite.runs.hashes import content_hash

TYPES = {"int": int, "float": float, "str": str, "bool": bool, "Path": Path}
LONGEST = 40  # letters of a number that a message shows
BOUNDS = {  # of a number -> whether it holds, and its words
    "above": (operator.gt, "above"),
    "at_least": (operator.ge, "of at least"),
    "at_most": (operator.le, "of at most"),
}


@dataclass(frozen=True)
class Settings:
    """A frozen dataclass of flags. Wrong values raise ValueError when it is made."""

    def __post_init__(self) -> None:
        for option in flags(self):
            value = checked(option, getattr(self, option.name))
            object.__setattr__(self, option.name, value)

    def named_values(self) -> dict[str, Any]:
        """Short name -> value of what is in use, in the order of the folder's name.

        Unset flags are left out, and flags that a set one excludes.
        """
        unused = excluded(self)
        used = {}
        for option in flags(self):
            value = getattr(self, option.name)
            named = option.metadata["always_named"] or value != option.default
            if value in (None, "") or not option.metadata["changes_result"] or not named:
                continue
            if option.name not in unused:
                used[option.metadata["short"]] = name_part(option, value)
        return used


def flag(
    default: Any,
    text: str,
    *,
    short: str = "",
    alias: str = "",
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    several: bool = False,
    file: bool = False,
    excludes: tuple[str, ...] = (),
    always_named: bool = True,
    changes_result: bool = True,
    preset: bool = True,
    metavar: str | None = None,
) -> Any:
    """A dataclass field that is also a command-line flag."""
    metadata = {
        "help": text,
        "short": short,  # its name in folder names; "": the field's
        "alias": alias,  # a second spelling on the command line, such as -b
        "above": above,  # bounds of a number; `above` itself is out of range
        "at_least": at_least,
        "at_most": at_most,
        "choices": choices,  # what a text may be
        "several": several,  # a text of several choices, comma-separated, or of none
        "file": file,  # a text that names a file, which must exist; "": not given
        "excludes": excludes,  # flags that may not be typed beside it, unused when it is set
        "always_named": always_named,  # False: in the folder's name only when not the default
        "changes_result": changes_result,  # copied to the identity of a run
        "preset": preset,  # may stand in a preset file
        "metavar": metavar,
    }
    return field(default=default, metadata=metadata)


def unkeyed(default: Any, text: str, **more: Any) -> Any:
    """A flag that is not copied to the identity of a run, and that no preset sets.

    It says where and how things are done. Where its content decides results (the method, the
    prompts), the plan adds that to the identity: see `Plan.identity`.
    """
    return flag(default, text, changes_result=False, preset=False, **more)


def quirks(**repeats: str) -> Any:
    """The flag --official: peculiarities of an official code to repeat, comma-separated.

    repeats: name of a peculiarity -> what the official code does there.
    """
    known = ",".join(repeats)
    text = f"peculiarities of the official code to repeat, any of {known}"
    option = flag("", text, choices=tuple(repeats), several=True, always_named=False)
    option.metadata = {**option.metadata, "repeats": repeats}
    return option


def again(owner: type[Settings], name: str, **changes: Any) -> Any:
    """A flag of another class with another `default`, or other metadata by the names of `flag`."""
    option = owner.__dataclass_fields__[name]
    default = changes.pop("default", option.default)
    text = changes.pop("text", option.metadata["help"])
    return field(default=default, metadata={**option.metadata, "help": text, **changes})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def frozen_settings(cls):
    """Class decorator: a frozen dataclass. Flags without a short name are called as they are.

    Raises TypeError for a flag of a type that the command line cannot have.
    """
    for annotated, option in vars(cls).items():
        if isinstance(option, dataclasses.Field) and not option.metadata.get("short"):
            option.metadata = option.metadata | {"short": annotated}  # type: ignore[assignment]
    made = dataclass(frozen=True, kw_only=True)(cls)
    for option in flags(made):
        value_type(option)
    return made


# --- reading declarations ---


def flags(settings: Settings | type[Settings]) -> list[dataclasses.Field]:
    """The fields that are flags."""
    return [option for option in dataclasses.fields(settings) if "help" in option.metadata]


def flag_names(settings: Settings | type[Settings]) -> list[str]:
    """Their names."""
    return [option.name for option in flags(settings)]


def value_type(option: dataclasses.Field) -> type:
    """int, float, str, bool or Path: the first name in the field's annotation.

    Of `tuple[Path, ...]`, a flag that takes several values, it is Path.
    """
    annotation = annotation_of(option)
    name = annotation.removeprefix("tuple[").split(",")[0].split(" ")[0]
    if name not in TYPES:
        raise TypeError(
            f"the flag {option.name} is of type {annotation}; possible are {', '.join(TYPES)}, "
            "the same or None, and a tuple of one of them"
        )
    return TYPES[name]


def takes_many(option: dataclasses.Field) -> bool:
    """Whether the flag takes several values."""
    return annotation_of(option).startswith("tuple[")


def annotation_of(option: dataclasses.Field) -> str:
    """The field's annotation as it is written, `pathlib.Path | None` as `Path | None`."""
    written = option.type
    if isinstance(written, type) and not get_args(written):
        return written.__name__
    return str(written).replace("pathlib.", "")


def excluded(settings: Settings) -> set[str]:
    """Names of the flags that are unused, since a flag that excludes them is set."""
    found: set[str] = set()
    for option in flags(settings):
        if getattr(settings, option.name) != option.default:
            found |= set(option.metadata["excludes"])
    return found


def check_excluded(settings: type[Settings], typed: Mapping[str, Any]) -> None:
    """Raises ValueError for two flags of which one excludes the other. typed: name -> value; None
    and False stand for a flag that was not typed.
    """
    given = [name for name, value in typed.items() if value is not None and value is not False]
    for option in flags(settings):
        for other in option.metadata["excludes"]:
            if option.name in given and other in given:
                raise ValueError(f"--{option.name} and --{other} exclude each other: leave out one")


def flag_owners(
    registry: Mapping[str, type[Settings]],
) -> dict[str, list[tuple[str, dataclasses.Field]]]:
    """Flag name -> [(name in the registry, field), ...]."""
    owners: dict[str, list[tuple[str, dataclasses.Field]]] = {}
    for name, cls in registry.items():
        for option in flags(cls):
            owners.setdefault(option.name, []).append((name, option))
    return owners


def identity_of(settings: Settings) -> dict[str, Any]:
    """Name -> value of the flags that decide results."""
    return {
        option.name: getattr(settings, option.name)
        for option in flags(settings)
        if option.metadata["changes_result"]
    }


def plain_values(settings: Settings) -> dict[str, Any]:
    """Name -> value of all flags, for JSON: 0 and 1 for a method's switches, texts for paths."""
    found = {}
    for option in flags(settings):
        value = getattr(settings, option.name)
        if isinstance(value, bool):
            value = int(value)
        elif isinstance(value, Path):
            value = str(value)
        found[option.name] = value
    return found


# --- checking values ---


def checked(option: dataclasses.Field, value: Any) -> Any:
    """The value in the flag's type: 50 and 50.0 are one setting. Raises ValueError."""
    if value is None and option.default is None:
        return None
    if takes_many(option):
        many = value if isinstance(value, (list, tuple)) else (value,)
        return tuple(checked_one(option, one) for one in many)
    return checked_one(option, value)


def checked_one(option: dataclasses.Field, value: Any) -> Any:
    """One value in the flag's type. Raises ValueError when it is of another, or out of range."""
    found = converted(option, value)
    kind = value_type(option)
    if kind in (int, float):
        check_bounds(option, value)
    elif kind is str and found != option.default and option.metadata["choices"]:
        check_choice(option, found)
        if option.metadata["several"]:
            found = in_order_of_choices(option, found)
    elif option.metadata["file"] and found and not Path(found).is_file():
        raise ValueError(f"--{option.name}: there is no file {found}")
    return found


def converted(option: dataclasses.Field, value: Any) -> Any:
    """The value in the flag's type, where nothing is lost. Raises ValueError for another type."""
    kind = value_type(option)
    if kind is bool:
        if value not in (0, 1):
            raise ValueError(f"--{option.name} {value!r} is neither 0 nor 1")
        return bool(value)
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    if kind is str and isinstance(value, Path):
        return str(value)
    fits = isinstance(value, (int, float)) if kind is float else isinstance(value, kind)
    if isinstance(value, bool) or not fits:
        raise ValueError(f"--{option.name} must be of type {kind.__name__}, not {value!r}")
    try:
        return kind(value)
    except OverflowError as error:
        raise ValueError(
            f"--{option.name} {written(value)} is out of range: it must be a finite "
            f"number{range_text(option)}"
        ) from error


def check_bounds(option: dataclasses.Field, value: float) -> None:
    """Raises ValueError when a number is not finite or out of the flag's range."""
    fits = is_finite(value)
    for name, (holds, _) in BOUNDS.items():
        bound = option.metadata[name]
        fits = fits and (bound is None or holds(value, bound))
    if not fits:
        number = "whole number" if value_type(option) is int else "finite number"
        raise ValueError(
            f"--{option.name} {written(value)} is out of range: it must be a "
            f"{number}{range_text(option)}"
        )


def is_finite(value: float) -> bool:
    """Whether a number is finite as its flag's type: a whole number may be too large for a
    float.
    """
    return isinstance(value, int) or math.isfinite(value)


def written(value: float) -> str:
    """A number in a message: a very long one by its first digits."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} digits)"


def range_text(option: dataclasses.Field) -> str:
    """The flag's range as the end of a sentence; empty without one."""
    at_least = option.metadata["at_least"]
    at_most = option.metadata["at_most"]
    if at_least is not None and at_most is not None:
        return f" from {number_text(at_least)} to {number_text(at_most)}"
    text = ""
    for name, (_, words) in BOUNDS.items():
        bound = option.metadata[name]
        if bound is not None:
            text += f" {words} {number_text(bound)}"
    return text


def check_choice(option: dataclasses.Field, value: str) -> None:
    """Raises ValueError for a text that is none of the flag's choices."""
    several = option.metadata["several"]
    parts = parts_of(value) if several else [value]
    unknown = [part for part in parts if part not in option.metadata["choices"]]
    if unknown or len(set(parts)) < len(parts):
        choices = ", ".join(option.metadata["choices"])
        raise ValueError(f"--{option.name} {value!r} is not possible; there are {choices}")


def parts_of(value: str) -> list[str]:
    """The choices in a text of several."""
    return [part for part in value.split(",") if part]


def in_order_of_choices(option: dataclasses.Field, value: str) -> str:
    """A text of several choices, however they were typed: as the flag lists them."""
    typed = parts_of(value)
    return ",".join(choice for choice in option.metadata["choices"] if choice in typed)


# --- names ---


def name_part(option: dataclasses.Field, value: Any) -> Any:
    """A value as it stands in folder names and identities: files by their content."""
    if option.metadata["file"]:
        return content_hash(Path(value))[:8]
    return int(value) if isinstance(value, bool) else value


def number_text(value: Any) -> str:
    """%g for a float; whole numbers (seeds are long) and texts as they are."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def closest(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest to this one; empty when none is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")


def unknown_name(kind: str, name: str, known: Iterable[str], more: str = "") -> ValueError:
    """The error for a name that nothing has. more: the end of the message."""
    names = list(known)
    near = closest(name, names)
    meant = f". Did you mean {near}?" if near else ""
    return ValueError(f"there is no {kind} {name!r}; there are {', '.join(names)}{more}{meant}")


def build(registry: Mapping[str, type[Settings]], kind: str, name: str, values: dict) -> Any:
    """An entry of a registry with its settings. Raises ValueError for what it does not know."""
    if name not in registry:
        raise unknown_name(kind, name, registry)
    cls = registry[name]
    for setting in sorted(set(values) - set(flag_names(cls))):
        takes = ", ".join(flag_names(cls)) or "nothing"
        raise ValueError(f"{name} does not take {setting!r}; it takes {takes}")
    return cls(**values)
