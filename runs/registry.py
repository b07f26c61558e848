"""Classes by name: every module of a folder is looked at, there is no list to edit."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from memorization_suite.runs.plugins import SUITE, TABLES, load_installed
from memorization_suite.runs.settings import Settings, build, frozen_settings

Entry = TypeVar("Entry", bound=Settings)


class Registry(Mapping[str, "type[Entry]"], Generic[Entry]):
    """The classes of one kind, in the order of their names.

    The modules of the kind's folder register their classes by decorator when they are imported,
    which is when the registry is first read; a plugin (`runs/plugins.py`) does the same. The
    folder's come first.
    """

    def __init__(self, kind: str, folder: str, plural: str = ""):
        # What an entry is called in messages, and several of them.
        self.kind = kind
        self.plural = plural or f"{kind}s"
        # Name of the package, below the suite's, that holds the modules.
        self.folder = folder
        self.entries: dict[str, type[Entry]] = {}
        TABLES.append(self.entries)
        self.is_loaded = False

    def register(self, name: str, **facts: Any) -> Callable[[type], type[Entry]]:
        """Class decorator: makes frozen settings of a class and lists it under `name`.

        facts: further attributes of the class. Raises ValueError when another class has the name.
        """

        def decorate(cls: type) -> type[Entry]:
            if not cls.__module__.startswith(f"{SUITE}.{self.folder}."):
                self.load()
            if name in self.entries:
                raise ValueError(
                    f"two {self.plural} are called {name!r}: {place_of(self.entries[name])} and "
                    f"{place_of(cls)}"
                )
            for fact, value in {"name": name, **facts}.items():
                setattr(cls, fact, value)
            self.entries[name] = frozen_settings(cls)
            return self.entries[name]

        return decorate

    def load(self) -> None:
        """Imports what installed packages offer, and every module of the folder, once.

        Raises ValueError that names a package whose plugin is faulty.
        """
        load_installed()
        if self.is_loaded:
            return
        self.is_loaded = True
        package = importlib.import_module(f"{SUITE}.{self.folder}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")

    def build(self, name: str, **settings: Any) -> Entry:
        """An entry with its settings.

        Raises ValueError for an unknown name, an unknown setting or a value out of range.
        """
        return build(self, self.kind, name, settings)

    def __getitem__(self, name: str) -> type[Entry]:
        self.load()
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        self.load()
        return iter(sorted(self.entries))

    def __len__(self) -> int:
        self.load()
        return len(self.entries)


def place_of(cls: type) -> str:
    """Where a class stands: a module of the suite by its name, another one by its file."""
    if cls.__module__.startswith(f"{SUITE}."):
        return cls.__module__
    return str(getattr(sys.modules.get(cls.__module__), "__file__", cls.__module__))
