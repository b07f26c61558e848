"""Short names of runs for labels: what tells each from the others of its method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Named(Protocol):
    """A run with a name."""

    @property
    def method(self) -> str: ...

    @property
    def settings(self) -> str: ...


def short_names(runs: Sequence[Named]) -> list[str]:
    """`batch_wise rho5`, or the method alone where no other run is of it. Runs that would be called
    alike have all their settings.
    """
    names = []
    for run in runs:
        alike = [set(other.settings.split("_")) for other in runs if other.method == run.method]
        common = set.intersection(*alike)
        own = [part for part in run.settings.split("_") if part not in common]
        names.append(" ".join([run.method, *own]).strip())
    return [
        name if names.count(name) == 1 else f"{run.method} {run.settings}".strip()
        for name, run in zip(names, runs)
    ]
