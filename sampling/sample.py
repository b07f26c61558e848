"""Sampling a batch with a mitigation: hooks first, then the loop."""

from __future__ import annotations

from dataclasses import dataclass, replace

from memorization_suite.runs.lazy import Image, no_grad, torch
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.denoiser import Denoiser
from memorization_suite.sampling.hooks import Hooks
from memorization_suite.sampling.loop import OnStep, plain_run, steps
from memorization_suite.sampling.noise import initial_noise, official_noise
from memorization_suite.sampling.noise_predictor import NoisePredictor, Prediction


@dataclass
class Sample:
    """What sampling made of a batch; latents are (n, 4, h, w)."""

    # Noise as drawn, unit variance.
    initial: torch.Tensor
    # Where the sampler starts, unit variance.
    adjusted: torch.Tensor
    # What `Denoiser.decode` takes.
    final: torch.Tensor
    # Rows of each image through the network (n,).
    unet_evals: torch.Tensor
    # The method's own figures, one an image (n,).
    numbers: dict[str, torch.Tensor]


def sample(
    model: Denoiser,
    batch: Batch,
    noise: torch.Tensor,
    mitigation: Hooks,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    on_step: OnStep | None = None,
) -> Sample:
    """Latents for image i of the batch from noise[i]. Raises ValueError.

    The batch stays as it is, so that it can be sampled again with another method.
    """
    mitigation.check(num_inference_steps)
    batch = replace(batch, model=model, state={}, numbers={})
    batch.encoded = mitigation.edit_prompts(batch)
    batch.note_lost()
    predictor = predictor_of(model, batch, num_inference_steps)
    return denoise(predictor, noise, batch, mitigation, guidance_scale, on_step)


@no_grad
def predictor_of(model: Denoiser, batch: Batch, num_inference_steps: int) -> NoisePredictor:
    """Predicted noise of a batch under its encoded texts; the model's timesteps are set."""
    model.set_timesteps(num_inference_steps)
    text = model.encode(batch.texts())
    empty = model.encode([batch.negative_prompt] * len(batch))
    return NoisePredictor(model, text, empty)


def noise_of(model: Denoiser, batch: Batch, image_length: int) -> torch.Tensor:
    """Unit-variance noise of the images' seeds for square images, (n, 4, h, w)."""
    shape = model.latent_shape(image_length, image_length)
    return initial_noise(batch.seeds, shape).to(model.device, model.dtype)


def same_noise(model: Denoiser, seed: int, images: int, image_length: int) -> torch.Tensor:
    """Unit-variance noise for the images of any prompt, (images, 4, h, w): what a script draws that
    seeds its generator anew for each prompt, in the model's dtype and on its device.
    """
    shape = model.latent_shape(image_length, image_length)
    return next(official_noise(seed, [images], shape, model.dtype, str(model.device)))


@no_grad
def denoise(
    predictor: NoisePredictor,
    noise: torch.Tensor,
    batch: Batch,
    mitigation: Hooks,
    guidance_scale: float,
    on_step: OnStep | None = None,
) -> Sample:
    """Samples latents from noise (n, 4, h, w) of unit variance, in the noise's dtype.

    The mitigation's hooks run first: patch, edit_embeddings, adjust_initial_noise, guidance; then
    the loop. The model's timesteps are set. on_step(step, prediction) is called before each step is
    taken; what it reads of a prediction that was not computed yet costs NFE.
    """
    model = predictor.model
    batch.plain_run = lambda watch=None: plain_run(predictor, noise, guidance_scale, watch)
    t = model.timesteps[0]
    with mitigation.patch(predictor, batch):
        latents = noise * model.initial_scale
        # What the network reads: the methods' coordinates.
        first = model.scale_input(latents, t).float()
        numbers = batch.numbers | mitigation.edit_embeddings(predictor, first, t, batch)
        adjustment = mitigation.adjust_initial_noise(predictor, first, t, batch)
        if adjustment.x is not first:
            # An image that was not moved keeps its bits.
            moved = (adjustment.x - first) * model.input_scale(t)
            latents = (latents.float() + moved).to(noise.dtype)
        adjusted = latents / model.initial_scale
        if not is_at(batch.first, adjustment.x):
            batch.first = None
        guidance = mitigation.guidance(batch)
        final = steps(predictor, latents, batch, guidance, guidance_scale, on_step=on_step)
    numbers = numbers | adjustment.numbers | guidance.numbers() | predictor.smaller_passes()
    return Sample(noise, adjusted, final, predictor.unet_evals, numbers)


def to_pictures(images: torch.Tensor) -> list[Image.Image]:
    """PIL images of (n, 3, H, W) in [0, 1]; what is not a number is black."""
    pixels = (images.float().nan_to_num(0.0) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return [Image.fromarray(each) for each in pixels.cpu().numpy()]


def is_at(prediction: Prediction | None, x: torch.Tensor) -> bool:
    """Whether this is a prediction at x."""
    if prediction is None or prediction.x is x:
        return prediction is not None
    return torch.equal(prediction.x.float(), x.float())
