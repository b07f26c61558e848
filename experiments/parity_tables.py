"""What docs/OFFICIAL.md says of each official repository: what is equal to it, and which switch
repeats what differs. From docs/parity.toml and the registries' quirks.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from memorization_suite import ROOT
from memorization_suite.commands.neuron_settings import OrdinarySettings, SearchSettings
from memorization_suite.commands.tokens import TokenSettings
from memorization_suite.detection import DETECTORS
from memorization_suite.mitigation import METHODS
from memorization_suite.runs.settings import Settings, flags
from memorization_suite.runs.text import markdown_table

PARITY = ROOT / "docs" / "parity.toml"


# Commands that take --official themselves, and what they are called in docs/parity.toml.
COMMANDS = {
    "detect_memorization.py tokens": ("tokens", TokenSettings),
    "localize_neurons.py statistics": ("the search for neurons", OrdinarySettings),
    "localize_neurons.py localize": ("the search for neurons", SearchSettings),
}


class Quirk(NamedTuple):
    """A peculiarity of an official code that --official repeats."""

    # What is typed before --official: a command, or --method or --detector with a name.
    typed: str
    # Whose result it changes, as docs/parity.toml calls it.
    owner: str
    name: str
    what: str


@cache
def repositories() -> list[dict[str, Any]]:
    """The tables [[repository]] of docs/parity.toml."""
    return tomllib.loads(PARITY.read_text(encoding="utf-8"))["repository"]


def quirks() -> Iterator[Quirk]:
    """Every quirk of methods, detectors and commands."""
    for flag, registry in (("--method", METHODS), ("--detector", DETECTORS)):
        for owner, cls in registry.items():
            yield from quirks_of(f"{flag} {owner}", owner, cls)
    for command, (owner, settings) in COMMANDS.items():
        yield from quirks_of(command, owner, settings)


def quirks_of(typed: str, owner: str, settings: type[Settings]) -> Iterator[Quirk]:
    """Those of one class of settings."""
    for option in flags(settings):
        for name, what in option.metadata.get("repeats", {}).items():
            yield Quirk(typed, owner, name, what)


def repository_of(owner: str) -> dict[str, Any]:
    """The repository that a method, a detector or a search is compared with. Raises ValueError."""
    for repository in repositories():
        told = [result["what"] for result in repository["results"]]
        if owner in told or any(f"`{owner}`" in what for what in told):
            return repository
    raise ValueError(f"docs/parity.toml compares {owner} with nothing")


def parity() -> str:
    """A section for each repository."""
    return "\n\n".join(map(section, repositories()))


def section(repository: dict[str, Any]) -> str:
    """What is equal, the switches, and what differs otherwise."""
    parts = [heading(repository), results_table(repository)]
    if switches := switch_rows(repository):
        parts.append(markdown_table(switches).rstrip())
    if differs := repository.get("differs"):
        parts.append(differs)
    return "\n\n".join(parts)


def heading(repository: dict[str, Any]) -> str:
    """The paper, and the code as a link."""
    if code := repository.get("code"):
        return f"### {repository['paper']}\n\nCode: [{code}](https://github.com/{code})."
    return f"### {repository['paper']}"


def results_table(repository: dict[str, Any]) -> str:
    """What is equal to what, how precisely, by which test."""
    rows = []
    for result in repository["results"]:
        rows.append(
            {
                "equal": result["what"],
                "compared with": result["with"],
                "within": f"`{result['within']}`",
                "test": f"[{result['test']}](../{result['test']})",
            }
        )
    return markdown_table(rows).rstrip()


def switch_rows(repository: dict[str, Any]) -> list[dict[str, str]]:
    """Quirks of the repository's methods and detectors, then its other flags."""
    rows = []
    for quirk in quirks():
        if repository_of(quirk.owner) is repository:
            switch = f"{quirk.typed} --official {quirk.name}"
            rows.append(switch_row(switch, quirk.what, f"off: {why_off(quirk, repository)}"))
    for switch in repository.get("switches", []):
        rows.append(switch_row(switch["flag"], switch["gives"], switch["default"]))
    return rows


def why_off(quirk: Quirk, repository: dict[str, Any]) -> str:
    """Why a quirk is not the default. Raises ValueError where nobody said so."""
    reasons = repository.get("why", {})
    if quirk.name not in reasons:
        raise ValueError(
            f"docs/parity.toml does not say why {quirk.owner} --official {quirk.name} is off: "
            f"a line in [repository.why] of {repository['paper']}"
        )
    return reasons[quirk.name]


def switch_row(switch: str, gives: str, default: str) -> dict[str, str]:
    """A line of the table of switches."""
    return {"switch": f"`{switch}`", "gives": gives, "default, and why": default}


PARITY_PARTS: dict[str, Callable[[], str]] = {"parity": parity}
