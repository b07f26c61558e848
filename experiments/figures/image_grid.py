"""Images of equal seeds beside the training image, a row a prompt: Figures 6 and 11."""

from __future__ import annotations

from pathlib import Path

from memorization_suite.experiments.evidence.base import FIGURES, Drawn, Figure, flag
from memorization_suite.experiments.evidence.runs import Evidence
from memorization_suite.experiments.evidence.swept_run import SweptRun
from memorization_suite.metrics.references import References
from memorization_suite.metrics.runs import open_run
from memorization_suite.runs import Key
from memorization_suite.runs.lazy import Image
from memorization_suite.runs.plots import PAGE, new_figure, shorter

LETTERS = 44


@FIGURES.register("image_grid")
class ImageGrid(Figure):
    """Column 1: the training image; then a column a run, its copy score in the corner."""

    runs: str = flag("", "which runs (default all)")
    prompts: int = flag(6, "rows", at_least=1)
    skip: int = flag(0, "prompts of the file before the first row", at_least=0)
    sample: int = flag(0, "which image of a prompt", at_least=0)

    def draw(self, evidence: Evidence) -> Drawn:
        runs = evidence.select(self.runs)
        opened = open_run(runs[0].folder.path)
        references = References(opened.gt_folder, decode=False)
        shown = self.chosen(runs[0].prompts)
        side = PAGE / (len(runs) + 1)
        figure = new_figure((side + 0.17) * len(shown) + 0.3, PAGE)
        grid = figure.subplots(len(shown), len(runs) + 1, squeeze=False)
        for axes, prompt in zip(grid, shown):
            files = references.files(opened.prompts[prompt].index)
            show(axes[0], files[0] if files else None)
            axes[0].set_xlabel(shorter(runs[0].captions[prompt], LETTERS), loc="left", fontsize=5.5)
            for place, run in enumerate(runs, 1):
                self.show_run(axes[place], run, prompt)
        for axes, title in zip(grid[0], ["training image", *(run.title(runs) for run in runs)]):
            axes.set_title(title.replace(" ", "\n").replace("_", " "), fontsize=5.5)
        caption = (
            "Training image, and images of one seed under each method; in the corner the copy "
            f"score. {len(shown)} of {len(runs[0].prompts)} prompts, image {self.sample + 1} of "
            f"each; {', '.join(evidence.models)}."
        )
        return Drawn(figure, caption)

    def chosen(self, prompts: list[int]) -> list[int]:
        """Prompts spread evenly over those of a run."""
        rows = min(self.prompts, len(prompts))
        return [
            prompts[(row * len(prompts) // rows + self.skip) % len(prompts)] for row in range(rows)
        ]

    def show_run(self, axes, run: SweptRun, prompt: int) -> None:
        """A run's image, and its copy score if it has one."""
        key = Key(prompt, self.sample)
        file = run.folder.image_path(key)
        show(axes, file if file.exists() else None)
        try:
            score = run.values("copy").get(key)
        except ValueError:
            score = None
        if score is not None:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            axes.text(
                0.98,
                0.03,
                f"{score:.2f}",
                transform=axes.transAxes,
                ha="right",
                fontsize=5,
                bbox=box,
            )


def show(axes, file: Path | None) -> None:
    """A picture without axes, or an empty place."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if file is None:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color="gray")
    else:
        with Image.open(file) as image:
            axes.imshow(image.convert("RGB"))
