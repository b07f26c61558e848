"""The table of docs/SCALING.md: what the sweeps of the paper's protocol cost on several GPUs."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from memorization_suite import ROOT
from memorization_suite.commands.sweeps.cost import (
    HOUR,
    RunCost,
    Total,
    costs_of,
    sources_of,
)
from memorization_suite.commands.sweeps.sweep import plan_sweep
from memorization_suite.runs.progress import duration_text
from memorization_suite.runs.text import markdown_table

SWEEPS = ROOT / "experiments" / "sweeps"
# Model -> the file of its settings.
PROTOCOL = {
    "Stable Diffusion 1.4": SWEEPS / "protocol_sd1.toml",
    "Stable Diffusion 2, 768 pixels": SWEEPS / "protocol_sd2.toml",
}
# Of the protocol. Their texts change no cost.
PROMPTS = 500
DEVICES = (1, 8, 64)


@cache
def protocol_costs() -> dict[str, list[RunCost]]:
    """Of every run, by model; with made-up prompts, in a folder without any run."""
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.txt"
        prompts.write_text("a red lantern\n" * PROMPTS, encoding="utf-8")
        for model, file in PROTOCOL.items():
            out = Path(folder) / "runs"
            costs[model] = costs_of(plan_sweep(file, out, prompts=str(prompts)))
    return costs


def row_of(model: str, costs: list[RunCost]) -> dict[str, str]:
    """A line of the table."""
    total = Total.of(costs)
    cells = total.columns()
    hours = total.hours or 0
    names = ("images", "NFE")
    walls = {}
    for count in DEVICES:
        name = f"{count} H100"
        walls[name] = duration_text(HOUR * hours / count)
    kept = {name: cells[name] for name in names}
    kept["hours"] = cells["device hours"]
    return {"model": model, "settings": cells["runs"], **kept, **walls, "storage": cells["storage"]}


def scaling() -> str:
    """The table, and where its numbers come from."""
    costs = protocol_costs()
    everything = [cost for runs in costs.values() for cost in runs]
    rows = [row_of(model, runs) for model, runs in costs.items()]
    rows.append(row_of("both", everything))
    sources = "".join(f"- {source}\n" for source in sources_of(everything))
    return f"{markdown_table(rows)}\n{sources}"


SCALING_PARTS = {"scaling": scaling}
