"""Pictures of spectra: a histogram for each prompt and step, and how many eigenvalues are not
negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from memorization_suite.runs.lazy import np
from memorization_suite.runs.plots import CYCLE, new_figure, plain, shorter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, str]


def panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with panels in a row; the title is plain text, cut to one line."""
    figure = new_figure(2.2, 2.6 * count)
    figure.suptitle(shorter(title, 45 * count), fontsize=7)
    axes = figure.subplots(1, count, squeeze=False)
    return figure, list(axes[0])


# --- histograms ---


def histogram(rows: Sequence[Row], caption: str) -> Figure:
    """Eigenvalues of one prompt's images at one step: a panel for each kind, an outline for each
    operator. rows: of spectrum.csv.
    """
    first = rows[0]
    timestep = float(first["timestep"])
    title = f"step {first['step']}, t = {timestep:.4g}: {caption}"
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row["kind"], []).append(row)
    figure, axes = panels(len(kinds), title)
    for axis, (kind, of_kind) in zip(axes, kinds.items()):
        draw_eigenvalues(axis, of_kind)
        axis.set(title=kind, xlabel="eigenvalue")
    axes[0].set_ylabel("eigenvalues found")
    return figure


def draw_eigenvalues(axis: Axes, rows: Sequence[Row]) -> None:
    """A histogram of the finite eigenvalues of each operator."""
    operators: dict[str, list[float]] = {}
    for row in rows:
        value = float(row["eigenvalue"])
        if np.isfinite(value):
            operators.setdefault(row["operator"], []).append(value)
    for operator, values in operators.items():
        nonnegative = sum(value >= 0 for value in values)
        axis.hist(
            values,
            bins=int(np.clip(len(values) // 4, 12, 60)),
            histtype="stepfilled",
            alpha=0.5,
            log=True,
            label=f"{operator}: {nonnegative} of {len(values)} ≥ 0",
        )
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_ylim(bottom=0.5)
    if operators:
        axis.legend()


# --- counts ---


def best_count(row: Row) -> float:
    """Of all eigenvalues those >= 0, as the summary knows them: counted, else estimated, else
    counted among the Ritz values. Else nan.
    """
    return float(row["nonnegative_estimate"] or row["nonnegative"] or "nan")


def counts(rows: Sequence[Row], types: Mapping[int, str]) -> Figure:
    """Eigenvalues >= 0 against the step: a panel for each kind and operator, a dot for each image,
    a bar for the mean of each type of prompt.

    rows: of summary.csv. types: prompt row -> type, "" for none.
    """
    # (kind, operator) -> (type, step) -> counts of images.
    shown: dict[tuple[str, str], dict[tuple[str, int], list[float]]] = {}
    for row in rows:
        groups = shown.setdefault((row["kind"], row["operator"]), {})
        group = (type_of(row, types), int(row["step"]))
        groups.setdefault(group, []).append(best_count(row))
    every = {group for groups in shown.values() for group in groups}
    names = sorted({name for name, _ in every})
    steps = sorted({step for _, step in every})
    title = "eigenvalues ≥ 0 of the Hessian (estimated for short runs)"
    figure, axes = panels(len(shown), title)
    for axis, (panel, groups) in zip(axes, shown.items()):
        draw_counts(axis, groups, names, steps)
        axis.set(
            title=", ".join(panel),
            xlabel="sampling step",
            xticks=range(len(steps)),
            xticklabels=[str(step) for step in steps],
        )
        top = max(axis.get_ylim()[1], 1)
        axis.set_ylim(0, top)
        if any(names):
            axis.legend()
    axes[0].set_ylabel("eigenvalues ≥ 0")
    return figure


def type_of(row: Row, types: Mapping[int, str]) -> str:
    """The type of the prompt that a row is about."""
    return types.get(int(row["prompt_index"]), "")


def draw_counts(
    axis: Axes,
    groups: Mapping[tuple[str, int], list[float]],
    names: Sequence[str],
    steps: Sequence[int],
) -> None:
    """Bars and dots of a panel, side by side for each type. groups: (type, step) -> counts."""
    middle = (len(names) - 1) / 2
    width = 0.7 / len(names)
    for g, name in enumerate(names):
        color = CYCLE[g % len(CYCLE)]
        side = (g - middle) * 0.8 / len(names)
        for i, step in enumerate(steps):
            values = groups.get((name, step))
            if values:
                axis.bar(i + side, np.mean(values), width, color=color, alpha=0.35)
                places = i + side + spread(len(values)) / len(names)
                axis.plot(places, values, ".", color=color)
        axis.plot([], [], "s", color=color, label=plain(name or "no type"))


def spread(count: int) -> np.ndarray:
    """Places of dots beside each other, around 0."""
    if count == 1:
        return np.zeros(1)
    return np.linspace(-0.25, 0.25, count)
