"""The study `spectrum`: eigenvalues of the Hessian of the log density along guided trajectories.

*Source:* Jeon et al., ICML 2025.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from memorization_suite.commands.study import Study, StudySettings
from memorization_suite.detection.evaluation.spectrum_plots import (
    best_count,
    counts,
    histogram,
    type_of,
)
from memorization_suite.detection.spectrum import (
    KINDS,
    OPERATORS,
    ScoreJacobian,
    Spectrum,
    probe,
)
from memorization_suite.detection.spectrum import spectrum as spectrum_of
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.batches import Row
from memorization_suite.runs.lazy import no_grad
from memorization_suite.runs.settings import again, flag, frozen_settings, unkeyed
from memorization_suite.runs.tables import Fault, cell, shown, whole
from memorization_suite.runs.text import counted
from memorization_suite.sampling import Batch, GuidanceSchedule, NoisePredictor
from memorization_suite.sampling.loop import steps

if TYPE_CHECKING:
    import torch


@frozen_settings
class SpectrumSettings(StudySettings):
    """The flags of `detect_memorization.py spectrum`."""

    study = "spectrum"
    about = (
        "Eigenvalues of the Hessian of the log density, on the guided trajectories of a prompt "
        "file."
    )

    n_samples_per_prompt: int = again(
        StudySettings, "n_samples_per_prompt", default=1, preset=False, changes_result=False
    )
    at: tuple[int, ...] = unkeyed((0,), "sampling steps, from 0", metavar="STEP")
    iterations: int = flag(
        50,
        "length of a Lanczos or Arnoldi run; as many as a latent has values give the whole "
        "spectrum",
        alias="--num_steps_lanczos",
        at_least=1,
        preset=False,
        metavar="M",
    )
    kind: tuple[str, ...] = unkeyed(
        KINDS,
        "Hessian of the text score, of the unconditional one, or of their difference",
        choices=KINDS,
    )
    operator: tuple[str, ...] = unkeyed(
        ("lanczos",), "lanczos on (J + J^T) / 2, or arnoldi on J", choices=OPERATORS
    )
    batch_size: int = unkeyed(
        4, "vectors that go through the UNet together", alias="-b", at_least=1, metavar="N"
    )
    probes: int = flag(
        4,
        "random vectors for the trace, the asymmetry and the estimated count",
        at_least=1,
        preset=False,
        metavar="N",
    )

    def resolved(self) -> SpectrumSettings:
        total = self.num_inference_steps
        for step in self.at:
            if not 0 <= step < total:
                raise ValueError(
                    f"--at {step} is no step of the sampler: there are 0 to {total - 1}"
                )
        return replace(
            self,
            at=tuple(sorted(set(self.at))),
            kind=tuple(kind for kind in KINDS if kind in self.kind),
            operator=tuple(name for name in OPERATORS if name in self.operator),
        )


# Prompt, sample, step, kind, operator.
Key = tuple[int, int, int, int, int]


def spectrum_of_row(row: Row) -> Key:
    """The spectrum that a row of a table is about; also the order of the rows."""
    return (
        whole(row, "prompt_index"),
        whole(row, "sample_index"),
        whole(row, "step"),
        place_in(KINDS, row, "kind"),
        place_in(OPERATORS, row, "operator"),
    )


def place_in(names: Sequence[str], row: Row, column: str) -> int:
    """Which of some names a cell is. Raises Fault."""
    text = cell(row, column)
    if text not in names:
        raise Fault(f"{column} is {shown(text)}, and none of {', '.join(names)}")
    return names.index(text)


class Spectra(Study):
    """`spectrum.csv`, `summary.csv`, a histogram a prompt and step, `counts.png`."""

    kind = SpectrumSettings
    files = ("histogram_*.png", "counts.png")
    tables = {"spectrum": spectrum_of_row, "summary": spectrum_of_row}
    numbers = {
        "spectrum": ("index", "eigenvalue"),
        "summary": ("iterations", "nonnegative", "nonnegative_estimate"),
    }

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *means(self.rows("summary"), self.types)])

    @property
    def types(self) -> dict[int, str]:
        """Type of each prompt by its row."""
        return {prompt.row: prompt.type for prompt in self.prompts}

    def keys(self, prompt: Prompt) -> Iterator[Key]:
        settings = self.settings
        samples = range(settings.n_samples_per_prompt)
        kinds = map(KINDS.index, settings.kind)
        operators = map(OPERATORS.index, settings.operator)
        return product([prompt.row], samples, settings.at, kinds, operators)

    def whole_rows(self) -> set[Key]:
        """The spectra with a row for every eigenvalue."""
        values = self.merged("spectrum")[0]
        summaries = self.merged("summary")[0]
        return {
            key
            for key, (*_, summary) in summaries.items()
            if summary.get("iterations") in (None, str(len(values.get(key, ()))))
        }

    def pictures(self, prompt: Prompt) -> list[str]:
        return [histogram_name(prompt, step) for step in self.settings.at]

    def make_all(self) -> None:
        super().make_all()
        self.save_figure("counts.png", partial(counts, self.rows("summary"), self.types))

    def make(self, prompt: Prompt) -> None:
        if not self.has_rows(prompt):
            self.add(f"{prompt.row:06d}", **self.look(prompt))
        rows: dict[int, list[Row]] = {}
        for row in self.rows("spectrum"):
            if int(row["prompt_index"]) == prompt.row:
                rows.setdefault(int(row["step"]), []).append(row)
        for step, of_step in rows.items():
            draw = partial(histogram, of_step, prompt.caption)
            self.save_figure(histogram_name(prompt, step), draw)

    def look(self, prompt: Prompt) -> dict[str, list[dict]]:
        """Rows of one prompt for both tables."""
        rows: dict[str, list[dict]] = {"spectrum": [], "summary": []}
        for about, found, unet_rows, seconds in self.spectra(prompt):
            for k in range(self.settings.n_samples_per_prompt):
                key = {"prompt_index": prompt.row, "sample_index": k, **about}
                for i, value in enumerate(found.eigenvalues[k]):
                    rows["spectrum"].append(key | {"index": i, "eigenvalue": f"{value:.7g}"})
                cost = {"rows": int(unet_rows[k]), "seconds": f"{seconds:.4g}"}
                rows["summary"].append(key | figures(found, k) | cost)
        return rows

    def spectra(self, prompt: Prompt) -> Iterator[tuple[dict, Spectrum, torch.Tensor, float]]:
        """The spectra of the prompt's images by each step, kind and operator: columns that say
        which, the spectra, NFE of each image (n,), seconds of an image.

        The operators share the probes, but each counts them.
        """
        settings = self.settings
        batch, predictor, noise = self.images_of(prompt)
        for (step, t, x), kind in product(self.visited(predictor, noise, batch), settings.kind):
            jacobian = ScoreJacobian(predictor, x, t, kind, at_once=settings.batch_size)
            with Meter(predictor) as shared:
                dimension = x[0].numel()
                probes = probe(jacobian, settings.probes, batch.seeds, dimension, x.device)
            for operator in settings.operator:
                with Meter(predictor) as own:
                    found = spectrum_of(jacobian, probes, operator, settings.iterations)
                about = {"step": step, "timestep": f"{float(t):.7g}", "kind": kind}
                about["operator"] = operator
                seconds = (shared.seconds + own.seconds) / len(x)
                yield about, found, shared.unet_rows + own.unet_rows, seconds

    @no_grad
    def visited(
        self, predictor: NoisePredictor, noise: torch.Tensor, batch: Batch
    ) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
        """(step, t, x) at the wanted steps of the guided trajectory; x: what the UNet reads, (n, 4,
        h, w) float32. Two NFE a step but the last.
        """
        at = self.settings.at
        looks = []

        def on_step(step, prediction) -> None:
            if step.index in at:
                looks.append((step.index, step.t, prediction.x.float()))

        steps(
            predictor,
            noise * predictor.model.initial_scale,
            batch,
            GuidanceSchedule(),
            self.settings.guidance_scale,
            on_step=on_step,
            watched=max(at) + 1,
        )
        return looks


def histogram_name(prompt: Prompt, step: int) -> str:
    """The file of a prompt's histogram at a step."""
    return f"histogram_{prompt.row:04d}_step{step:03d}.png"


