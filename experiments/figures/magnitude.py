"""Magnitude of the conditional noise prediction over timesteps.

Figures 1, 2, 3, 9 and 10 of Han et al. 2025.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from memorization_suite.experiments.evidence.base import FIGURES, Drawn, Figure, counts, flag
from memorization_suite.experiments.evidence.runs import Evidence
from memorization_suite.experiments.evidence.swept_run import DROP, SweptRun, Trace
from memorization_suite.runs.plots import COLUMN, CYCLE, PAGE, new_figure, plain

# What panels and lines can be of.
WHAT = ("prompt", "sample", "run")
# Of a line of a title, and lines.
LETTERS, LINES = 20, 2
# Letters of a legend in a column of a paper; a line has 8 beside its name.
LEGEND = 72
# Inches.
WIDE, HIGH = 1.15, 1.1


@FIGURES.register("magnitude")
class Magnitude(Figure):
    """A line an image; a circle where the trajectory leaves the basin."""

    runs: str = flag("", "which runs, such as `batch_wise gamma=0` (default all)")
    rows: str = flag("", "what a row of panels is", choices=WHAT)
    columns: str = flag("", "what a column of panels is", choices=WHAT)
    lines: str = flag("sample", "what the lines of a panel are", choices=WHAT)
    samples: int = flag(6, "seeds of each prompt that are drawn", at_least=1)
    prompts: int = flag(3, "prompts that are drawn", at_least=1)

    def draw(self, evidence: Evidence) -> Drawn:
        runs = evidence.select(self.runs)
        images = self.images(runs)
        rows = distinct(images, self.rows)
        columns = distinct(images, self.columns)
        wide = COLUMN if len(columns) <= 3 else PAGE
        figure = new_figure(max(1.9, HIGH * len(rows) + 0.6), max(wide, WIDE * len(columns)))
        grid = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
        lines = distinct(images, self.lines)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                for image in images:
                    if (image.get(self.rows), image.get(self.columns)) == (row, column):
                        draw_line(grid[i][j], image["trace"], lines.index(image[self.lines]))
            grid[i][0].set_ylabel(self.title(self.rows, row, runs), fontsize=5.5)
        for j, column in enumerate(columns):
            grid[0][j].set_title(self.title(self.columns, column, runs))
        grid[0][0].invert_xaxis()
        figure.supxlabel("timestep", fontsize=7)
        figure.supylabel(r"$\|\epsilon(x, c) - \epsilon(x, \emptyset)\|$", fontsize=7)
        self.add_legend(figure, lines, runs)
        return Drawn(figure, self.caption(evidence, runs))

    def images(self, runs: Sequence[SweptRun]) -> list[dict]:
        """What is drawn: prompt, sample, run and trace of each image."""
        shown = runs[0].prompts[: self.prompts]
        found = []
        for place, run in enumerate(runs):
            for key, trace in sorted(run.traces.items()):
                if key.prompt in shown and key.sample < self.samples:
                    about = {"prompt": key.prompt, "sample": key.sample, "run": place}
                    found.append({**about, "trace": trace})
        return found

    def title(self, what: str, value: int | None, runs: Sequence[SweptRun]) -> str:
        """Of a panel, or of a line in the legend."""
        if what == "prompt" and value is not None:
            return wrapped(runs[0].captions[value])
        if what == "run" and value is not None:
            return runs[value].title(runs)
        return "" if value is None else f"seed {value + 1}"

    def add_legend(self, figure, lines: Sequence[int], runs: Sequence[SweptRun]) -> None:
        """Names of the lines, where they are few; seeds need none."""
        if self.lines == "sample" or len(lines) > len(CYCLE):
            return
        titles = [self.title(self.lines, value, runs) for value in lines]
        if self.lines == "run" and len({run.method for run in runs}) == 1:
            titles = [title.removeprefix(f"{runs[0].method} ") for title in titles]
        for color, title in zip(CYCLE, titles):
            figure.axes[0].plot([], [], color=color, label=title)
        width = LEGEND * figure.get_size_inches()[0] / COLUMN / (8 + max(map(len, titles)))
        figure.legend(loc="outside upper center", ncols=max(1, min(len(lines), int(width))))

    def caption(self, evidence: Evidence, runs: Sequence[SweptRun]) -> str:
        """What stands below the figure."""
        scale = runs[0].config["guidance_scale"]
        what = "seed" if self.lines == "sample" else self.lines
        guidance = "without guidance" if not scale else f"with guidance {scale:g}"
        return (
            f"Magnitude of the conditional noise prediction over timesteps {guidance}, a color a "
            f"{what}. A circle marks the transition: the first minimum at least {DROP:.0%} below "
            f"an earlier value. Drawn: at most the first {self.prompts} prompts and {self.samples} "
            f"images of {counts(evidence, list(runs))}."
        )


def wrapped(text: str) -> str:
    """A caption as a title of a few short lines."""
    lines = textwrap.wrap(text, LETTERS, max_lines=LINES, placeholder="…")
    return plain("\n".join(lines))


def distinct(images: Sequence[dict], what: str) -> list:
    """The values of something, in order; [None] for nothing."""
    return list(dict.fromkeys(image.get(what) for image in images))


def draw_line(axes, trace: Trace, place: int) -> None:
    """An image's line, and a circle at its transition."""
    color = CYCLE[place % len(CYCLE)]
    dashed = "-" if place < len(CYCLE) else "--"
    axes.plot(trace.timesteps, trace.magnitudes, dashed, color=color, linewidth=0.8)
    step = trace.transition
    if step is not None:
        point = (trace.timesteps[step], trace.magnitudes[step])
        axes.plot(*point, "o", color=color, markersize=3.5, markeredgecolor="black")
