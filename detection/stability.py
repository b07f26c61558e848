"""How far a trajectory's updates are from those of ordinary prompts.

All norms are of latents as the UNet reads them (z of unit variance), so that DDIM's and Euler's
agree. *Source:* Huang et al., "Broken Memories", KDD 2026.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from memorization_suite.detection.base import Detector, Look, register
from memorization_suite.runs.identity import same
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.settings import flag
from memorization_suite.runs.text import said_by
from memorization_suite.sampling import Denoiser, Prediction, Step
from memorization_suite.sampling.noise_predictor import row_norm

SCHEMA = 1
# Of step i: ||z_{i+1} - z_i||, ||z_{i+1}||, ||z0_hat at step i||.
NORMS = ("update", "latent", "clean")
NO_FILE = (
    "needs --statistics FILE with the norms of ordinary prompts, made by "
    "python detect_memorization.py calibrate stability --guidance_scale 7.5 ... "
    "with the settings of this run"
)


def clean_estimate(pred: Prediction, noise: torch.Tensor) -> torch.Tensor:
    """z0_hat = (z - sigma e) / alpha, float32. noise: e as it is stepped with, (n, 4, h, w)."""
    alpha, sigma = pred.predictor.model.alpha_sigma(pred.t)
    return (pred.x.float() - sigma * noise.float()) / alpha


def updates(z: list[torch.Tensor]) -> torch.Tensor:
    """||z_{i+1} - z_i|| of each step, (n, N). z: where the steps led, N + 1 of (n, 4, h, w).

    No noise is left in the last latents, so that z is the latents.
    """
    return torch.stack([row_norm(after - before) for before, after in pairwise(z)], 1)


class NormRecorder:
    """Collects the norms of a run whose guidance is a scale: on_step at every step, then finish."""

    def __init__(self) -> None:
        self.z: list[torch.Tensor] = []
        self.clean: list[torch.Tensor] = []

    def on_step(self, step: Step, pred: Prediction) -> None:
        """Once per step, after the schedule has set step.applied."""
        self.z.append(pred.x.float())
        self.clean.append(row_norm(clean_estimate(pred, pred.guided(step.applied))))

    def finish(self, final: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each norm at each step, (n, N) float32 on the CPU. final: the last latents."""
        z = [*self.z, final.float()]
        return {
            "update": updates(z).cpu(),
            "latent": torch.stack([row_norm(after) for after in z[1:]], 1).cpu(),
            "clean": torch.stack(self.clean, 1).cpu(),
        }


def sampler_facts(model: Denoiser, latent_shape: Sequence[int]) -> dict[str, Any]:
    """What a run and its statistics can compare of the sampler, whose timesteps are set."""
    return {
        "scheduler_class": model.sampler,
        "timesteps": [round(float(t), 3) for t in model.timesteps],
        "latent_shape": list(latent_shape),
    }


@dataclass(frozen=True)
class Statistics:
    """Norms of the trajectories of ordinary prompts, each at each step (N,)."""

    mean: dict[str, torch.Tensor]
    sd: dict[str, torch.Tensor]
    # What a run must share: settings as the command line calls them, and the sampler's own facts.
    made_with: dict[str, Any]
    # For people.
    made_from: dict[str, Any] = field(default_factory=dict)

    @property
    def num_steps(self) -> int:
        """N."""
        return len(self.mean["update"])

    def deviation(self, name: str, index: int, norm: torch.Tensor) -> torch.Tensor:
        """(norm - mean) / sd at this step, shape of norm."""
        mean = float(self.mean[name][index])
        sd = float(self.sd[name][index])
        return (norm - mean) / sd

    def clamped(self, name: str, index: int, norm: torch.Tensor, gamma: float) -> torch.Tensor:
        """The norms put into [mean - gamma sd, mean + gamma sd] of this step."""
        mean = float(self.mean[name][index])
        sd = float(self.sd[name][index])
        low = max(mean - gamma * sd, 0.0)
        return norm.clamp(low, mean + gamma * sd)

    def check(self, **here: Any) -> None:
        """Raises ValueError when a setting that is known here and there differs.

        What the file does not know is not compared.
        """
        made_with = {"num_inference_steps": self.num_steps} | self.made_with
        for name, value in here.items():
            there = made_with.get(name, value)
            # The model's own scheduler may be the named one.
            unknown = name == "scheduler" and "keep" in (there, value)
            if not same(there, value) and not unknown:
                raise ValueError(
                    f"the statistics are of another kind of run: {name} is {there} there, {value} "
                    "here (python detect_memorization.py calibrate stability makes them with this "
                    "run's settings)"
                )

    def check_step(self, step: Step, pred: Prediction) -> None:
        """Raises ValueError when the run that makes this step is of another kind."""
        self.check(
            num_inference_steps=step.num_steps,
            guidance_scale=step.guidance_scale,
            **sampler_facts(pred.predictor.model, pred.x.shape[1:]),
        )

    def as_text(self) -> str:
        """JSON, a line for each entry; `read_statistics` reads it."""
        stored = {
            "kind": "stability",
            "schema": SCHEMA,
            "made_with": self.made_with,
            "made_from": self.made_from,
            "mean": {name: self.mean[name].tolist() for name in NORMS},
            "sd": {name: self.sd[name].tolist() for name in NORMS},
        }
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in stored.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"


