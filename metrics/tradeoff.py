"""The trade-off of scored runs: copy similarity against text alignment, a line a method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memorization_suite.metrics.base import quantities_of, quantity_named
from memorization_suite.metrics.manifests import told_by
from memorization_suite.metrics.summary import ALL, Line
from memorization_suite.runs import RunFolder
from memorization_suite.runs.foreign import method_of
from memorization_suite.runs.plots import PAGE, looks_of, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of the series of a method.
LINES = ("-", "--", ":", "-.")
# Runs that differ in one of these are on lines of their own.
GENERAL = (
    "model_id",
    "unet_id",
    "scheduler",
    "num_inference_steps",
    "guidance_scale",
    "image_length",
    "prompts",
    "start",
    "end",
    "seed",
    "dtype",
)


@dataclass(frozen=True)
class Points:
    """What is drawn."""

    # Names of the quantities.
    x: str
    y: str
    # A row a run: means over prompts with their intervals.
    rows: list[dict]


def points(
    runs: Mapping[Path, Sequence[Line]], x: str | None = None, y: str | None = None
) -> Points:
    """The points of runs, from their summaries.

    x, y: quantities, default the first copy similarity and the first alignment that every run has.
    Raises ValueError when the runs have no such quantities in common.
    """
    lines = {run: whole_lines(summary) for run, summary in runs.items()}
    x = pick(lines, [x] if x else names_of("copy"), "copy similarity (--x)")
    y = pick(lines, [y] if y else names_of("alignment"), "alignment (--y)")
    rows = []
    for run, series in series_of(list(runs)).items():
        rows.append(row(lines[run][x], lines[run][y], series))
    return Points(x, y, rows)


def names_of(role: str) -> list[str]:
    """The quantities that a role's axis may show, in the order of preference."""
    return [quantity.name for quantity in quantities_of(role)]


def whole_lines(lines: Sequence[Line]) -> dict[str, Line]:
    """Quantity -> its line of all prompts, where it has values."""
    return {line.quantity: line for line in lines if line.split == ALL and line.n}


def row(x: Line, y: Line, series: str) -> dict:
    """The point of a run."""
    return {
        "method": x.method,
        "series": series,
        "run": x.run,
        f"{x.quantity} variant": x.variant,
        "x": x.mean,
        "x_low": x.low,
        "x_high": x.high,
        "x_n": x.n,
        "x_of": x.total,
        f"{y.quantity} variant": y.variant,
        "y": y.mean,
        "y_low": y.low,
        "y_high": y.high,
        "y_n": y.n,
        "y_of": y.total,
    }


def series_of(runs: Sequence[Path]) -> dict[Path, str]:
    """What a run's line is of: its method, and general settings in which the runs differ."""
    settings = {run: settings_of(run) for run in runs}
    if all(told_by(run).knows_sampler for run in runs):
        for run in runs:
            settings[run]["scheduler"] = text_of(told_by(run).scheduler)
    files = {settings[run].get("prompts", ""): prompts_of(run) for run in reversed(runs)}
    series = {run: [method_of(run)] for run in runs}
    for name in GENERAL:
        values = {run: settings[run][name] for run in runs if name in settings[run]}
        different = set(values.values())
        if len(different) < 2:
            continue
        named = {value: files[value] if name == "prompts" else value for value in different}
        short = {value: text.rstrip("/").rpartition("/")[2] for value, text in named.items()}
        told: dict[str, str] = {}
        for names in (named, short):
            told = names if len(set(names.values())) == len(different) else told
        for run, value in values.items():
            series[run].append(f"{name} {told.get(value, value)}")
    return {run: ", ".join(parts) for run, parts in series.items()}


def settings_of(run: Path) -> dict[str, str]:
    """The general settings; without a manifest those that are known.

    Rows, and the prompts by their hash, are as the manifest has them: the same however they were
    typed.
    """
    store = RunFolder(run)
    manifest = store.manifest() or {}
    asked = manifest.get("asked", {})
    settings = store.config() | {name: asked[name] for name in ("start", "end") if name in asked}
    names = [name for name in GENERAL if name in settings] if store.is_foreign() else GENERAL
    texts = {name: text_of(settings.get(name)) for name in names}
    sha256 = manifest.get("identity", {}).get("prompts_sha256")
    return texts | ({"prompts": sha256} if sha256 else {})


def prompts_of(run: Path) -> str:
    """The prompt file as it was typed."""
    return text_of(RunFolder(run).config().get("prompts"))


def text_of(value: object) -> str:
    """A setting as a line's name has it."""
    return "default" if value is None else str(value)


def pick(lines: dict[Path, dict[str, Line]], names: list[str], what: str) -> str:
    """The first quantity that every run has, in one variant. Raises ValueError."""
    for name in names:
        variants = {
            run_lines[name].variant if name in run_lines else None for run_lines in lines.values()
        }
        if len(variants) == 1 and None not in variants:
            return name
    why = "their variants differ, and such numbers do not compare"
    for run, run_lines in lines.items():
        if not any(name in run_lines for name in names):
            why = f"{run} has none of {', '.join(names)}: score it first"
            break
    raise ValueError(f"no {what} that all runs share: {why}")


def figure_of(drawn: Points) -> Figure:
    """The figure, inside the suite's style.

    A method keeps its color and marker, and its series differ in their lines; a series' runs are
    joined in the order of x.
    """
    figure = new_figure(5.2, PAGE)
    axes = figure.subplots()
    methods = dict.fromkeys(row["method"] for row in drawn.rows)
    looks = looks_of(list(methods))
    places: Counter[str] = Counter()
    for name in dict.fromkeys(row["series"] for row in drawn.rows):
        rows = [row for row in drawn.rows if row["series"] == name]
        rows.sort(key=lambda row: row["x"])
        method = rows[0]["method"]
        axes.errorbar(
            [row["x"] for row in rows],
            [row["y"] for row in rows],
            xerr=bars(rows, "x"),
            yerr=bars(rows, "y"),
            color=looks[method].color,
            marker=looks[method].marker,
            linestyle=LINES[places[method] % len(LINES)],
            elinewidth=0.5,
            label=plain(name),
        )
        places[method] += 1
    axes.set(
        xlabel=label(drawn.x),
        ylabel=label(drawn.y),
        title="means over prompts, 95 % intervals",
    )
    axes.legend(ncols=2)
    return figure


def label(name: str) -> str:
    """A quantity, and which values of it one wants."""
    quantity = quantity_named(name)
    if quantity is None:
        return name
    if quantity.role == "copy":
        return f"{name} (less is less memorized)"
    return f"{name} ({'more' if quantity.better == 'higher' else 'less'} is better)"


def bars(rows: list[dict], axis: str) -> list[list[float]]:
    """How far the interval reaches below and above each mean."""
    below = [max(row[axis] - row[f"{axis}_low"], 0) for row in rows]
    above = [max(row[f"{axis}_high"] - row[axis], 0) for row in rows]
    return [below, above]
