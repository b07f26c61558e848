"""Pictures of spectra: a histogram for each prompt and step, and how many eigenvalues are not
negative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, str]


def distinct(rows: Sequence[Row], column: str) -> list[str]:
    """The column's values in order of appearance."""
    return list(dict.fromkeys(row[column] for row in rows))


def panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with panels in a row; the title is plain text, cut to one line."""
    figure = Figure(figsize=(4.2 * count, 3.6), layout="constrained")
    title = " ".join(title.split())
    figure.suptitle(
        title if len(title) <= 45 * count else title[: 45 * count - 1] + "…",
        fontsize=10,
        parse_math=False,
    )
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def histogram(rows: Sequence[Row], caption: str) -> Figure:
    """Eigenvalues of one prompt's images at one step: a panel for each kind, an outline for each
    operator. rows: of spectrum.csv.
    """
    kinds = distinct(rows, "kind")
    figure, axes = panels(
        len(kinds), f"step {rows[0]['step']}, t = {float(rows[0]['timestep']):.4g}: {caption}"
    )
    for axis, kind in zip(axes, kinds):
        own = [row for row in rows if row["kind"] == kind and np.isfinite(float(row["eigenvalue"]))]
        for operator in distinct(own, "operator"):
            values = np.array(
                [float(row["eigenvalue"]) for row in own if row["operator"] == operator]
            )
            label, bins = (
                f"{operator}: {(values >= 0).sum()} of {len(values)} ≥ 0",
                int(np.clip(len(values) // 4, 12, 60)),
            )
            axis.hist(values, bins=bins, histtype="stepfilled", alpha=0.5, log=True, label=label)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set(title=kind, xlabel="eigenvalue")
        axis.set_ylim(bottom=0.5)
        if own:
            axis.legend(fontsize=7)
    axes[0].set_ylabel("eigenvalues found")
    return figure


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
    shown = list(dict.fromkeys((row["kind"], row["operator"]) for row in rows))
    steps, names = (
        sorted({int(row["step"]) for row in rows}),
        sorted({types.get(int(row["prompt_index"]), "") for row in rows}),
    )
    figure, axes = panels(len(shown), "eigenvalues ≥ 0 of the Hessian (estimated for short runs)")
    for axis, (kind, operator) in zip(axes, shown):
        for g, name in enumerate(names):
            colour, side = f"C{g % 10}", (g - (len(names) - 1) / 2) * 0.8 / len(names)
            for i, step in enumerate(steps):
                values = np.array(
                    [
                        best_count(row)
                        for row in rows
                        if (row["kind"], row["operator"], int(row["step"]))
                        == (kind, operator, step)
                        and types.get(int(row["prompt_index"]), "") == name
                    ]
                )
                if len(values):
                    spread = (
                        np.linspace(-0.25, 0.25, len(values)) / len(names)
                        if len(values) > 1
                        else np.zeros(1)
                    )
                    axis.bar(i + side, values.mean(), 0.7 / len(names), color=colour, alpha=0.35)
                    axis.plot(i + side + spread, values, ".", color=colour)
            axis.plot([], [], "s", color=colour, label=name or "no type")
        axis.set(
            title=f"{kind}, {operator}",
            xlabel="sampling step",
            xticks=range(len(steps)),
            xticklabels=[str(step) for step in steps],
        )
        axis.set_ylim(0, max(axis.get_ylim()[1], 1))
        if any(names):
            for text in axis.legend(fontsize=7).get_texts():
                text.set_parse_math(False)
    axes[0].set_ylabel("eigenvalues ≥ 0")
    return figure
