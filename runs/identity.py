"""What makes two pieces of work the same: a table of names and values, for JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Self

from memorization_suite.runs.growth import Growing

# (what an earlier version wrote, how its command named the input; empty: not known) -> whether
# that is the same input, as far as the earlier version could tell.
Was = Callable[[object, str], bool]


class Content(str):
    """An input by its content, as it stands in an identity."""

    # What people call it: how it was typed.
    label: str
    # The flag that gives it, by which a configuration names it.
    flag: str
    # Whether what is there may be what an earlier version wrote of the same input.
    was: Was
    # Whether all is known of it. Else what is there tells more, and stays.
    known: bool

    def __new__(
        cls, text: str, label: str = "", *, flag: str = "", was: Was | None = None, known=True
    ) -> Self:
        made = super().__new__(cls, text)
        made.label = label
        made.flag = flag
        made.was = was or (lambda there, named: False)
        made.known = known
        return made


def in_any_order(choices: str) -> Content:
    """Choices of a flag, comma-separated. Earlier versions wrote them as they were typed."""

    def was(there: object, named: str) -> bool:
        return isinstance(there, str) and set(there.split(",")) - {""} == set(choices.split(","))

    return Content(choices, was=was)


def same(there: object, here: object, named: str = "") -> bool:
    """Whether a stored value is of the same input as one of now. named: see `Was`."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        if there.keys() != here.keys():
            return False
        return all(same(there[key], here[key]) for key in here)
    if isinstance(here, Growing):
        return isinstance(there, int) and there <= here
    if there == here:
        return True
    return isinstance(here, Content) and here.was(there, named)


def plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as it would be read from JSON."""
    return dict(json.loads(json.dumps(identity)))


def differing(
    before: Mapping[str, Any], after: Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Name -> value now, of all that is not the same. before: as it was stored. config: what people
    had typed then, by flags.
    """
    read = plain(after)
    changed = {}
    for name in sorted(before.keys() | after.keys()):
        there = before.get(name)
        here = after.get(name)
        if there != read.get(name) and not same(there, here, named_in(config, here)):
            changed[name] = here
    return changed


def named_in(config: Mapping[str, Any] | None, here: object) -> str:
    """What an input was called in a configuration; empty where that is not known."""
    flag = here.flag if isinstance(here, Content) else ""
    return str((config or {}).get(flag) or "")


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> list[str]:
    """A text for each name whose value is not the same, see `differing`."""
    texts = []
    read = plain(after)
    for name, here in differing(before, after, config).items():
        there = before.get(name)
        now = read.get(name)
        was = shown(there, named_in(config, here))
        is_now = shown(now, getattr(here, "label", ""))
        text = f"{name}: {was} there, {is_now} now"
        if alike(there, now):
            text += ", which names of folders do not tell apart"
        texts.append(text)
    return texts


def alike(there: object, now: object) -> bool:
    """Whether two numbers, or two in settings, have one name in a folder's: it has six digits."""
    if isinstance(there, Mapping) and isinstance(now, Mapping):
        shared = there.keys() & now.keys()
        changed = [key for key in shared if there[key] != now[key]]
        return any(alike(there[key], now[key]) for key in changed)
    return isinstance(there, float) and isinstance(now, float) and f"{there:g}" == f"{now:g}"


def shown(value: object, label: str) -> str:
    """A value for people, and what they call it."""
    return f"{label} ({value})" if label and value is not None else repr(value)


def renewed(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """(an identity that is the same, in the words of this version; the names that are new).

    Numbers do not grow by it.
    """
    read = plain(after)
    names = []
    for name, here in after.items():
        if isinstance(here, Growing) or (isinstance(here, Content) and not here.known):
            continue
        if before.get(name) != read[name]:
            names.append(name)
    return {**before, **{name: read[name] for name in names}}, names
