"""The sections [[figure]], [[table]] and [[claim]] of a sweep file, as objects.

[[figure]]
name = "figure2"                # of the files
kind = "magnitude"              # a class of experiments/figures
columns = "prompt"              # its fields
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization_suite.commands.sweeps.file import drawings_of
from memorization_suite.experiments.evidence.base import CLAIMS, FIGURES, TABLES
from memorization_suite.runs.registry import Registry
from memorization_suite.runs.settings import Settings

KINDS: Mapping[str, Registry] = {"figure": FIGURES, "table": TABLES, "claim": CLAIMS}
NAME = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class Section:
    """One of them."""

    # figure, table or claim.
    what: str
    name: str
    # A sentence of the file: what a figure or table shows, or what is claimed.
    says: str
    made: Settings


def read_sections(file: Path) -> list[Section]:
    """Those of a file, in its order. Raises ValueError that says which one is wrong."""
    sections: list[Section] = []
    for what, tables in drawings_of(file).items():
        for number, table in enumerate(tables, 1):
            where = f"{file}: {what} {table.get('name', number)!r}"
            section = section_of(what, table, where)
            if any(other.name == section.name for other in sections):
                raise ValueError(f"{where} has the name of another one")
            sections.append(section)
    return sections


def section_of(what: str, table: Mapping[str, Any], where: str) -> Section:
    """One table of the file. where: what messages call it."""
    settings = dict(table)
    texts = {}
    for key in ("name", "kind", "says"):
        texts[key] = settings.pop(key, "")
        if not isinstance(texts[key], str) or not texts[key]:
            raise ValueError(f"{where} has no {key}")
    if not NAME.fullmatch(texts["name"]):
        raise ValueError(f"{where}: a name is of small letters, digits and _")
    try:
        made = KINDS[what].build(texts["kind"], **settings)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return Section(what, texts["name"], texts["says"], made)
