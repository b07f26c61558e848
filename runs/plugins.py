"""Plugins: files outside the checkout that register methods, detectors and the like.

`--plugin FILE.py` and `memorization_suite.load_plugin` import such a file. An installed package
offers the same as an entry point, which is loaded when a registry is first read:

    [project.entry-points."memorization_suite.plugins"]
    my_methods = "my_package.methods"
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from memorization_suite.runs.hashes import content_hash, hash_of_all
from memorization_suite.runs.identity import Content
from memorization_suite.runs.nobodys import is_nobodys

SUITE = "memorization_suite"
GROUP = f"{SUITE}.plugins"


@dataclass(frozen=True)
class Plugin:
    """A file, or an installed package, that was loaded."""

    # The file's without .py, or the entry point's.
    name: str
    # As it was given; of a package its first file.
    file: Path
    # Of the file, or of all files of the package.
    sha256: str
    # What the modules of its classes are called, or below what they lie.
    module: str
    # Whether it needs no --plugin.
    installed: bool = False
    # Of the Python files of a package alone, as earlier versions took it.
    former: str = ""


# Endings of files in a package that are code, or are written while it works.
NO_DATA = (".py", ".pyc", ".pyi", ".so", ".pyd", ".log", ".lock", ".tmp")
# Entries of every registry, by name.
TABLES: list[dict[str, type]] = []
# What was loaded, by name.
PLUGINS: dict[str, Plugin] = {}
# Whether the installed ones were loaded, or are about to be.
STATE = {"installed": False}


def load_plugin(path: Path | str) -> Plugin:
    """Imports a file that registers something; a second time nothing happens.

    Raises ValueError for a file that cannot be read or imported, that registers nothing, or that
    has the name of another plugin. Nothing of it is registered then.
    """
    load_installed()
    file = Path(path)
    content = read(file)
    sha256 = hashlib.sha256(content).hexdigest()
    known = PLUGINS.get(file.stem)
    if known and known.sha256 == sha256:
        return known
    if known:
        raise ValueError(
            f"two plugins are called {known.name!r}: {known.file} is loaded, and {file} has other "
            "content. Rename one of them; after an edit, start Python anew."
        )
    # No import statement can spell it, so it clashes with nothing.
    module = "plugin:" + file.stem.replace(".", ":")
    before = foreign()
    with all_or_nothing(f"the plugin {file}", module, instead="leave --plugin out"):
        run(module, file, content)
    if foreign() == before:
        del sys.modules[module]
        raise ValueError(
            f"the plugin {file} registers nothing: it takes a class with a decorator of the suite, "
            f"for example {SUITE}.mitigation.base.register (README, Plugins)"
        )
    PLUGINS[file.stem] = Plugin(file.stem, file, sha256=sha256, module=module)
    return PLUGINS[file.stem]


def load_installed() -> None:
    """Imports what installed packages offer, once. Raises ValueError that names the package."""
    if STATE["installed"]:
        return
    STATE["installed"] = True  # a registry that a plugin reads asks again
    try:
        for entry in entry_points(group=GROUP):
            if entry.name not in PLUGINS:
                PLUGINS[entry.name] = load_entry(entry)
    except BaseException:
        STATE["installed"] = False
        raise


def load_entry(entry: EntryPoint) -> Plugin:
    """The plugin of an entry point. Raises ValueError that names its package."""
    package = entry.dist.name if entry.dist else entry.module
    top = entry.module.partition(".")[0]
    what = f"the plugin {entry.name} of the installed package {package}"
    with all_or_nothing(what, top, instead=f"pip uninstall {package}"):
        importlib.import_module(entry.module)
    files = python_files(sys.modules[top])
    former = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    data = data_files(sys.modules[top])
    sha256 = hash_of_all({"": former, **data}) if data else former
    return Plugin(entry.name, files[0], sha256, module=top, installed=True, former=former)


def plugins_of(*classes: type) -> dict[str, Content]:
    """Name -> begin of the sha256 of each plugin that the classes, or their bases, come from."""
    modules = {base.__module__ for cls in classes for base in cls.__mro__}
    return {
        plugin.name: content_of(plugin)
        for plugin in PLUGINS.values()
        if any(belongs(module, plugin.module) for module in modules)
    }


def content_of(plugin: Plugin) -> Content:
    """Begin of a plugin's sha256, for an identity."""
    former = (plugin.former or plugin.sha256)[:16]
    return Content(plugin.sha256[:16], was=lambda there, named: there == former)


