"""When trajectories leave the basin, over many seeds of each prompt: a violin a prompt."""

from __future__ import annotations

from memorization_suite.experiments.evidence.base import FIGURES, Drawn, Figure, counts, flag
from memorization_suite.experiments.evidence.runs import Evidence
from memorization_suite.experiments.evidence.swept_run import DROP
from memorization_suite.runs.lazy import np
from memorization_suite.runs.plots import CYCLE, new_figure, shorter

LETTERS = 26


@FIGURES.register("transition")
class Transition(Figure):
    """The distribution of the transition's timestep over seeds."""

    runs: str = flag("", "the run: method and settings")
    prompts: int = flag(8, "prompts that are drawn", at_least=1)

    def draw(self, evidence: Evidence) -> Drawn:
        run = evidence.only(self.runs)
        shown = run.prompts[: self.prompts]
        figure = new_figure(0.6 + 0.3 * len(shown))
        axes = figure.subplots()
        never = []
        for place, prompt in enumerate(shown):
            traces = [trace for key, trace in run.traces.items() if key.prompt == prompt]
            at = [trace.timesteps[i] for trace in traces if (i := trace.transition) is not None]
            never.append(f"{len(traces) - len(at)}/{len(traces)}")
            draw_violin(axes, np.array(at), place)
        axes.set_yticks(
            range(len(shown)), [shorter(run.captions[prompt], LETTERS) for prompt in shown]
        )
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(len(shown)), never)
        right.set_ylabel("without a transition")
        axes.invert_yaxis()
        axes.invert_xaxis()
        axes.set_xlabel("timestep of the transition")
        caption = (
            "When trajectories without guidance leave the basin: a dot a seed, a violin a prompt. "
            "The transition is the first minimum of the magnitude at least "
            f"{DROP:.0%} below an earlier value; at the right the seeds that have none. "
            f"{counts(evidence, [run])}."
        )
        return Drawn(figure, caption)


def draw_violin(axes, values: np.ndarray, place: int) -> None:
    """Dots, and the density of several different ones."""
    color = CYCLE[0]
    if len(set(values.tolist())) > 2:
        bodies = axes.violinplot(
            [values], [place], orientation="horizontal", widths=0.8, showextrema=False
        )
        for body in bodies["bodies"]:
            body.set(facecolor=color, alpha=0.25)
    offsets = 0.5 * (np.random.default_rng(0).random(len(values)) - 0.5)
    axes.plot(values, place + offsets, ".", color=color, markersize=2)
    if len(values):
        axes.plot(np.median(values), place, "|", color="black", markersize=8)
