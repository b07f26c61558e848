"""The recipes of CONTRIBUTING.md, as printed."""

import re

from memorization_suite import ROOT


def recipe(title: str, language: str = "python") -> str:
    """The first block of code of a section."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    assert section, f"CONTRIBUTING.md has no section {title!r}"
    block = re.search(rf"```{language}\n(.*?)```", section[1], re.S)
    assert block, f"the section {title!r} has no block of {language}"
    return block[1]
