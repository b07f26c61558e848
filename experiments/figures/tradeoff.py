"""Memorization against alignment, diversity or quality, a line a method: Figures 4, 5, 8."""

from __future__ import annotations

from memorization_suite.experiments.evidence.base import FIGURES, Drawn, Figure, counts, flag
from memorization_suite.experiments.evidence.direction import sign_of
from memorization_suite.experiments.evidence.front import pareto
from memorization_suite.experiments.evidence.resampling import Estimate, mean_of
from memorization_suite.experiments.evidence.runs import Evidence, check_comparable
from memorization_suite.experiments.evidence.swept_run import ROLES, SweptRun
from memorization_suite.runs.plots import PAGE, Look, looks_of, new_figure

LABELS = {"copies": "share of copies", "copy": "similarity to the training image"}


@FIGURES.register("tradeoff")
class Tradeoff(Figure):
    """Means over prompts with their intervals; the Pareto front of all runs is a gray step."""

    runs: str = flag("", "which runs (default all)")
    x: str = flag("copy", "what is to be low: copy, copies or a quantity")
    y: tuple[str, ...] = flag(("alignment",), "what is to be high, a panel each")
    front: bool = flag(True, "draw the Pareto front")

    def draw(self, evidence: Evidence) -> Drawn:
        runs = evidence.select(self.runs)
        for name in (self.x, *self.y):
            check_comparable(runs, name)
        figure = new_figure(3.2, PAGE if len(self.y) > 1 else 4.4)
        grid = figure.subplots(1, len(self.y), squeeze=False)[0]
        for axes, name in zip(grid, self.y):
            points = [(of_run(run, self.x), of_run(run, name)) for run in runs]
            draw_points(axes, runs, points)
            if self.front:
                draw_front(axes, points, sign_of(runs[0], name))
            axes.set_xlabel(label(runs[0], self.x))
            axes.set_ylabel(label(runs[0], name))
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper")
        front = " Gray: the Pareto front of all." if self.front else ""
        caption = (
            "Means over prompts with 95 % intervals; a line joins the settings of a method."
            f"{front} {counts(evidence, runs)}."
        )
        return Drawn(figure, caption)


def of_run(run: SweptRun, quantity: str) -> Estimate:
    """Mean over prompts, with its interval over clusters of them."""
    means = run.prompt_means(quantity)
    return mean_of(list(means.values()), [run.clusters.get(prompt, prompt) for prompt in means])


def draw_points(axes, runs: list[SweptRun], points: list[tuple[Estimate, Estimate]]) -> None:
    """A line a method, in the order of x."""
    looks = looks_of([run.method for run in runs])
    for method, look in looks.items():
        own = [point for run, point in zip(runs, points) if run.method == method]
        own.sort(key=lambda point: point[0].value)
        draw_series(axes, method, look, own)


def draw_series(axes, method: str, look: Look, points: list[tuple[Estimate, Estimate]]) -> None:
    """The points of a method with their intervals."""
    sides = list(zip(*points))
    axes.errorbar(
        [each.value for each in sides[0]],
        [each.value for each in sides[1]],
        xerr=[[reach(each, below) for each in sides[0]] for below in (True, False)],
        yerr=[[reach(each, below) for each in sides[1]] for below in (True, False)],
        color=look.color,
        marker=look.marker,
        elinewidth=0.4,
        markersize=8 if look.marker == "*" else 4,
        zorder=4 if method == "no_mitigation" else 3,
        label=method,
    )


def reach(found: Estimate, below: bool) -> float:
    """How far the interval goes on one side; 0 without one."""
    if found.low != found.low:
        return 0.0
    return max(0.0, found.value - found.low if below else found.high - found.value)


def draw_front(axes, points: list[tuple[Estimate, Estimate]], sign: int) -> None:
    """The front as steps, below everything."""
    values = [(x.value, sign * y.value) for x, y in points]
    front = [values[i] for i in pareto(values)]
    axes.step(
        [x for x, _ in front],
        [sign * y for _, y in front],
        where="post",
        color="#BBBBBB",
        linewidth=2.5,
        zorder=0,
    )


def label(run: SweptRun, quantity: str) -> str:
    """Of an axis."""
    name = run.of_role(quantity) if quantity in ROLES else quantity
    if quantity in LABELS:
        return f"{LABELS[quantity]} (less is better)" + ("" if name == quantity else f"\n{name}")
    return f"{name} ({'more' if sign_of(run, quantity) > 0 else 'less'} is better)"
