"""Methods by name: every module in this folder is looked at, there is no list to edit."""
from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import mitigation
from mitigation.base import METHODS, Mitigation, flags


@cache
def load_all() -> None:
    """Imports every module of the folder; importing registers its methods."""
    for module in pkgutil.iter_modules(mitigation.__path__):
        importlib.import_module(f"mitigation.{module.name}")


def methods() -> dict[str, type[Mitigation]]:
    """All methods by name."""
    load_all()
    return dict(sorted(METHODS.items()))


def build_mitigation(name: str, **settings) -> Mitigation:
    """A method with its settings, e.g. build_mitigation("batch_wise", rho=50.0).

    Raises ValueError for an unknown name, an unknown setting or a value out of range.
    """
    known = methods()
    if name not in known:
        raise ValueError(f"there is no method {name!r}; there are {', '.join(known)}")
    cls = known[name]
    unknown = sorted(set(settings) - {option.name for option in flags(cls)})
    if unknown:
        raise ValueError(f"{name} does not take {unknown[0]!r}; it takes {', '.join(o.name for o in flags(cls)) or 'nothing'}")
    return cls(**settings)

