"""The tables of experiments/cost.py, and the goals beside them."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from memorization_suite.experiments.sd_cost import SPEEDS, TITLES
from memorization_suite.runs.files import write_bytes, write_csv
from memorization_suite.runs.text import markdown_table

MIB = 2**20


@dataclass(frozen=True)
class Setting:
    """What was measured, and where."""

    # Of the model.
    title: str
    # As it was asked for; empty for a model from a folder.
    architecture: str
    reduced: bool
    # As people call it.
    device: str
    cuda: bool
    dtype: str
    pixels: int
    # Of each prompt, together.
    images: int
    prompts: int
    steps: int
    updates: int
    repeats: int
    compiled: bool
    # GiB, and rows of the network in a pass; None: no limit.
    memory_budget: float | None
    forward_rows: int | None
    backward_rows: int | None

    def text(self) -> str:
        """What the tables are of, in a few lines."""
        images = f"{self.images} images of a prompt"
        if self.prompts > 1:
            images = f"{self.images} images of each of {self.prompts} prompts"
        compiled = " The suite's network is compiled." if self.compiled else ""
        limits = ""
        if self.forward_rows is not None:
            limits = (
                f" At most {self.forward_rows} rows of the suite's network in a pass, "
                f"{self.backward_rows} with gradients."
            )
            if self.memory_budget is not None:
                limits += f" It may take {self.memory_budget:g} GiB."
        return (
            f"# Costs: {self.title}\n\n"
            f"{self.dtype} on {self.device}, {self.pixels} pixels, {images}, {self.steps} steps. "
            f"No method reaches its target: per-sample takes {self.updates} updates an image, the "
            f"others as many as they may.{limits}{compiled}\n"
        )

    def is_the_officials(self) -> bool:
        """Whether the official code was measured at this, so that the goals mean something."""
        measured = tomllib.loads(SPEEDS.read_text(encoding="utf-8"))["measured"]
        return (
            self.cuda
            and self.architecture == "sd14"
            and not self.reduced
            and self.prompts == 1
            and all(getattr(self, name) == measured[name] for name in SAME)
        )


# What the official code's figures hold for; of `Setting` and of speeds.toml's [measured].
SAME = ("dtype", "pixels", "images", "steps", "updates")


@dataclass
class Cost:
    """Of one method by one code: medians of the timed runs."""

    method: str
    # Whose: the suite's, or the official procedure's.
    code: str
    images: int
    # Of an image.
    nfe: float
    # Seconds of sampling, and with decoding to pictures; nothing is written to a disk.
    sampling: float
    seconds: float
    # The most bytes at once.
    peak_sampling: int
    peak_decoding: int
    # Median of ours by theirs, of runs in turns.
    time_ratio: float | None = None
    peak_ratio: float | None = None
    # Seconds that the first run took longer than the others.
    compiling: float | None = None

    @property
    def peak(self) -> int:
        """Of the whole."""
        return max(self.peak_sampling, self.peak_decoding)

    def columns(self) -> dict[str, str]:
        """The row of the tables."""
        return {
            "method": self.method,
            "code": self.code,
            "nfe": f"{self.nfe:.4g}",
            "seconds_an_image": f"{self.seconds / self.images:.4g}",
            "seconds_sampling": f"{self.sampling:.4g}",
            "seconds": f"{self.seconds:.4g}",
            "time_ratio": number(self.time_ratio),
            "peak_mib_sampling": mib(self.peak_sampling),
            "peak_mib_decoding": mib(self.peak_decoding),
            "peak_mib": mib(self.peak),
            "peak_ratio": number(self.peak_ratio),
            "compile_seconds": "" if self.compiling is None else f"{self.compiling:.0f}",
        }


def number(value: float | None) -> str:
    """Three places, or nothing."""
    return "" if value is None else f"{value:.3f}"


def mib(value: int) -> str:
    """MiB of bytes."""
    return f"{value / MIB:.0f}" if value >= 100 * MIB else f"{value / MIB:.1f}"


# Column of cost.csv -> heading in cost.md.
HEADINGS = {
    "method": "method",
    "code": "code",
    "nfe": "NFE",
    "seconds_an_image": "s an image",
    "seconds_sampling": "s sampling",
    "seconds": "s in all",
    "time_ratio": "ratio",
    "peak_mib_sampling": "MiB sampling",
    "peak_mib_decoding": "MiB decoding",
    "peak_mib": "MiB in all",
    "peak_ratio": "ratio of MiB",
    "compile_seconds": "s to compile",
}
EXPLAINED = """\
NFE: rows through the network, of an image. In all: sampling and decoding to pictures, without
writing them; s an image is of that. Seconds are medians of {repeats} runs that took turns, the
ratio is the median of suite / official procedure over these turns. MiB: the most at once, weights
included, {memory}.
"""
MEMORY = {
    True: "what torch has allocated on the device",
    False: "of tensors that torch's operators make, counted",
}


def heading_table(rows: list[dict[str, str]]) -> str:
    """A Markdown table under readable headings; an empty column is left out."""
    full = [name for name in HEADINGS if any(row[name] for row in rows)]
    return markdown_table([{HEADINGS[name]: row[name] for name in full} for row in rows])


# --- goals ---


@dataclass(frozen=True)
class Goal:
    """At most so much of the official code's figure, or of the suite's without a mitigation."""

    method: str
    # "seconds" or "peak_mib".
    quantity: str
    factor: float
    against: str = "official"
    compiled: bool = False


GOALS = (
    Goal("no_mitigation", "seconds", 1.0),
    Goal("no_mitigation", "peak_mib", 0.5),
    Goal("batch_wise", "seconds", 1.045, against="no_mitigation"),
    Goal("per_sample", "seconds", 0.45),
    Goal("per_sample", "peak_mib", 0.65),
    Goal("no_mitigation", "seconds", 0.75, compiled=True),
)
UNITS = {"seconds": "s", "peak_mib": "MiB"}


def goal_rows(setting: Setting, costs: list[Cost]) -> list[dict[str, str]]:
    """A row for each goal of the methods that were measured."""
    speeds = tomllib.loads(SPEEDS.read_text(encoding="utf-8"))
    ours = {cost.method: cost for cost in costs if cost.code == "suite"}
    rows = []
    for goal in GOALS:
        if goal.compiled != setting.compiled or goal.method not in ours:
            continue
        if goal.against == "official":
            of = f"the official code's {UNITS[goal.quantity]}"
            base = speeds[f"official_{goal.quantity}"][goal.method]
        elif goal.against in ours:
            of = f"the suite's {UNITS[goal.quantity]} with {TITLES[goal.against]}"
            base = quantity(ours[goal.against], goal.quantity)
        else:
            continue
        value = quantity(ours[goal.method], goal.quantity)
        rows.append(
            {
                "method": TITLES[goal.method],
                "at most": f"{goal.factor:g} times {of} ({base:.4g})",
                "suite": f"{value:.4g} {UNITS[goal.quantity]}",
                "times": f"{value / base:.3f}",
                "kept": "yes" if value <= goal.factor * base else "no",
            }
        )
    return rows


def quantity(cost: Cost, name: str) -> float:
    """Seconds or MiB of all."""
    return cost.seconds if name == "seconds" else cost.peak / MIB


GOAL_NOTE = """\
## Goals

