"""Pictures of spectra: a histogram for each prompt and step, and how many eigenvalues are not
negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memorization_suite.lazy import np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, str]


def distinct(rows: Sequence[Row], column: str) -> list[str]:
    """The column's values in order of appearance."""
    return list(dict.fromkeys(row[column] for row in rows))


def one_line(text: str, length: int) -> str:
    """The text in one line, cut to so many letters."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with panels in a row; the title is plain text, cut to one line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * count, 3.6), layout="constrained")
    figure.suptitle(one_line(title, 45 * count), fontsize=10, parse_math=False)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def histogram(rows: Sequence[Row], caption: str) -> Figure:
    """Eigenvalues of one prompt's images at one step: a panel for each kind, an outline for each
    operator. rows: of spectrum.csv.
    """
    kinds = distinct(rows, "kind")
    timestep = float(rows[0]["timestep"])
    figure, axes = panels(len(kinds), f"step {rows[0]['step']}, t = {timestep:.4g}: {caption}")
    for axis, kind in zip(axes, kinds):
        draw_kind(axis, [row for row in rows if row["kind"] == kind])
        axis.set(title=kind, xlabel="eigenvalue")
    axes[0].set_ylabel("eigenvalues found")
    return figure


def draw_kind(axis: Axes, rows: Sequence[Row]) -> None:
    """Histograms of the finite eigenvalues of one kind, an outline for each operator."""
    rows = [row for row in rows if np.isfinite(float(row["eigenvalue"]))]
    for operator in distinct(rows, "operator"):
        values = np.array([float(row["eigenvalue"]) for row in rows if row["operator"] == operator])
        label = f"{operator}: {(values >= 0).sum()} of {len(values)} ≥ 0"
        bins = int(np.clip(len(values) // 4, 12, 60))
        axis.hist(values, bins=bins, histtype="stepfilled", alpha=0.5, log=True, label=label)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_ylim(bottom=0.5)
    if rows:
        axis.legend(fontsize=7)


def best_count(row: Row) -> float:
    """Of all eigenvalues those >= 0, as the summary knows them: counted, else estimated, else
    counted among the Ritz values. Else nan.
    """
    return float(row["nonnegative_estimate"] or row["nonnegative"] or "nan")


def counts(rows: Sequence[Row], types: dict[int, str]) -> Figure:
    """Eigenvalues >= 0 against the step: a panel for each kind and operator, a dot for each image,
    a bar for the mean of each type of prompt.

    rows: of summary.csv. types: prompt row -> type, "" for none.
    """
    pairs = list(dict.fromkeys((row["kind"], row["operator"]) for row in rows))
    figure, axes = panels(len(pairs), "eigenvalues ≥ 0 of the Hessian (estimated for short runs)")
    names = sorted({types.get(int(row["prompt_index"]), "") for row in rows})
    steps = sorted({int(row["step"]) for row in rows})
    for axis, pair in zip(axes, pairs):
        shown = [row for row in rows if (row["kind"], row["operator"]) == pair]
        groups: dict[tuple[str, int], list[float]] = {}
        for row in shown:
            name = types.get(int(row["prompt_index"]), "")
            groups.setdefault((name, int(row["step"])), []).append(best_count(row))
        draw_groups(axis, groups, names, steps)
        axis.set(title=", ".join(pair), xlabel="sampling step")
        axis.set(xticks=range(len(steps)), xticklabels=[str(step) for step in steps])
        axis.set_ylim(0, max(axis.get_ylim()[1], 1))
        if any(names):
            for text in axis.legend(fontsize=7).get_texts():
                text.set_parse_math(False)
    axes[0].set_ylabel("eigenvalues ≥ 0")
    return figure


def draw_groups(
    axis: Axes, groups: dict[tuple[str, int], list[float]], names: list[str], steps: list[int]
) -> None:
    """Bars and dots of a panel, side by side for each type. groups: (type, step) -> counts."""
    for g, name in enumerate(names):
        color = f"C{g % 10}"
        side = (g - (len(names) - 1) / 2) * 0.8 / len(names)
        for i, step in enumerate(steps):
            values = np.array(groups.get((name, step), []))
            if not len(values):
                continue
            spread = np.zeros(1)
            if len(values) > 1:
                spread = np.linspace(-0.25, 0.25, len(values)) / len(names)
            axis.bar(i + side, values.mean(), 0.7 / len(names), color=color, alpha=0.35)
            axis.plot(i + side + spread, values, ".", color=color)
        axis.plot([], [], "s", color=color, label=name or "no type")
