"""What a wheel holds: the rooms of the checkout under one name. hatchling calls it.

An editable installation holds no copy of them, which would be found before the checkout.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Rooms(BuildHookInterface):
    """Adds the table `rooms` of pyproject.toml to a wheel that is no editable one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """version: `standard` or `editable`."""
        if version != "editable":
            build_data["force_include"] |= self.config["rooms"]
