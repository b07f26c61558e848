"""Stable Diffusion's answers without a whole pipeline, for tests of its parts."""

import copy

from memorization_suite.pipelines.stable_diffusion.denoiser import StableDiffusionDenoiser
from memorization_suite.sampling import Conditioning, NoisePredictor


def model_of(**parts) -> StableDiffusionDenoiser:
    """A model of these parts, on the CPU."""
    model = StableDiffusionDenoiser()
    model.__dict__ |= {"_execution_device": "cpu"} | parts
    return model


def predictor_of(unet, scheduler, text, uncond, **options) -> NoisePredictor:
    """Predicted noise under these token embeddings, (n, tokens, dim) each."""
    model = model_of(unet=unet, scheduler=scheduler)
    return NoisePredictor(model, Conditioning(text), Conditioning(uncond), **options)


def predictor_for(pipe, prompts: list[str], *, unet=None, **options) -> NoisePredictor:
    """Predicted noise of these prompts; the pipeline's timesteps are as they are."""
    model = pipe
    if unet is not None:
        model = copy.copy(pipe)
        model.__dict__["unet"] = unet
    text = pipe.encode(prompts)
    return NoisePredictor(model, text, pipe.encode([""] * len(prompts)), **options)