The official code's figures are of one NVIDIA H100, with the libraries that it pins. On another
card these rows say nothing; the ratios above do.
"""


# --- what is printed and written ---


def cost_text(setting: Setting, costs: list[Cost], left_out: dict[str, str]) -> str:
    """All of it as Markdown."""
    parts = [setting.text()]
    if costs:
        parts.append(heading_table([cost.columns() for cost in costs]))
        parts.append(EXPLAINED.format(repeats=setting.repeats, memory=MEMORY[setting.cuda]))
    goals = goal_rows(setting, costs) if setting.is_the_officials() else []
    if goals:
        parts += [GOAL_NOTE, markdown_table(goals)]
    if left_out:
        lines = [f"- {name}: {reason}\n" for name, reason in left_out.items()]
        parts.append(f"Left out:\n\n{''.join(lines)}")
    return "\n".join(parts)


def write_costs(
    out: Path | None, setting: Setting, costs: list[Cost], left_out: dict[str, str]
) -> str:
    """cost.md and cost.csv in the folder `out`, if one is given; the text of cost.md."""
    text = cost_text(setting, costs, left_out)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(out / "cost.md", text.encode())
        write_csv(out / "cost.csv", [cost.columns() | asdict(setting) for cost in costs])
    return text


@dataclass(frozen=True)
class Rate:
    """Speed of the network alone."""

    rows: int
    rows_a_second: float


def write_rates(out: Path | None, setting: Setting, rates: list[Rate]) -> str:
    """rows.md and rows.csv in the folder `out`, if one is given; the text of rows.md."""
    cells = [
        {"rows in flight": str(rate.rows), "rows a second": f"{rate.rows_a_second:.4g}"}
        for rate in rates
    ]
    compiled = ", compiled" if setting.compiled else ""
    text = (
        f"# Rows a second: {setting.title}\n\n"
        f"{setting.dtype} on {setting.device}, {setting.pixels} pixels{compiled}, forward, median "
        f"of {setting.repeats}.\n\n{markdown_table(cells)}"
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(out / "rows.md", text.encode())
        write_csv(out / "rows.csv", [asdict(rate) | asdict(setting) for rate in rates])
    return text