class Meter:
    """Measures what the work inside costs: `unet_rows` (n,) and `seconds`."""

    def __init__(self, predictor: NoisePredictor):
        self.predictor = predictor

    def __enter__(self) -> Meter:
        self.start = time.perf_counter()
        self.before = self.predictor.unet_evals.clone()
        return self

    def __exit__(self, *error: object) -> None:
        self.unet_rows = self.predictor.unet_evals - self.before
        self.seconds = time.perf_counter() - self.start


def spectrum(*, load: Callable | None = None, **typed: Any) -> Spectra:
    """The spectra of a prompt file's images. typed: flags of `detect_memorization.py spectrum`.

    load: in the place of `load_pipeline`. Raises ValueError for what the user can mend.
    """
    return Spectra(**typed).run(load)


def figures(found: Spectrum, k: int) -> dict:
    """An image's columns of summary.csv. exact: are these all eigenvalues? A number that there is
    not is empty.
    """
    values = {
        "nonnegative": found.nonnegative[k],
        "nonnegative_estimate": found.estimate[k],
        "nonnegative_error": found.estimate_error[k],
        "most_negative": found.eigenvalues[k, 0],
        "most_positive": found.eigenvalues[k, -1],
        "trace": found.trace[k],
        "trace_error": found.trace_error[k],
        "asymmetry": found.asymmetry[k],
    }
    columns = {"iterations": found.eigenvalues.shape[1], "exact": int(found.exact)}
    for name, value in values.items():
        columns[name] = "" if value != value else f"{value:.7g}"
    return columns


def means(rows: list[Row], types: dict[int, str]) -> list[str]:
    """A line for each step, kind, operator and type of prompt: mean number of non-negative
    eigenvalues, and how many images have none that is finite. rows: of summary.csv.
    """
    groups: dict[str, list[float]] = {}
    for row in rows:
        label = f"step {row['step']}, {row['kind']}, {row['operator']}"
        if type_of(row, types):
            label += f", {type_of(row, types)}"
        groups.setdefault(label, []).append(best_count(row))
    return [f"{label}: {mean_text(values)}" for label, values in groups.items()]


def mean_text(values: list[float]) -> str:
    """The mean of some images' numbers of non-negative eigenvalues; nan is left out."""
    finite = [value for value in values if math.isfinite(value)]
    left_out = len(values) - len(finite)
    without = ""
    if left_out:
        images = counted(len(values), "image")
        without = f" ({left_out} of {images} left out: the eigenvalues are not finite)"
    if not finite:
        return f"no number of non-negative eigenvalues{without}"
    mean = sum(finite) / len(finite)
    return f"{mean:.4g} non-negative eigenvalues in the mean of {len(finite)}{without}"
