"""Magnitudes of the noise that sampling starts from: why one setting does not fit every prompt."""

from __future__ import annotations

from memorization_suite.experiments.evidence.base import FIGURES, Drawn, Figure, counts, flag
from memorization_suite.experiments.evidence.runs import Evidence
from memorization_suite.runs.lazy import np
from memorization_suite.runs.plots import CYCLE, new_figure

BINS = 40


@FIGURES.register("reached")
class Reached(Figure):
    """Histograms of first-step magnitudes, a panel a run."""

    runs: str = flag("", "which runs, with traces (default all)")
    target: float | None = flag(None, "a line at this magnitude", above=0.0)

    def draw(self, evidence: Evidence) -> Drawn:
        runs = evidence.select(self.runs)
        every = [np.array(list(run.values("magnitude").values())) for run in runs]
        edges = np.linspace(0, max(values.max() for values in every), BINS + 1)
        figure = new_figure(0.5 + 0.65 * len(runs))
        grid = figure.subplots(len(runs), 1, squeeze=False, sharex=True)[:, 0]
        for place, (axes, run, values) in enumerate(zip(grid, runs, every)):
            axes.hist(values, edges, color=CYCLE[place % len(CYCLE)])
            axes.axvline(np.median(values), color="black", linewidth=0.8)
            if self.target is not None:
                axes.axvline(self.target, color="black", linewidth=0.8, linestyle=":")
            axes.set_title(run.title(runs), loc="left")
            axes.set_yticks([])
        grid[-1].set_xlabel("magnitude at the first step, epsilon units")
        target = "" if self.target is None else f", dotted: {self.target:g}"
        caption = (
            f"First-step magnitude of the noise that sampling starts from; line: median{target}. "
            f"{counts(evidence, runs)}."
        )
        return Drawn(figure, caption)
