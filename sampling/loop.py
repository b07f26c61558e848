"""The sampling loop: one for all methods and detectors."""

from __future__ import annotations

import copy
from collections.abc import Callable

from memorization_suite.runs.lazy import torch
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
    """The loop: from latents in the sampler's space to the last ones.

    batch.first, if there is one, is the prediction of step 0. watched: ends when so many
    predictions were shown to on_step, before the step that the last one would give.
    """
    model = predictor.model
    for i, t in enumerate(model.timesteps):
        x = model.scale_input(latents, t)
        prediction = batch.first if i == 0 and batch.first else predictor.at(x, t)
        step = Step(i, t, len(model.timesteps), guidance_scale)
        if on_step is not None and i + 1 == watched:
            on_step(step, prediction)
            break
        noise_pred = guidance.combine(step, prediction)
        if on_step is not None:
            on_step(step, prediction)
        output = model.to_output(noise_pred, x, t)
        after = model.step(output, t, latents, batch.generator)
        latents = guidance.after_step(step, latents, after)
    return latents


def plain_run(
    predictor: NoisePredictor,
    noise: torch.Tensor,
    guidance_scale: float,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Final latents of plain guidance from this noise; the sampler's own state is left alone."""
    look = copy.copy(predictor)
    look.model = predictor.model.fork()
    look.model.set_timesteps(len(predictor.model.timesteps))
    latents = noise * look.model.initial_scale
    batch = Batch.of_captions([""] * len(noise))
    with torch.no_grad():
        return steps(look, latents, batch, GuidanceSchedule(), guidance_scale, on_step=on_step)
