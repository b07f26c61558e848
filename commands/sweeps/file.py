"""Reads a sweep file: which runs it asks for, as flags by name.

[common]                        # flags of every run
model_id = "tiny"
n_samples_per_prompt = 2

[[run]]                         # one run
method = "no_mitigation"

[[run]]                         # lists: one run for every combination
method = "batch_wise"
gamma = [0, 3, 5]

Tables [[figure]], [[table]] and [[claim]] say what is drawn and tested of the runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization_suite.commands.generate_plan import SCRIPT, Request
from memorization_suite.mitigation.registry import METHODS
from memorization_suite.runs.files import check_regular
from memorization_suite.runs.parse import toml_of
from memorization_suite.runs.settings import closest, flag_names, flag_owners

# Flags of generate_images.py that a file cannot set.
OF_THE_SWEEP = ("output_path", "overwrite", "shard", "quiet")
# Tables of a file that ask for something beside the runs: see experiments/evidence.
DRAWINGS = ("figure", "table", "claim")
# What is done with methods of plugins: see experiments/evidence/new_methods.py.
NEW = "new"
# What a flag's value can be.
PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class Combination:
    """One run of the file."""

    # Its own settings, and common ones that vary: `method=batch_wise gamma=3`.
    label: str
    # All its settings: flag -> value.
    settings: dict[str, Any]


def read_sweep(path: Path, typed: Collection[str] = ()) -> list[Combination]:
    """The runs, in the file's order; the last list changes fastest.

    typed: flags of the command line, which win over the file's. Raises ValueError for a file that
    is no sweep.
    """
    common, runs = tables_of(path)
    return [run for table in runs for run in combinations(common, table, typed)]


def count_runs(path: Path, typed: Collection[str] = ()) -> int:
    """How many runs `read_sweep` gives, which may be many."""
    common, runs = tables_of(path)
    total = 0
    for table in runs:
        values = [as_list(value) for name, value in (common | table).items() if name not in typed]
        total += math.prod(map(len, values))
    return total


def tables_of(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(the table [common], the tables [[run]]). Raises ValueError."""
    content = read_toml(path)
    for name in (*DRAWINGS, NEW):
        content.pop(name, None)
    common = content.pop("common", {})
    runs = content.pop("run", None)
    if content or not isinstance(common, dict) or not isinstance(runs, list) or not runs:
        raise ValueError(f"{path} is no sweep: it takes a table [common] and one [[run]] or more")
    check_table(f"{path}: [common]", common)
    for number, table in enumerate(runs, 1):
        check_table(f"{path}: run {number}", table)
    return common, runs


def drawings_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    """`figure`, `table`, `claim` -> the tables of a file that ask for one. Raises ValueError."""
    content = read_toml(path)
    found = {}
    for name in DRAWINGS:
        tables = content.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
            raise ValueError(f"{path}: {name} is no list of tables: write [[{name}]]")
        found[name] = tables
    return found


def new_of(path: Path) -> dict[str, Any] | None:
    """The table [new] of a file; None without one. Raises ValueError."""
    table = read_toml(path).get(NEW)
    if table is not None and not isinstance(table, dict):
        raise ValueError(f"{path}: {NEW} is no table: write [{NEW}]")
    return table


def read_toml(path: Path) -> dict[str, Any]:
    """The file's content. Raises ValueError when it cannot be read or is no TOML."""
    if path.suffix != ".toml":
        raise ValueError(f"{path} is no sweep file: FILE.toml comes first, then the flags")
    check_regular(path, "sweep file")
    try:
        return toml_of(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"the sweep file {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path} is no TOML file ({error})") from error


def combinations(
    common: dict[str, Any], table: dict[str, Any], typed: Collection[str]
) -> Iterator[Combination]:
    """The runs of one table."""
    values = {}
    for name, value in (common | table).items():
        if name not in typed:
            values[name] = as_list(value)
    named = [name for name in values if name in table or len(values[name]) > 1]
    for chosen in itertools.product(*values.values()):
        settings = dict(zip(values, chosen))
        label = " ".join(f"{name}={settings[name]}" for name in named)
        yield Combination(label or "common settings alone", settings)


def check_table(where: str, table: object) -> None:
    """Raises ValueError for a name that is no flag, or a value that no flag can have."""
    if not isinstance(table, dict):
        raise ValueError(f"{where} is no table: write [[run]]")
    known = {*flag_names(Request), *flag_owners(METHODS)}
    known.difference_update(OF_THE_SWEEP)
    for name, value in table.items():
        if name not in known:
            near = closest(name, known)
            meant = f"; did you mean {near}?" if near else ""
            raise ValueError(
                f"{where} sets {name!r}, which is no flag of {SCRIPT} that a sweep can set{meant}"
            )
        values = as_list(value)
        if not values or not all(isinstance(each, PLAIN) for each in values):
            raise ValueError(
                f"{where} sets {name} to {value!r}: it takes a number, a text, true, or a list of "
                "those"
            )


def as_list(value: Any) -> list:
    """A list as it is, another value as a list of one."""
    return value if isinstance(value, list) else [value]
