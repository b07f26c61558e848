"""Whether a model can make the steps and the size that are asked for: tried before a run begins."""

from __future__ import annotations

import sys
from itertools import islice

from memorization_suite.runs.lazy import no_grad, torch
from memorization_suite.sampling.denoiser import Denoiser, Unusable

# Shares of the training timesteps: a trajectory must reach the first one, and above the second one
# there is only noise.
NOISY = 0.75
NOISIEST = 0.9
# How many counts of steps a refusal names.
NAMED = 2
# Largest side of the latents, in latent pixels, with which the network is tried: three halvings.
TRIED = 8


def check_size(image_length: int, downsampling: int) -> None:
    """Raises ValueError for a size that is no whole number of latent pixels."""
    if image_length % downsampling:
        raise ValueError(
            f"--image_length {image_length} must be a multiple of {downsampling} with this model"
        )


def check_schedule(model: Denoiser, num_inference_steps: int, train_steps: int | None) -> None:
    """Raises Unusable for steps that the model's sampler cannot make, or that begin far from noise;
    says on stderr where they begin past the noisiest timesteps. The model stays as it is.

    train_steps: timesteps that it was trained with; None: unknown.
    """
    fault = fault_of(model, num_inference_steps, train_steps)
    if fault:
        raise Unusable(refusal(model, num_inference_steps, train_steps, fault))
    if train_steps is None:
        return
    first = first_timestep(model, num_inference_steps)
    if reached(first, num_inference_steps, train_steps) < NOISIEST:
        print(f"{num_inference_steps} steps {beginning(first, train_steps)}", file=sys.stderr)


def refusal(model: Denoiser, num_inference_steps: int, train_steps: int | None, fault: str) -> str:
    """What is wrong, and what to type in its place."""
    counts = nearest(num_inference_steps, train_steps or num_inference_steps)
    working = (count for count in counts if not fault_of(model, count, train_steps))
    possible = list(islice(working, NAMED))
    if not possible:
        return (
            f"the sampler {model.sampler} of this model cannot be used here: {fault}. Type another "
            "--scheduler, for example ddim"
        )
    return (
        f"--num_inference_steps {num_inference_steps} is not possible with {model.sampler}: "
        f"{fault}. Possible are, for example, {', '.join(map(str, possible))}"
    )


def nearest(num_inference_steps: int, most: int) -> list[int]:
    """The other counts that divide the training timesteps evenly, near ones first.

    A single step is none of them: it stands for all timesteps, wherever it begins.
    """
    counts = {most // parts for parts in range(1, most + 1)} - {1, num_inference_steps}
    return sorted(counts, key=lambda count: abs(count - num_inference_steps))


def fault_of(model: Denoiser, num_inference_steps: int, train_steps: int | None) -> str:
    """Why so many steps are refused; empty if they are not.

    Where they begin near noise, the sampler walks once over latents of one pixel.
    """
    try:
        first = first_timestep(model, num_inference_steps)
        if train_steps is not None and reached(first, num_inference_steps, train_steps) < NOISY:
            return f"they {beginning(first, train_steps)}"
        walk(model.fork(), num_inference_steps)
    except Exception as error:  # whatever a sampler of diffusers raises
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def first_timestep(model: Denoiser, num_inference_steps: int) -> float:
    """Where the steps begin."""
    fork = model.fork()
    fork.set_timesteps(num_inference_steps)
    return float(fork.timesteps[0])


def reached(first: float, num_inference_steps: int, train_steps: int) -> float:
    """The share of the training timesteps that the first step stands for."""
    return first / train_steps + 1 / num_inference_steps


def beginning(first: float, train_steps: int) -> str:
    """In words where steps begin."""
    return f"begin at timestep {first:g} of {train_steps}, past the noisiest ones"


@no_grad
def walk(model: Denoiser, num_inference_steps: int) -> None:
    """All steps as the loop makes them, over zeros."""
    model.set_timesteps(num_inference_steps)
    shape = (1, model.latent_channels, 1, 1)
    latents = torch.zeros(shape, device=model.device, dtype=model.dtype) * model.initial_scale
    generator = torch.Generator(model.device)
    devices = [model.device] if torch.device(model.device).type == "cuda" else []
    with torch.random.fork_rng(devices):  # for samplers that ask no generator
        for t in model.timesteps:
            x = model.scale_input(latents, t)
            model.input_scale(t)
            noise = model.to_noise(torch.zeros_like(x), x, t)
            latents = model.step(model.to_output(noise, x, t), t, latents, generator)


@no_grad
def check_image(model: Denoiser, image_length: int, num_inference_steps: int) -> None:
    """Raises ValueError for a size, or a model, that makes no images: one is tried, of this size or
    a smaller one, at the first of the steps, which the sampler can make (see `check_schedule`).
    """
    check_size(image_length, model.downsampling)
    channels, side, _ = model.latent_shape(image_length, image_length)
    side = min(side, TRIED)
    latents = torch.zeros((1, channels, side, side), device=model.device, dtype=model.dtype)
    fork = model.fork()
    fork.set_timesteps(num_inference_steps)
    try:
        fork.decode(fork.predict(latents, fork.timesteps[0], fork.encode([""])))
    except Exception as error:  # whatever a layer raises
        if "out of memory" in str(error):
            raise
        raise Unusable(
            f"this model makes no images of {image_length} pixels here: {error} (it was trained "
            f"for {model.native_size})"
        ) from error