def plugin_flags() -> list[str]:
    """The words `--plugin FILE` of every file that is loaded, for a command to repeat."""
    files = [str(plugin.file) for plugin in PLUGINS.values() if not plugin.installed]
    return [word for file in files for word in ("--plugin", file)]


# --- importing ---


def read(file: Path) -> bytes:
    """A plugin's content. Raises ValueError."""
    if file.suffix != ".py":
        raise ValueError(f"the plugin {file} is no Python file: give one that ends in .py")
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(
            f"cannot read the plugin {file} ({error.strerror}): give the path of a .py file"
        ) from error


def run(name: str, file: Path, content: bytes) -> None:
    """Makes a module of a file's content. Its folder gets no compiled file, sys.path no folder."""
    module = ModuleType(name)
    module.__file__ = str(file.absolute())
    sys.modules[name] = module
    exec(compile(content, module.__file__, "exec", dont_inherit=True), vars(module))


@contextmanager
def all_or_nothing(what: str, module: str, *, instead: str) -> Iterator[None]:
    """What the block imports stays only if the block comes to its end.

    what: the plugin, whose modules are `module` or lie below it. instead: what to type if it cannot
    be mended. Raises ValueError that says what went wrong, and in which line.
    """
    before = foreign()
    modules = set(sys.modules)
    try:
        yield
    except BaseException as error:
        drop(foreign() - before, set(sys.modules) - modules, module)
        if not isinstance(error, (Exception, SystemExit)):
            raise
        raise ValueError(
            f"{what} cannot be imported: {fault(error, module)} (mend it, or {instead})"
        ) from error


def drop(classes: set[type], modules: set[str], module: str) -> None:
    """Forgets classes, and those of the modules that hold them or belong to a plugin."""
    for table in TABLES:
        for name, cls in list(table.items()):
            if cls in classes:
                del table[name]
    holding = {cls.__module__ for cls in classes}
    for name in modules:
        if name in holding or belongs(name, module):
            del sys.modules[name]


def foreign() -> set[type]:
    """The registered classes that are not the suite's."""
    classes = {cls for table in TABLES for cls in table.values()}
    return {cls for cls in classes if not belongs(cls.__module__, SUITE)}


def fault(error: BaseException, module: str) -> str:
    """An error's type, message, and the last line that was running in the plugin."""
    where = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if belongs(frame.f_globals.get("__name__", ""), module):
            where = f" in {Path(frame.f_code.co_filename).name}, line {line}"
    return f"{type(error).__name__}{where}: {' '.join(str(error).split())}"


def belongs(name: str, module: str) -> bool:
    """Whether a module is this one, or lies below it."""
    return name == module or name.startswith(f"{module}.")


def data_files(module: ModuleType) -> dict[str, str]:
    """Name -> sha256 of what lies in a package beside its code: weights, word lists, settings."""
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    found = {}
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not is_no_data(file.relative_to(folder)):
                found[file.relative_to(folder).as_posix()] = content_hash(file)
    return found


def is_no_data(path: Path) -> bool:
    """Whether a file of a package is code, is hidden, or is written while it works."""
    is_hidden = any(part.startswith(".") or is_nobodys(part) for part in path.parts)
    return is_hidden or path.suffix in NO_DATA


def python_files(module: ModuleType) -> list[Path]:
    """All Python files of a package, or the one of a module."""
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    below = sorted(file for folder in folders for file in folder.rglob("*.py"))
    return below or [Path(str(module.__file__))]
