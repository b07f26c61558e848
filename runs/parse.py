"""JSON and TOML of files that anybody may have written."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import Any


def json_of(text: str | bytes) -> Any:
    """A JSON text's content. Raises ValueError, also for one that is nested too deeply."""
    return parsed_by(json.loads, text)


def toml_of(text: str) -> dict[str, Any]:
    """A TOML text's content. Raises ValueError, also for one that is nested too deeply."""
    return parsed_by(tomllib.loads, text)


def parsed_by(parse: Callable[[Any], Any], text: str | bytes) -> Any:
    """The content of a text. Raises ValueError."""
    try:
        return parse(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
