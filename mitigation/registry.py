"""Methods by name: every module in this folder is looked at, there is no list to edit."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import memorization_suite.mitigation
from memorization_suite.mitigation.base import METHODS, Mitigation, flags
from memorization_suite.mitigation.composite import Composite


@cache
def load_all() -> None:
    """Imports every module of the folder; importing registers its methods."""
    for module in pkgutil.iter_modules(memorization_suite.mitigation.__path__):
        importlib.import_module(f"memorization_suite.mitigation.{module.name}")


def methods() -> dict[str, type[Mitigation]]:
    """All methods by name."""
    load_all()
    return dict(sorted(METHODS.items()))


def build_mitigation(name: str, **settings) -> Mitigation:
    """A method with its settings, e.g. build_mitigation("batch_wise", rho=50.0), or several:
    build_mitigation("per_sample+cross_attention").

    Of several methods each takes the settings that it has. Raises ValueError for an unknown name,
    an unknown setting, one that more than one of them has, a value out of range, or methods that
    cannot be combined.
    """
    if "+" in name:
        return combine({part: {} for part in name.split("+")}, settings)
    known = methods()
    if name not in known:
        raise ValueError(f"there is no method {name!r}; there are {', '.join(known)}")
    cls = known[name]
    unknown = sorted(set(settings) - {option.name for option in flags(cls)})
    if unknown:
        raise ValueError(
            f"{name} does not take {unknown[0]!r}; it takes "
            f"{', '.join(o.name for o in flags(cls)) or 'nothing'}"
        )
    return cls(**settings)


def combine(tables: dict[str, dict], settings: dict) -> Mitigation:
    """Several methods, each with its own table of settings; `settings` go to the one method that
    has them. Raises ValueError.
    """
    for setting in settings:
        owners = [
            name
            for name in tables
            if name in methods() and setting in {option.name for option in flags(methods()[name])}
        ]
        if len(owners) != 1:
            which = (
                f"both {' and '.join(owners)} take it: give each its own in a preset file"
                if owners
                else "none of them takes it"
            )
            raise ValueError(f"--{setting} with --method {'+'.join(tables)}: {which}")
        tables[owners[0]] = tables[owners[0]] | {setting: settings[setting]}
    return Composite(
        methods=tuple(build_mitigation(name, **table) for name, table in tables.items())
    )