def measure(
    norms: dict[str, torch.Tensor], made_with: dict[str, Any], made_from: dict[str, Any]
) -> Statistics:
    """Statistics of norms (images, N).

    sd is with images - 1, and never below a millionth of the mean. Raises ValueError for fewer than
    two images, and for an image whose norms are not finite.
    """
    images = len(norms["update"])
    if images < 2:
        raise ValueError(f"statistics need finite norms of at least two images, not of {images}")
    whole = torch.stack([values.isfinite().all(1) for values in norms.values()]).all(0)
    broken = images - int(whole.sum())
    if broken:
        raise ValueError(
            f"the norms of {broken} of {images} images are not finite, so that there are no "
            "statistics: use a model or a --dtype whose numbers stay finite"
        )
    mean = {}
    sd = {}
    for name in NORMS:
        values = norms[name].double()
        mean[name] = values.mean(0)
        sd[name] = values.std(0).maximum(1e-6 * mean[name])
    return Statistics(mean, sd, made_with, made_from)


def read_statistics(path: Path) -> Statistics:
    """Statistics as saved. Raises ValueError for a file that has none."""
    try:
        stored = json_of(path.read_text(encoding="utf-8"))
        if (stored["kind"], stored["schema"]) != ("stability", SCHEMA):
            raise ValueError(f"it is {stored['kind']} of schema {stored['schema']}")
        mean = as_tensors(stored["mean"])
        sd = as_tensors(stored["sd"])
        check_numbers(mean, sd)
        return Statistics(mean, sd, dict(stored["made_with"]), dict(stored["made_from"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} has no statistics of a trajectory's norms ({said_by(error)}): "
            "python detect_memorization.py calibrate stability makes such a file"
        ) from error


def as_tensors(stored: dict[str, list[float]]) -> dict[str, torch.Tensor]:
    """Each norm's values (N,), float64. Raises KeyError, TypeError or ValueError."""
    return {name: torch.tensor(stored[name], dtype=torch.float64) for name in NORMS}


def check_numbers(mean: dict[str, torch.Tensor], sd: dict[str, torch.Tensor]) -> None:
    """Raises ValueError for numbers that are no mean and standard deviation of N steps."""
    steps = mean["update"].shape
    for values in (*mean.values(), *sd.values()):
        if values.ndim != 1 or values.shape != steps or not torch.isfinite(values).all():
            raise ValueError("its numbers make no sense")
    if any((values <= 0).any() for values in sd.values()):
        raise ValueError("its numbers make no sense")


def instability(statistics: Statistics, update: torch.Tensor) -> torch.Tensor:
    """S = max over steps of | ||z_{i+1} - z_i|| - mean | / sd, (n,); larger is more memorized.

    update: (n, steps), no more than the file has.
    """
    deviations = []
    for i, norm in enumerate(update.unbind(1)):
        deviations.append(statistics.deviation("update", i, norm).abs())
    return torch.stack(deviations, 1).amax(1)


@register(
    "stability",
    paper="Huang et al., KDD 2026",
    cost="2N",
    compared="no code is published; equal to a transcription of the formula",
)
class Stability(Detector):
    """S = max over steps of | ||z_{i+1} - z_i|| - mean | / sd, with mean and sd of this step over
    ordinary prompts.
    """

    needs_final = True
    statistics: str = flag(
        "",
        "file with the norms of ordinary prompts, made by detect_memorization.py calibrate "
        "stability",
        short="stat",
        file=True,
    )

    def on_step(self, look: Look, step: Step, prediction: Prediction) -> None:
        if step.index == 0:
            statistics = read_statistics(Path(self.statistics))
            statistics.check_step(step, prediction)
            look.keep(statistics=statistics)
        look.keep(z=prediction.x.float())

    def finish(self, look: Look) -> torch.Tensor:
        (statistics,) = look.series["statistics"]
        return instability(statistics, updates([*look.series["z"], look.final.float()]))

    def missing(self) -> str:
        return "" if self.statistics else NO_FILE

    def check(self, total: int) -> None:
        if self.statistics:
            read_statistics(Path(self.statistics)).check(num_inference_steps=total)
