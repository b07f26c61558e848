"""Methods by name, alone or several at once, as the command line and presets ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memorization_suite.mitigation.base import METHODS, Mitigation, flags
from memorization_suite.mitigation.composite import Composite
from memorization_suite.runs.settings import flag_names, flag_owners, unknown_name

OFFICIAL = "adj_init_noise"  # the official script's one method, with --batch_wise or --per_sample
MODES = ("batch_wise", "per_sample")


def build_mitigation(name: str, **settings: Any) -> Mitigation:
    """A method with its settings: build_mitigation("batch_wise", rho=50.0).

    Or several: build_mitigation("per_sample+cross_attention"), of which each takes the settings
    that it has. Raises ValueError for an unknown name, an unknown setting, one that more than one
    of them has, a value out of range, or methods that cannot be combined.
    """
    if "+" in name:
        return combine({part: {} for part in name.split("+")}, settings)
    return METHODS.build(name, **settings)


def combine(tables: dict[str, dict], settings: Mapping[str, Any]) -> Mitigation:
    """Several methods, each with its own table of settings; `settings` go to the one that has them.

    Raises ValueError.
    """
    for setting, value in settings.items():
        known = [name for name in tables if name in METHODS]
        owners = [name for name in known if setting in flag_names(METHODS[name])]
        if len(owners) != 1:
            which = "none of them takes it"
            if owners:
                which = f"both {' and '.join(owners)} take it: give each its own in a preset file"
            raise ValueError(f"--{setting} with --method {'+'.join(tables)}: {which}")
        (owner,) = owners
        tables[owner] = tables[owner] | {setting: value}
    methods = [build_mitigation(name, **table) for name, table in tables.items()]
    return Composite(methods=tuple(methods))


def method_name(method: str, *, batch_wise: bool = False, per_sample: bool = False) -> str:
    """The registered name of a method: adj_init_noise with --batch_wise is batch_wise.

    Raises ValueError for an unknown one, or for switches that contradict it.
    """
    modes = [mode for mode, on in zip(MODES, (batch_wise, per_sample)) if on]
    if method == OFFICIAL:
        if len(modes) != 1:
            raise ValueError(
                f"--method {OFFICIAL} needs exactly one of --batch_wise and --per_sample"
            )
        return modes[0]
    if modes and method != modes[0]:
        raise ValueError(f"--{modes[0]} goes with --method {OFFICIAL}, not with --method {method}")
    parts = method.split("+")
    for part in parts:
        if part not in METHODS:
            known = [OFFICIAL, *METHODS]
            raise unknown_name("method", part, known, " (--list_methods tells more)")
    if len(set(parts)) < len(parts):
        raise ValueError(f"--method {method} names a method twice")
    return method


def choose_mitigation(
    name: str, typed: Mapping[str, Any], preset: Mapping[str, dict]
) -> Mitigation:
    """The method with what was typed, else the preset's values, else the published defaults.

    name: as of `method_name`. Raises ValueError.
    """
    parts = name.split("+")
    excludes: dict[str, tuple[str, ...]] = {}
    for part in parts:
        excludes |= {option.name: option.metadata["excludes"] for option in flags(METHODS[part])}
    # Flags that the preset may not set, since another was typed.
    replaced = {flag for flag, others in excludes.items() if typed.keys() & others}
    for flag in typed:
        if flag not in excludes:
            owners = ", ".join(method for method, _ in flag_owners(METHODS)[flag])
            raise ValueError(f"--method {name} does not take --{flag} (a flag of {owners})")
        for other in excludes[flag]:
            if other in typed:
                raise ValueError(f"--{flag} and --{other} exclude each other")
            replaced.add(other)
    tables = {}
    for part in parts:
        table = preset.get(part, {})
        tables[part] = {flag: value for flag, value in table.items() if flag not in replaced}
    if len(tables) > 1:
        return combine(tables, typed)
    return build_mitigation(name, **(tables[name] | dict(typed)))
