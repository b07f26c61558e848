"""What a planned sweep costs: NFE, hours on so many devices, room on a disk. No model is loaded.

Seconds come from images that are there; without any from commands/speeds.toml, where the model is
like the one that was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.commands.room import beside_picture
from memorization_suite.commands.sweeps.measured import Known
from memorization_suite.commands.sweeps.nfe import evaluations
from memorization_suite.commands.sweeps.sweep import Entry
from memorization_suite.download.transfer import size_text
from memorization_suite.runs.progress import duration_text
from memorization_suite.runs.text import table_text

# Up to so many runs have a line each; more have one a method.
FEW = 8
HOUR = 3600


@dataclass(frozen=True)
class RunCost:
    """Of one run of the sweep; what is of an image is a mean."""

    name: str
    method: str
    images: int
    # Images that are there already.
    there: int
    nfe: float
    # On one device; None where no speed is known.
    seconds: float | None
    # With rows, latents and trace.
    bytes: float
    # Where these come from, in words.
    sources: tuple[str, ...] = ()

    @property
    def hours(self) -> float | None:
        """On one device, from the first image on."""
        return None if self.seconds is None else self.images * self.seconds / HOUR


def costs_of(entries: Sequence[Entry]) -> list[RunCost]:
    """Of every run of a planned sweep, in its order."""
    known = Known.of([entry.plan for entry in entries])
    return [cost_of(entry, known) for entry in entries]


def cost_of(entry: Entry, known: Known) -> RunCost:
    """Of one run."""
    plan = entry.plan
    method = plan.mitigation.name
    counted = evaluations(plan)
    nfe, notes = known.nfe(plan, counted)
    seconds, speeds = known.seconds(plan, counted, nfe)
    picture, size = known.picture(plan)
    own = known.own[plan.folder]
    return RunCost(
        entry.name,
        method,
        images=len(plan.rows) * plan.settings.n_samples_per_prompt,
        there=own.images if own else 0,
        nfe=nfe,
        seconds=seconds,
        bytes=picture + beside_picture(plan.settings),
        sources=(*speeds, *(f"{method}, {note}" for note in notes), size),
    )


# --- what is said ---


@dataclass(frozen=True)
class Total:
    """Of several runs."""

    runs: int
    images: int
    nfe: float
    # On one device; None where the speed of a run is not known.
    hours: float | None
    bytes: float

    @classmethod
    def of(cls, costs: Sequence[RunCost]) -> Total:
        """The sums."""
        hours = [cost.hours for cost in costs]
        return cls(
            len(costs),
            sum(cost.images for cost in costs),
            sum(cost.images * cost.nfe for cost in costs),
            None if None in hours else sum(each or 0 for each in hours),
            sum(cost.images * cost.bytes for cost in costs),
        )

    def columns(self) -> dict[str, str]:
        """Of a row of the table."""
        seconds = ""
        if self.hours is not None:
            seconds = f"{HOUR * self.hours / self.images:.3g}"
        return {
            "runs": str(self.runs),
            "images": str(self.images),
            "NFE an image": f"{self.nfe / self.images:.4g}",
            "NFE": count_text(self.nfe),
            "s an image": seconds,
            "device hours": "" if self.hours is None else hours_text(self.hours),
            "storage": size_text(round(self.bytes)),
        }


def hours_text(hours: float) -> str:
    """`0.03`, `4.2`, `310`."""
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.2g}"


def count_text(number: float) -> str:
    """`500 thousand`, `21.6 million`."""
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if number >= size:
            return f"{number / size:.3g} {word}"
    return f"{number:.0f}"


def rows_of(costs: Sequence[RunCost]) -> list[dict[str, str]]:
    """A row a run when there are few, else one a method; then the sums."""
    few = len(costs) <= FEW
    groups: dict[str, list[RunCost]] = {}
    for cost in costs:
        groups.setdefault(cost.name if few else cost.method, []).append(cost)
    groups["in all"] = list(costs)
    heading = "run" if few else "method"
    return [{heading: title} | Total.of(group).columns() for title, group in groups.items()]


def time_lines(costs: Sequence[RunCost], devices: int) -> list[str]:
    """How long it takes, and what of it is left; nothing where a speed is not known."""
    total = Total.of(costs)
    if total.hours is None:
        return []
    wall = duration_text(HOUR * total.hours / devices)
    lines = [f"{hours_text(total.hours)} device hours of generation, without scores"]
    if devices == 1:
        lines.append(f"on 1 device: {wall}")
    else:
        lines.append(
            f"on {devices} devices: {wall}, and at the end up to a piece more (a run, or "
            "--prompts_per_job prompts of it)"
        )
    if devices > len(costs):
        lines.append(f"--prompts_per_job divides the {len(costs)} runs among {devices} devices")
    there = sum(cost.there for cost in costs)
    if there:
        left = sum((cost.images - cost.there) * (cost.seconds or 0) for cost in costs)
        lines.append(
            f"{there} images are there; the others take {hours_text(left / HOUR)} device hours"
        )
    return lines


def cost_lines(entries: Sequence[Entry], devices: int, out: Path | str) -> list[str]:
    """What `sweep.py FILE --dry_run` says of the cost, below the commands.

    devices: among which the work is divided. out: the sweep's folder, where runs lie that were
    begun.
    """
    costs = costs_of(entries)
    lines = ["", f"cost of {len(costs)} runs in {out}", table_text(rows_of(costs))]
    return [*lines, *time_lines(costs, devices), *sources_of(costs)]


def sources_of(costs: Sequence[RunCost]) -> list[str]:
    """Where the numbers come from, a line each, without repetition."""
    return list(dict.fromkeys(source for cost in costs for source in cost.sources))
