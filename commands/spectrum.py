"""The study `spectrum`: eigenvalues of the Hessian of the log density along guided trajectories.

*Source:* Jeon et al., ICML 2025.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from memorization_suite.commands.settings import at_work
from memorization_suite.commands.study import (
    Study,
    StudyFolder,
    StudyJob,
    StudyPlan,
    StudySettings,
    begin,
    plan_study,
)
from memorization_suite.detection.evaluation.spectrum_plots import best_count, counts, histogram
from memorization_suite.detection.spectrum import (
    KINDS,
    OPERATORS,
    ScoreJacobian,
    Spectrum,
    probe,
)
from memorization_suite.detection.spectrum import spectrum as spectrum_of
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.lazy import no_grad
from memorization_suite.runs.settings import again, flag, frozen_settings, unkeyed
from memorization_suite.runs.store import Row
from memorization_suite.sampling import Batch, GuidanceSchedule, NoisePredictor
from memorization_suite.sampling.loop import steps

if TYPE_CHECKING:
    import torch

    from memorization_suite.sampling import Denoiser


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
        int(row["prompt_index"]),
        int(row["sample_index"]),
        int(row["step"]),
        KINDS.index(row["kind"]),
        OPERATORS.index(row["operator"]),
    )


class SpectrumFolder(StudyFolder):
    """`spectrum.csv`, `summary.csv`, a histogram a prompt and step, `counts.png`."""

    files = ("histogram_*.png", "counts.png")
    tables = {"spectrum": spectrum_of_row, "summary": spectrum_of_row}


def spectrum(*, load: Callable | None = None, **typed: Any) -> Study:
    """The spectra of a prompt file's images. typed: flags of `detect_memorization.py spectrum`.

    load: in the place of `load_pipeline`. Raises ValueError for what the user can mend.
    """
    plan = plan_study(SpectrumSettings, typed)
    folder = SpectrumFolder(plan.path)
    job = Spectra(plan, folder, begin(plan, folder, load))
    with at_work():
        return Study(plan, folder, job.go())


@dataclass(frozen=True)
class Measured:
    """The spectra of a prompt's images at one step, of one kind and by one operator."""

    step: int
    timestep: float
    kind: str
    operator: str
    found: Spectrum
    # Of each image, (n,).
    unet_rows: torch.Tensor
    # Of an image.
    seconds: float


class Spectra(StudyJob):
    """The spectra of a study's prompts and its two tables."""

    settings: SpectrumSettings

    def __init__(self, plan: StudyPlan, folder: SpectrumFolder, model: Denoiser):
        super().__init__(plan, folder, model)
        self.types = {prompt.row: prompt.type for prompt in plan.prompts}
        self.done = folder.done("summary")

    def is_done(self, prompt: Prompt) -> bool:
        settings = self.settings
        wanted = product(
            [prompt.row],
            range(settings.n_samples_per_prompt),
            settings.at,
            [KINDS.index(kind) for kind in settings.kind],
            [OPERATORS.index(operator) for operator in settings.operator],
        )
        return self.done.issuperset(wanted)

    def go(self) -> str:
        """Makes what is missing, then the picture of all. Returns what there is, in lines."""
        made = self.make_all()
        rows = self.folder.rows("summary")
        self.folder.save_figure("counts.png", counts(rows, self.types))
        wanted = len(self.plan.wanted)
        summary = f"{self.folder.path / 'summary.csv'}: {wanted} prompts, {made} made now"
        return "\n".join([summary, *means(rows, self.types)])

    def make(self, prompt: Prompt) -> None:
        self.folder.add(f"{prompt.row:06d}", **self.look(prompt))
        rows: dict[int, list[Row]] = {}
        for row in self.folder.rows("spectrum"):
            if int(row["prompt_index"]) == prompt.row:
                rows.setdefault(int(row["step"]), []).append(row)
        for step, shown in rows.items():
            name = f"histogram_{prompt.row:04d}_step{step:03d}.png"
            self.folder.save_figure(name, histogram(shown, prompt.caption))

    def look(self, prompt: Prompt) -> dict[str, list[dict]]:
        """Rows of one prompt for both tables."""
        rows: dict[str, list[dict]] = {"spectrum": [], "summary": []}
        for measured in self.measure(prompt):
            for k in range(self.settings.n_samples_per_prompt):
                about = {
                    "prompt_index": prompt.row,
                    "sample_index": k,
                    "step": measured.step,
                    "timestep": f"{measured.timestep:.7g}",
                    "kind": measured.kind,
                    "operator": measured.operator,
                }
                for i, value in enumerate(measured.found.eigenvalues[k]):
                    rows["spectrum"].append(about | {"index": i, "eigenvalue": f"{value:.7g}"})
                rows["summary"].append(about | figures(measured, k))
        return rows

    def measure(self, prompt: Prompt) -> Iterator[Measured]:
        """The prompt's spectra of every step, kind and operator.

        The operators share the probes, but each counts them.
        """
        settings = self.settings
        batch, predictor, noise = self.start(prompt)
        guidance_scale = settings.guidance_scale
        looks = visited(predictor, noise, batch, guidance_scale=guidance_scale, at=settings.at)
        for (step, t, x), kind in product(looks, settings.kind):
            jacobian = ScoreJacobian(predictor, x, t, kind, at_once=settings.batch_size)
            with Meter(predictor) as shared:
                dimension = x[0].numel()
                probes = probe(jacobian, settings.probes, batch.seeds, dimension, x.device)
            for operator in settings.operator:
                with Meter(predictor) as own:
                    found = spectrum_of(jacobian, probes, operator, settings.iterations)
                rows = shared.unet_rows + own.unet_rows
                seconds = (shared.seconds + own.seconds) / len(x)
                yield Measured(step, float(t), kind, operator, found, rows, seconds)


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


@no_grad
def visited(
    predictor: NoisePredictor,
    noise: torch.Tensor,
    batch: Batch,
    *,
    guidance_scale: float,
    at: tuple[int, ...],
) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    """(step, t, x) at the wanted steps of the guided trajectory; x: what the UNet reads, (n, 4, h,
    w) float32. Two UNet rows a step but the last.
    """
    looks = []

    def on_step(step, prediction) -> None:
        if step.index in at:
            looks.append((step.index, step.t, prediction.x.float()))

    latents = noise * predictor.model.initial_scale
    guidance = GuidanceSchedule()
    last = max(at) + 1
    steps(predictor, latents, batch, guidance, guidance_scale, on_step=on_step, watched=last)
    return looks


def figures(measured: Measured, k: int) -> dict:
    """An image's columns of summary.csv. exact: are these all eigenvalues? A number that there is
    not is empty.
    """
    found = measured.found
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
    return {
        "iterations": found.eigenvalues.shape[1],
        "exact": int(found.exact),
        **{name: "" if value != value else f"{value:.7g}" for name, value in values.items()},
        "rows": int(measured.unet_rows[k]),
        "seconds": f"{measured.seconds:.4g}",
    }


def means(rows: list[Row], types: dict[int, str]) -> list[str]:
    """A line for each step, kind, operator and type of prompt: mean number of non-negative
    eigenvalues. rows: of summary.csv.
    """
    groups: dict[str, list[float]] = {}
    for row in rows:
        name = types.get(int(row["prompt_index"]), "")
        label = f"step {row['step']}, {row['kind']}, {row['operator']}"
        if name:
            label += f", {name}"
        groups.setdefault(label, []).append(best_count(row))
    return [
        f"{label}: {sum(values) / len(values):.4g} non-negative eigenvalues in the mean of "
        f"{len(values)}"
        for label, values in groups.items()
    ]
