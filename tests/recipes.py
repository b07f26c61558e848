"""The recipes of CONTRIBUTING.md, as printed."""

import re

from memorization_suite import ROOT


def recipe(title: str, language: str = "python", number: int = 0) -> str:
    """A block of code of a section, by default the first."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    assert section, f"CONTRIBUTING.md has no section {title!r}"
    return re.findall(rf"```{language}\n(.*?)```", section[1], re.S)[number]
