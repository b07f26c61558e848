"""What the registries say, as Markdown: methods and detectors, and what download/ fetches."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

from memorization_suite.commands.sweeps.nfe import formula_of
from memorization_suite.detection import DETECTORS, Detector
from memorization_suite.download.assets import read_assets
from memorization_suite.mitigation import METHODS
from memorization_suite.mitigation.base import Mitigation
from memorization_suite.runs.settings import Settings, flags, number_text
from memorization_suite.runs.text import markdown_table

Rows = list[dict[str, str]]
# Of a sampler, to see whether a detector looks at all of them.
STEPS = 50

# Hook of the sampler -> what a method changes by it.
CHANGES = {
    "edit_prompts": "prompt",
    "edit_embeddings": "embedding",
    "adjust_initial_noise": "initial noise",
    "guidance": "guidance",
    "patch": "attention",
}


# --- methods


def methods_by_name() -> str:
    """Every mitigation, a line each."""
    rows = []
    for name, method in METHODS.items():
        rows.append(
            {
                "`--method`": f"`{name}`",
                "paper": method.paper,
                "NFE per image": formula_of(method.cost),
                "changes": changes_of(method),
            }
        )
    return markdown_table(rows)


def methods_in_short() -> str:
    """The same for the README: name, paper and cost."""
    return in_short("`--method`", METHODS)


def method_sections() -> str:
    """A section for every mitigation: what it does, what it costs, its flags."""
    return "\n\n".join(map(section, METHODS.values()))


def changes_of(method: type[Mitigation]) -> str:
    """What a method changes, by the hooks that it defines."""
    changed = []
    for hook, word in CHANGES.items():
        if getattr(method, hook) is not getattr(Mitigation, hook):
            changed.append(word)
    return ", ".join(changed) or "nothing"


# --- detectors


def detectors_by_name() -> str:
    """Every detector, a line each."""
    rows = []
    for name, detector in DETECTORS.items():
        rows.append(
            {
                "`--detector`": f"`{name}`",
                "paper": detector.paper,
                "NFE per image": formula_of(detector.cost),
                "masks": "yes" if detector.spatial else "",
                "needs": needs_of(detector),
            }
        )
    return markdown_table(rows)


def detectors_in_short() -> str:
    """The same for the README: name, paper and cost."""
    return in_short("`--detector`", DETECTORS)


def detector_sections() -> str:
    """A section for every detector: what it measures, what it costs, its flags."""
    return "\n\n".join(map(section, DETECTORS.values()))


def needs_of(detector: type[Detector]) -> str:
    """What a detector looks at that is not there at the first step."""
    if detector.needs_images:
        return "images of the prompt"
    if detector().steps(STEPS) == STEPS:
        return "the whole trajectory"
    return "the first steps"


# --- assets


def assets() -> str:
    """What download/ fetches, how large it is, and under which license."""
    rows = []
    for name, asset in read_assets().items():
        rows.append(
            {
                "name": f"`{name}`",
                "group": asset.group,
                "size": size_text(asset.size),
                "what": asset.what,
                "license": asset.licence,
            }
        )
    return markdown_table(rows)


def places() -> str:
    """Where each asset goes, relative to the checkout."""
    rows = []
    for name, asset in read_assets().items():
        rows.append({"name": f"`{name}`", "goes to": f"`{asset.where}`"})
    return markdown_table(rows)


def size_text(size: int) -> str:
    """Bytes for people: `99 MB`, `4.3 GB`; `?` when it is not known."""
    for unit, length, digits in (("GB", 1e9, 1), ("MB", 1e6, 0), ("kB", 1e3, 0)):
        if size >= length:
            return f"{size / length:.{digits}f} {unit}"
    return f"{size} B" if size else "?"


# --- what methods and detectors share


def in_short(title: str, registry: Any) -> str:
    """Name, paper and cost of every entry."""
    rows = []
    for name, cls in registry.items():
        rows.append({title: f"`{name}`", "paper": cls.paper, "NFE per image": formula_of(cls.cost)})
    return markdown_table(rows)


def section(cls: Any) -> str:
    """An entry of a registry: its docstring, its cost, its official code, its flags."""
    facts = [f"- NFE per image: {cls.cost}"]
    if cls.code:
        facts.append(f"- Official code: [{cls.code}](https://github.com/{cls.code})")
    if cls.compared:
        facts.append(f"- Compared: {cls.compared}")
    parts = [
        f"### `{cls.name}`",
        f"{cls.paper}.",
        with_code(inspect.getdoc(cls) or "", cls),
        with_code("\n".join(facts), cls),
        flags_table(cls),
    ]
    return "\n\n".join(filter(None, parts)).rstrip()


def with_code(text: str, cls: type[Settings]) -> str:
    """The text with flags, and names of several words, in the form of code."""
    known = {*METHODS, *DETECTORS, *(option.name for option in flags(cls))}
    words = sorted((name for name in known if "_" in name), key=len, reverse=True)
    names = "|".join([rf"--\w+(?: {value_of(cls)})?", *words])
    return re.sub(rf"(?<![\w`/-])({names})(?![\w`])", r"`\1`", text)


def value_of(cls: type[Settings]) -> str:
    """A pattern of what may be typed after one of its flags: a number, or choices."""
    choices = [choice for option in flags(cls) for choice in option.metadata["choices"]]
    one = "|".join([r"-?[0-9][0-9.]*(?<!\.)", *map(re.escape, choices)])
    return rf"(?:{one})(?:,(?:{one}))*(?!\w)"


def flags_table(cls: type[Settings]) -> str:
    """Its flags with their defaults; empty when it has none."""
    rows = []
    for option in flags(cls):
        rows.append(
            {
                "flag": f"`--{option.name}`",
                "default": default_text(option),
                "meaning": meaning(option, cls),
            }
        )
    return markdown_table(rows) if rows else ""


def default_text(option: dataclasses.Field) -> str:
    """A flag's default as it is typed; empty when there is none."""
    value = option.default
    if value in ("", None):
        return ""
    return f"`{int(value) if isinstance(value, bool) else number_text(value)}`"


def meaning(option: dataclasses.Field, cls: type[Settings]) -> str:
    """What a flag is, and its choices."""
    repeats = option.metadata.get("repeats", {})
    if repeats:
        names = ", ".join(f"`{name}`" for name in repeats)
        return f"[quirks of the official code](../docs/OFFICIAL.md#how-equal): {names}"
    text = with_code(str(option.metadata["help"]).replace("|", "\\|"), cls)
    missing = [choice for choice in option.metadata["choices"] if choice not in text]
    if missing:
        text += f" ({', '.join(option.metadata['choices'])})"
    return text


REFERENCE_PARTS: dict[str, Callable[[], str]] = {
    "methods": methods_by_name,
    "method_sections": method_sections,
    "readme_methods": methods_in_short,
    "detectors": detectors_by_name,
    "detector_sections": detector_sections,
    "readme_detectors": detectors_in_short,
    "assets": assets,
    "asset_places": places,
}
