"""The sampling loop: one for all methods and detectors."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

import torch

from memorization_suite.sampling.guidance import GuidanceSchedule, Step
from memorization_suite.sampling.noise_predictor import NoisePredictor, Prediction

OnStep = Callable[[Step, Prediction], None]


def steps(
    scheduler,
    predictor: NoisePredictor,
    latents: torch.Tensor,
    guidance: GuidanceSchedule,
    guidance_scale: float,
    on_step: OnStep | None = None,
    generator=None,
    known: Prediction | None = None,
    watched: int | None = None,
) -> torch.Tensor:
    """The loop: from latents in the scheduler's space to the last ones. known: the prediction of
    step 0, if there is one.

    watched: ends when so many predictions were shown to on_step, before the step that the last one
    would give.
    """
    draws = (
        {"generator": generator}
        if "generator" in inspect.signature(scheduler.step).parameters
        else {}
    )
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.scale_model_input(latents, t)
        prediction = known if i == 0 and known else predictor.at(x, t)
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


@torch.no_grad()
def plain_run(
    scheduler,
    predictor: NoisePredictor,
    noise: torch.Tensor,
    guidance_scale: float,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Final latents of plain guidance from this noise; the scheduler's own state is left alone."""
    own = copy.deepcopy(scheduler)
    own.set_timesteps(len(scheduler.timesteps), device=scheduler.timesteps.device)
    return steps(
        own, predictor, noise * own.init_noise_sigma, GuidanceSchedule(), guidance_scale, on_step
    )


def input_scale(scheduler, t) -> float:
    """latents / x at timestep t: 1 for DDIM, sqrt(sigma^2 + 1) for Euler."""
    return 1.0 / float(scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), t))
