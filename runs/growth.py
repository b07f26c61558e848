"""Numbers of a run that may grow: what was made for a smaller one stays, and is made no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Growing(int):
    """A number in an identity that a later command may raise."""


def grown(manifest: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest whose numbers are those of an identity where that has larger ones.

    `grown` in it lists what they were before, the smallest first: a batch is made again as it was.
    """
    there = dict(manifest["identity"])
    before = dict(manifest.get("grown", {}))
    for name, here in identity.items():
        if isinstance(here, Growing) and here > there[name]:
            before[name] = [*before.get(name, []), there[name]]
            there[name] = int(here)
    return {**manifest, "identity": there, **({"grown": before} if before else {})}


def parts_of(manifest: Mapping[str, Any], name: str) -> list[range]:
    """0 to a number in the parts that were, or are to be, made together."""
    ends = [*manifest.get("grown", {}).get(name, []), manifest["identity"][name]]
    return [range(start, end) for start, end in zip([0, *ends], ends)]
