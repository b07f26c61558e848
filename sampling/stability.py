"""Norms along a trajectory, and how far they are from those of ordinary prompts: Huang et al., KDD
2026.

All norms are of latents as the UNet reads them (z of unit variance), so that DDIM's and Euler's
agree.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memorization_suite.lazy import torch
from memorization_suite.sampling.guidance import Step
from memorization_suite.sampling.noise_predictor import Prediction, alpha_sigma, row_norm

SCHEMA = 1
NORMS = (
    "update",
    "latent",
    "clean",
)  # of step i: ||z_{i+1} - z_i||, ||z_{i+1}||, ||z0_hat at step i||


def clean_estimate(pred: Prediction, noise: torch.Tensor) -> torch.Tensor:
    """z0_hat = (z - sigma e) / alpha, float32. noise: e as it is stepped with, (n, 4, h, w)."""
    alpha, sigma = alpha_sigma(pred.predictor.scheduler, pred.t)
    return (pred.x.float() - sigma * noise.float()) / alpha


class NormRecorder:
    """Collects the norms of a run whose guidance is a scale: on_step at every step, then finish."""

    def __init__(self) -> None:
        self.norms: dict[str, list[torch.Tensor]] = {name: [] for name in NORMS}
        self.last: torch.Tensor | None = None

    def on_step(self, step: Step, pred: Prediction) -> None:
        """Once per step, after the schedule has set step.applied."""
        self.move_to(pred.x)
        self.norms["clean"].append(row_norm(clean_estimate(pred, pred.guided(step.applied))))

    def move_to(self, z: torch.Tensor) -> None:
        """z: where the last step led."""
        if self.last is not None:
            self.norms["update"].append(row_norm(z.float() - self.last))
            self.norms["latent"].append(row_norm(z))
        self.last = z.float()

    def finish(self, final: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each norm at each step, (n, N) float32 on the CPU. final: the last latents; no noise is
        left in them, so that z is the latents.
        """
        self.move_to(final)
        return {name: torch.stack(values, 1).cpu() for name, values in self.norms.items()}


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each norm at each step, (N,), over images of ordinary prompts.

    made_with: settings that a run must share: what the command line calls them, and the sampler's
    own facts. made_from: for people.
    """

    mean: dict[str, torch.Tensor]
    sd: dict[str, torch.Tensor]
    made_with: dict[str, Any]
    made_from: dict[str, Any] = field(default_factory=dict)

    @property
    def num_steps(self) -> int:
        return len(self.mean["update"])

    def deviation(self, name: str, index: int, norm: torch.Tensor) -> torch.Tensor:
        """(norm - mean) / sd at this step, shape of norm."""
        return (norm - float(self.mean[name][index])) / float(self.sd[name][index])

    def clamped(self, name: str, index: int, norm: torch.Tensor, gamma: float) -> torch.Tensor:
        """The norms put into [mean - gamma sd, mean + gamma sd] of this step."""
        mean, reach = float(self.mean[name][index]), gamma * float(self.sd[name][index])
        return norm.clamp(max(mean - reach, 0.0), mean + reach)

    def check(self, **found: Any) -> None:
        """Raises ValueError when a setting that is known here and there differs; what the file does
        not know is not compared.
        """
        made_with = {"num_inference_steps": self.num_steps} | self.made_with
        for name, value in found.items():
            there = made_with.get(name, value)
            if there != value and not (
                name == "scheduler" and "keep" in (there, value)
            ):  # the model's own may well be that one
                raise ValueError(
                    f"the statistics are of another kind of run: {name} is {there} there, {value} "
                    "here "
                    "(python calibrate.py stability makes them with this run's settings)"
                )

    def save(self, path: Path) -> None:
        """JSON, a line for each entry, written under a temporary name first. Raises OSError."""
        norms = {
            kind: {name: values[name].tolist() for name in NORMS}
            for kind, values in (("mean", self.mean), ("sd", self.sd))
        }
        stored = {
            "kind": "stability",
            "schema": SCHEMA,
            "made_with": self.made_with,
            "made_from": self.made_from,
            **norms,
        }
        text = (
            "{\n"
            + ",\n".join(
                f"{json.dumps(name)}: {json.dumps(value)}" for name, value in stored.items()
            )
            + "\n}"
        )
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_text(text + "\n", encoding="utf-8")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def measure(
    norms: dict[str, torch.Tensor], made_with: dict[str, Any], made_from: dict[str, Any]
) -> Statistics:
    """Statistics of (images, N) norms; sd with images - 1, and never below a millionth of the mean.
    Raises ValueError for fewer than two images.
    """
    images = len(norms["update"])
    if images < 2 or not all(torch.isfinite(values).all() for values in norms.values()):
        raise ValueError(f"statistics need finite norms of at least two images, not of {images}")
    mean = {name: norms[name].double().mean(0) for name in NORMS}
    sd = {name: norms[name].double().std(0).maximum(1e-6 * mean[name]) for name in NORMS}
    return Statistics(mean, sd, made_with, made_from)


def read_statistics(path: Path) -> Statistics:
    """Statistics as saved. Raises ValueError for a file that has none."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if (stored["kind"], stored["schema"]) != ("stability", SCHEMA):
            raise ValueError(f"it is {stored['kind']} of schema {stored['schema']}")
        mean, sd = (
            {name: torch.tensor(stored[kind][name], dtype=torch.float64) for name in NORMS}
            for kind in ("mean", "sd")
        )
        if not all(
            values.shape == mean["update"].shape
            and values.ndim == 1
            and torch.isfinite(values).all()
            for values in (*mean.values(), *sd.values())
        ) or any((values <= 0).any() for values in sd.values()):
            raise ValueError("its numbers make no sense")
        return Statistics(mean, sd, dict(stored["made_with"]), dict(stored["made_from"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} has no statistics of a trajectory's norms ({error}): python calibrate.py "
            "stability makes such a file"
        ) from error


def instability(statistics: Statistics, update: torch.Tensor) -> torch.Tensor:
    """S = max over steps of | ||z_{i+1} - z_i|| - mean | / sd, (n,); larger is more memorized.
    update: (n, steps), no more than the file has.
    """
    each = torch.stack(
        [statistics.deviation("update", i, update[:, i]).abs() for i in range(update.shape[1])], 1
    )
    return each.amax(1)
