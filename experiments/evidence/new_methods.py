"""Somebody's new method among all others: `sweep.py experiments/compare.toml --plugin mine.py`.

The table [new] of a sweep file says how. Each method of a plugin is run over its `grid` on tuning
prompts first; the best setting is then run once on the prompts of the file, beside its other runs.

[new]
more = "subject_shown"                  # the best setting has the largest mean of this
less = "copies"                         # less the mean of that,
weight = 1.0                            # times this: the worth of one of it in units of the first
end = 100                               # other keys are flags of the tuning prompts: rows 0 to 99

An embedded model is tuned on its own tuning split.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from memorization_suite import tiny
from memorization_suite.commands.sweeps.file import check_table, new_of, tables_of
from memorization_suite.experiments.evidence.runs import Evidence
from memorization_suite.experiments.evidence.swept_run import SweptRun
from memorization_suite.mitigation import METHODS, Mitigation
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.plugins import SUITE
from memorization_suite.runs.text import counted

# Below the folder of the sweep.
FOLDER = "tuning"
# Flags of the prompts, which are others than those of the file.
RANGE = ("prompts", "start", "end")


@dataclass(frozen=True)
class Tuning:
    """What [new] says."""

    more: str
    less: str
    weight: float
    # Which prompts those are.
    flags: dict[str, Any]

    @classmethod
    def of(cls, file: Path) -> Tuning | None:
        """Of a file; None without the table. Raises ValueError for what it should not have."""
        table = new_of(file)
        if table is None:
            return None
        names = (table.pop("more", None), table.pop("less", None))
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"{file}: [new] takes more and less, each the name of a quantity")
        weight = table.pop("weight", 1.0)
        if not isinstance(weight, int | float) or weight <= 0:
            raise ValueError(f"{file}: weight of [new] is {weight!r}; it is a number above 0")
        check_table(f"{file}: [new]", table)
        return cls(*names, float(weight), table)

    def prompts_of(self, model_id: str) -> dict[str, Any]:
        """Flags of the tuning prompts of a model."""
        if model_id in tiny.MODELS:
            return {"prompts": str(tiny.prompts(model_id, "memorized_tuning"))}
        return self.flags

    def worth(self, run: SweptRun) -> float:
        """What a setting is chosen by."""
        more, less = (fmean(run.prompt_means(name).values()) for name in (self.more, self.less))
        return more - self.weight * less


def new_methods() -> list[str]:
    """Names of the methods that plugins brought."""
    own = f"{SUITE}.mitigation."
    return [name for name, cls in METHODS.items() if not cls.__module__.startswith(own)]


def settings_of(method: type[Mitigation]) -> list[dict[str, Any]]:
    """Every combination of a method's grid; its defaults without one."""
    values = itertools.product(*method.grid.values())
    return [dict(zip(method.grid, chosen)) for chosen in values]


def new_lines(file: Path) -> list[str]:
    """What `--dry_run` says of them. Raises ValueError."""
    if Tuning.of(file) is None:
        return []
    lines = []
    for name in new_methods():
        count = counted(len(settings_of(METHODS[name])), "setting")
        lines.append(f"# {name}: {count} on the tuning prompts, then the best one once here")
    return lines


def tuning_file(file: Path, out: Path, name: str, prompts: Mapping[str, Any]) -> Path:
    """A sweep file of a method's grid on the tuning prompts, in the sweep's folder. Raises
    ValueError, OSError.
    """
    kept = {key: value for key, value in tables_of(file)[0].items() if key not in RANGE}
    common = kept | dict(prompts)
    runs = [{"method": name, **settings} for settings in settings_of(METHODS[name])]
    path = out / FOLDER / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, sweep_text(common, runs).encode())
    return path


def sweep_text(common: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """A sweep file."""
    parts = [f"[common]\n{lines_of(common)}"] if common else []
    return "\n".join([*parts, *(f"[[run]]\n{lines_of(run)}" for run in runs)])


def lines_of(table: Mapping[str, Any]) -> str:
    """Settings as TOML, whose texts, numbers and lists are those of JSON."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())


def best_of(out: Path, name: str, tuning: Tuning) -> dict[str, Any]:
    """The best setting of a method whose grid was run in `out`; the first of equals."""
    best = max(Evidence.of(out).runs, key=tuning.worth)
    return {setting: best.config[setting] for setting in METHODS[name].grid}


def dropped(prompts: Mapping[str, Any]) -> set[str]:
    """Flags of every run that the tuning does not take: its prompts are its own, and its rows where
    they are stated.
    """
    rows = {"start", "end"}
    return {"prompts", *prompts, *(rows if rows & prompts.keys() else ())}


def with_new_methods(
    file: Path,
    out: Path,
    typed: Mapping[str, Any],
    tune: Callable[[Path, Path, dict[str, Any]], bool],
) -> Path | None:
    """The sweep file with a run of each new method at its best setting, below `out`; the file
    itself without any. None while their tuning is not done.

    typed: flags of every run. tune: makes and scores the runs of a file in a folder with these
    flags; returns whether they are all there. Raises ValueError.
    """
    tuning = Tuning.of(file)
    names = new_methods()
    if tuning is None or not names:
        return file
    common = tables_of(file)[0]
    prompts = tuning.prompts_of(str(typed.get("model_id", common.get("model_id", ""))))
    flags = {flag: value for flag, value in typed.items() if flag not in dropped(prompts)}
    chosen = []
    for name in names:
        settings = settings_of(METHODS[name])
        if len(settings) == 1:
            chosen.append({"method": name, **settings[0]})
            continue
        folder = out / FOLDER / name
        if not tune(tuning_file(file, out, name, prompts), folder, flags):
            return None
        chosen.append({"method": name, **best_of(folder, name, tuning)})
    whole = out / FOLDER / file.name
    whole.parent.mkdir(parents=True, exist_ok=True)
    added = "".join(f"\n[[run]]\n{lines_of(run)}" for run in chosen)
    write_bytes(whole, (file.read_text(encoding="utf-8") + added).encode())
    return whole
