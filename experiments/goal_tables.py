"""The embedded models beside their goals and the earlier ones of 32 pixels, as a table.

The earlier models were measured by the same command, `experiments.evaluate_tiny`, from the last
commit that had them. No heavy import.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization_suite import tiny
from memorization_suite.experiments.result_tables import KINDS, decimals, percent
from memorization_suite.runs.text import markdown_table

EARLIER = tiny.EVALUATION / "earlier"
# Captions of a kind, of the test split, from which on its figures are held to a goal.
ENOUGH = 6

Figures = dict[str, Any]


def three(value: float | None) -> str:
    """Three decimals."""
    return decimals(value, 3)


@dataclass(frozen=True)
class Goal:
    """What a model is held to, least and most, and where its figure is found."""

    title: str
    path: tuple[str, ...]
    least: float | None = None
    most: float | None = None
    text: Callable[[float | None], str] = percent
    # Of a kind of captions: its name.
    kind: str = ""

    @property
    def range(self) -> str:
        """What is asked for; empty where nothing is."""
        if self.least is None and self.most is None:
            return ""
        if self.least is None:
            return f"at most {self.text(self.most)}"
        if self.most is None:
            return f"at least {self.text(self.least)}"
        return f"{self.text(self.least)} to {self.text(self.most)}"

    def met(self, value: float) -> bool:
        """Whether a figure is in that range."""
        enough = self.least is None or value >= self.least
        return enough and (self.most is None or value <= self.most)

    def cell(self, figures: Figures) -> str:
        """A model's figure; marked where it misses the goal."""
        value: Any = figures
        for name in self.path:
            value = value[name]
        if value is None:
            return "-"
        text = self.text(value)
        if self.kind and figures["captions"][self.kind] < ENOUGH:
            return f"({text})"
        return text if self.met(value) else f"**{text}**"


def copies(kind: str, least: float, most: float | None = None) -> Goal:
    """Share of copies of a kind."""
    return Goal(f"copies, {kind}, %", ("copies", kind), least, most, kind=kind)


def distance(kind: str) -> Goal:
    """The same of one kind as of all copies."""
    return Goal(f"the same, {kind}", ("distance of copies", kind), text=three, kind=kind)


def auc(kind: str) -> Goal:
    """How well the first magnitude tells a kind from ordinary captions."""
    path = ("first-step magnitude", kind, "AUC")
    return Goal(f"AUC of the first magnitude, {kind}", path, least=0.95, text=three, kind=kind)


SHOWN = ("ordinary", "all subjects shown, captions of")
GOALS = [
    copies("VM A", 0.95),
    copies("VM B", 0.75, 0.95),
    copies("TM", 0.8),
    copies("LM", 0.8),
    Goal("RMSE of copies to the training image", ("distance of copies", "all"), None, 0.08, three),
    *map(distance, KINDS),
    Goal("ordinary captions of one subject: seen, %", (*SHOWN, "one"), 0.85),
    Goal("of two: both seen, %", (*SHOWN, "two"), 0.7),
    Goal("ordinary images that are copies, %", ("ordinary", "share of copies"), None, 0.0),
    *map(auc, KINDS),
    Goal("realism, memorized", ("realism", "memorized"), text=three),
    Goal("realism, ordinary", ("realism", "ordinary"), text=three),
]


def goals() -> str:
    """Every goal, and both models before and now."""
    columns = {}
    for model in tiny.MODELS:
        columns[f"`{model}` before"] = read(EARLIER, model)
        columns[f"`{model}`"] = read(tiny.EVALUATION, model)
    rows = []
    for goal in GOALS:
        cells = {title: goal.cell(figures) for title, figures in columns.items()}
        rows.append({"": goal.title, "goal": goal.range, **cells})
    return markdown_table(rows)


def read(folder: Path, model: str) -> Figures:
    """What was measured of a model."""
    return json.loads((folder / f"{model}.json").read_text(encoding="utf-8"))


def guidance() -> str:
    """What the scales do that were tried on the tuning split."""
    rows = []
    for model in tiny.MODELS:
        file = tiny.EVALUATION / f"{model}_guidance.json"
        for line in json.loads(file.read_text(encoding="utf-8")):
            row = {
                "model": f"`{model}`",
                "guidance": f"{line['guidance_scale']:g}",
                "one subject seen, %": percent(line["one"]),
                "both of two, %": percent(line["two"]),
                "copies, %": percent(line["copies"]),
                "their RMSE": three(line["distance of copies"]),
            }
            rows.append(row)
    return markdown_table(rows)


GOAL_PARTS: dict[str, Callable[[], str]] = {
    "embedded_goals": goals,
    "embedded_guidance": guidance,
}
