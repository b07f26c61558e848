"""Whether a model can make the steps and the size that are asked for: tried before a run begins."""

from __future__ import annotations

from memorization_suite.runs.lazy import no_grad, torch
from memorization_suite.sampling.denoiser import Denoiser, Unusable

# The share of the training timesteps that a trajectory must reach: above it there is only noise.
NOISIEST = 0.9
# Largest side of the latents, in latent pixels, with which the network is tried: three halvings.
TRIED = 8


def check_size(image_length: int, downsampling: int) -> None:
    """Raises ValueError for a size that is no whole number of latent pixels."""
    if image_length % downsampling:
        raise ValueError(
            f"--image_length {image_length} must be a multiple of {downsampling} with this model"
        )


def check_schedule(model: Denoiser, num_inference_steps: int, train_steps: int | None) -> None:
    """Raises Unusable for steps that the model's sampler cannot make. The model stays as it is.

    train_steps: timesteps that it was trained with; None: unknown.
    """
    fault = fault_of(model, num_inference_steps, train_steps)
    if not fault:
        return
    possible = [
        count
        for count in nearest(num_inference_steps, train_steps or num_inference_steps)
        if not fault_of(model, count, train_steps)
    ]
    if not possible:
        raise Unusable(
            f"the sampler {model.sampler} of this model cannot be used here: {fault}. Type another "
            "--scheduler, for example ddim"
        )
    raise Unusable(
        f"--num_inference_steps {num_inference_steps} is not possible with {model.sampler}: "
        f"{fault}. Possible are, for example, {', '.join(map(str, possible))}"
    )


def nearest(num_inference_steps: int, most: int) -> list[int]:
    """Three other counts, near ones first, that divide the training timesteps evenly."""
    counts = {most // parts for parts in range(1, most + 1)} - {num_inference_steps}
    return sorted(counts, key=lambda count: abs(count - num_inference_steps))[:3]


def fault_of(model: Denoiser, num_inference_steps: int, train_steps: int | None) -> str:
    """Why so many steps cannot be made; empty if they can.

    The sampler walks once over latents of one pixel.
    """
    try:
        timesteps = walk(model.fork(), num_inference_steps)
    except Exception as error:  # whatever a sampler of diffusers raises
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    if train_steps is None:
        return ""
    reached = timesteps[0] + train_steps / num_inference_steps
    if reached < NOISIEST * train_steps:
        return f"they begin at timestep {timesteps[0]:g} of {train_steps}, past the noisiest ones"
    return ""


@no_grad
def walk(model: Denoiser, num_inference_steps: int) -> list[float]:
    """All steps as the loop makes them, over zeros. Returns the timesteps."""
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
    return [float(t) for t in model.timesteps]


@no_grad
def check_image(model: Denoiser, image_length: int) -> None:
    """Raises ValueError for a size, or a model, that makes no images: one is tried, of this size or
    a smaller one.
    """
    check_size(image_length, model.downsampling)
    channels, side, _ = model.latent_shape(image_length, image_length)
    side = min(side, TRIED)
    latents = torch.zeros((1, channels, side, side), device=model.device, dtype=model.dtype)
    fork = model.fork()
    fork.set_timesteps(1)
    try:
        fork.decode(fork.predict(latents, fork.timesteps[0], fork.encode([""])))
    except Exception as error:  # whatever a layer raises
        if "out of memory" in str(error):
            raise
        raise Unusable(
            f"this model makes no images of {image_length} pixels here: {error} (it was trained "
            f"for {model.native_size})"
        ) from error
