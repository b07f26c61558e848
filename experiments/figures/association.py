"""First-step magnitude against the step of escape or the copy score, over the seeds of prompts."""

from __future__ import annotations

from math import isinf

from memorization_suite.experiments.evidence.association import Asked
from memorization_suite.experiments.evidence.base import FIGURES, Drawn, Figure, counts, flag
from memorization_suite.experiments.evidence.ranks import FEWEST
from memorization_suite.experiments.evidence.runs import Evidence
from memorization_suite.runs.lazy import np
from memorization_suite.runs.plots import CYCLE, new_figure


@FIGURES.register("association")
class AssociationFigure(Figure):
    """Left: a dot an image, a color a prompt. Right: every prompt's rank correlation."""

    x: str = flag("magnitude", "a quantity of the run `x_run`")
    x_run: str = flag("", "method and settings")
    y: str = flag(
        "transition", "a quantity of `y_run`, or free_start: of the runs of late guidance"
    )
    y_run: str = flag("", "method and settings")
    prompts: int = flag(7, "prompts whose images are drawn", at_least=1, at_most=len(CYCLE))

    def draw(self, evidence: Evidence) -> Drawn:
        asked = Asked(self.x, self.x_run, self.y, self.y_run)
        pairs = asked.pairs(evidence)
        found = asked.association(evidence)
        figure = new_figure(1.9)
        left, right = figure.subplots(1, 2, width_ratios=(2, 1))
        if not pairs:
            raise ValueError(f"no image has both {self.x} and {self.y.replace('_', ' ')}")
        finite = [y for values in pairs.values() for _, y in values if not isinf(y)]
        top = 1.08 * max(finite, default=1.0)
        for color, values in zip(CYCLE, list(pairs.values())[: self.prompts]):
            x, y = np.array(values).T
            left.plot(x, np.where(np.isinf(y), top, y), ".", color=color, markersize=3)
        if any(isinf(y) for values in pairs.values() for _, y in values):
            left.axhline(top, color="black", linewidth=0.4, linestyle=":")
            left.annotate("never", (1, top), xycoords=("axes fraction", "data"), fontsize=5)
        left.set_xlabel(f"{self.x} of the drawn noise")
        left.set_ylabel(self.y.replace("_", " "))
        right.hist(list(found.of_prompts.values()), np.linspace(-1, 1, 21), color=CYCLE[0])
        right.axvline(found.mean.value, color="black")
        right.set_xlabel("rank correlation")
        right.set_ylabel("prompts")
        caption = (
            f"{self.x} against {self.y.replace('_', ' ')} on equal seeds; a color a prompt, "
            f"{min(self.prompts, len(pairs))} of them drawn. Right: Spearman's rank correlation of "
            f"each prompt; mean {found.mean} (95 % interval over prompts, those of one training "
            f"image drawn together). At least {found.seeds} seeds a prompt, of which "
            f"{found.both:.0%} have both quantities; {found.unranked} prompts have equal "
            f"values at all seeds, or fewer than {FEWEST} seeds with both, and no rank. "
            f"{counts(evidence, asked.runs(evidence))}."
        )
        return Drawn(figure, caption)
