"""The sampling loop: one for all methods and detectors."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

from memorization_suite.lazy import torch
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.guidance import GuidanceSchedule, Step
from memorization_suite.sampling.noise_predictor import NoisePredictor, Prediction

OnStep = Callable[[Step, Prediction], None]


def steps(
    predictor: NoisePredictor,
    latents: torch.Tensor,
    batch: Batch,
    guidance: GuidanceSchedule,
    guidance_scale: float,
    *,
    on_step: OnStep | None = None,
    watched: int | None = None,
) -> torch.Tensor:
    """The loop: from latents in the scheduler's space to the last ones.

    batch.first, if there is one, is the prediction of step 0. watched: ends when so many
    predictions were shown to on_step, before the step that the last one would give.
    """
    scheduler = predictor.scheduler
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    draws = {"generator": batch.generator} if takes_generator else {}
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.scale_model_input(latents, t)
        prediction = batch.first if i == 0 and batch.first else predictor.at(x, t)
        step = Step(i, t, len(scheduler.timesteps), guidance_scale)
        if on_step is not None and i + 1 == watched:
            on_step(step, prediction)
            break
        noise_pred = guidance.combine(step, prediction)
        if on_step is not None:
            on_step(step, prediction)
        model_output = predictor.to_model_output(noise_pred, x, t)
        after = scheduler.step(model_output, t, latents, return_dict=False, **draws)[0]
        latents = guidance.after_step(step, latents, after)
    return latents


def plain_run(
    predictor: NoisePredictor,
    noise: torch.Tensor,
    guidance_scale: float,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Final latents of plain guidance from this noise; the scheduler's own state is left alone."""
    look = copy.copy(predictor)
    look.scheduler = copy.deepcopy(predictor.scheduler)
    timesteps = predictor.scheduler.timesteps
    look.scheduler.set_timesteps(len(timesteps), device=timesteps.device)
    latents = noise * look.scheduler.init_noise_sigma
    batch = Batch.of_captions([""] * len(noise))
    with torch.no_grad():
        return steps(look, latents, batch, GuidanceSchedule(), guidance_scale, on_step=on_step)


def input_scale(scheduler, t) -> float:
    """latents / x at timestep t: 1 for DDIM, sqrt(sigma^2 + 1) for Euler."""
    return 1.0 / float(scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), t))
