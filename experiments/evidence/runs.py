"""The runs of a sweep: which there are, and what several of them have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from memorization_suite import tiny
from memorization_suite.commands.sweeps.record import read_record
from memorization_suite.experiments.evidence.escape import first_free_start
from memorization_suite.experiments.evidence.swept_run import SweptRun
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.lazy import np


@dataclass(frozen=True)
class Evidence:
    """The runs of a sweep that are there."""

    runs: list[SweptRun]

    @classmethod
    def of(cls, out: Path) -> Evidence:
        """Those of the sweep in a folder, in its order. Raises ValueError where none was begun."""
        record = read_record(out)
        if record is None:
            raise ValueError(f"no sweep was begun in {out}")
        return cls([SweptRun(run.name, RunFolder(out / run.folder)) for run in record.runs])

    @property
    def commits(self) -> list[str]:
        """Of all runs."""
        return list(dict.fromkeys(commit for run in self.runs for commit in run.commits))

    @property
    def embedded(self) -> bool:
        """Whether an embedded model made an image, which is no Stable Diffusion."""
        return any(run.config["model_id"] in tiny.MODELS for run in self.runs)

    @property
    def models(self) -> list[str]:
        """Their names."""
        return list(dict.fromkeys(str(run.config["model_id"]) for run in self.runs))

    def select(self, wanted: str) -> list[SweptRun]:
        """Runs of a method with these settings: `batch_wise gamma=0 tau=900`; all for nothing.

        Raises ValueError when there is none.
        """
        method, *pairs = wanted.split() or [""]
        settings = dict(pair.partition("=")[::2] for pair in pairs)
        chosen = []
        for run in self.runs:
            same = all(is_value(run.config.get(name), text) for name, text in settings.items())
            if same and method in ("", run.method):
                chosen.append(run)
        if not chosen:
            raise ValueError(f"the sweep has no run {wanted!r}")
        return chosen

    def only(self, wanted: str) -> SweptRun:
        """The one run that is meant. Raises ValueError for none or several."""
        chosen = self.select(wanted)
        if len(chosen) > 1:
            raise ValueError(f"{wanted!r} are {len(chosen)} runs of the sweep, not one")
        return chosen[0]


def is_value(value: Any, text: str) -> bool:
    """Whether a setting is what a text says: 0.5, .5 and 5e-1 are one number."""
    try:
        return value is not None and float(value) == float(text)
    except ValueError:
        return str(value) == text


@dataclass(frozen=True)
class Paired:
    """Means of each prompt that all runs have, of one quantity."""

    prompts: list[int]
    # (prompts, runs)
    values: np.ndarray
    clusters: list[int]


def paired(runs: Sequence[SweptRun], quantity: str, prompts: Sequence[int] | None = None) -> Paired:
    """The prompts' means in several runs. prompts: only these. Raises ValueError without any, and
    where the runs' numbers do not compare.
    """
    check_comparable(runs, quantity)
    of_runs = [run.prompt_means(quantity) for run in runs]
    shared = set(of_runs[0]).intersection(*of_runs[1:])
    if prompts is not None:
        shared &= set(prompts)
    if not shared:
        raise ValueError(f"the runs share no prompt with {quantity}")
    rows = sorted(shared)
    table = [[of_run[prompt] for of_run in of_runs] for prompt in rows]
    labels = runs[0].clusters
    return Paired(rows, np.array(table, dtype=float), [labels.get(row, row) for row in rows])


def check_comparable(runs: Sequence[SweptRun], quantity: str) -> None:
    """Raises ValueError where a quantity is not the same measurement in all runs, as when some were
    scored before a checkpoint was there.
    """
    names = sorted({run.measured_by(quantity) for run in runs})
    if len(names) > 1:
        raise ValueError(
            f"{quantity} is {names[0]} in one run and {names[1]} in another: --rescore"
        )


def by_kind(run: SweptRun) -> Mapping[str, list[int]]:
    """`all` and every kind of memorization -> its prompts."""
    groups: dict[str, list[int]] = {"all": run.prompts}
    for prompt in run.prompts:
        kind = run.kinds.get(prompt, "")
        if kind:
            groups.setdefault(kind, []).append(prompt)
    return groups if len(groups) > 2 else {"all": run.prompts}


def pairs_of(
    x: Mapping[Key | int, float], y: Mapping[Key | int, float]
) -> dict[int, list[tuple[float, float]]]:
    """Prompt -> the two values of each of its seeds that has both."""
    pairs: dict[int, list[tuple[float, float]]] = {}
    for key in sorted(key for key in x if isinstance(key, Key) and key in y):
        assert isinstance(key, Key)
        pairs.setdefault(key.prompt, []).append((x[key], y[key]))
    return pairs


def free_starts(
    runs: Sequence[SweptRun], start: Callable[[SweptRun], int]
) -> dict[Key | int, float]:
    """Image -> first start of guidance from which on it is no copy; infinity for never.

    runs: of late guidance on equal seeds. start: first guided step of a run.
    """
    copies = {start(run): run.copies() for run in runs}
    shared = set.intersection(*(set(of_run) for of_run in copies.values()))
    found: dict[Key | int, float] = {}
    for key in shared:
        free = first_free_start({at: bool(of_run[key]) for at, of_run in copies.items()})
        found[key] = inf if free is None else free
    return found
