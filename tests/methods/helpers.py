"""What the tests of single methods share."""

import torch

from memorization_suite.sampling import Batch
from memorization_suite.sampling.sample import sample as sample_batch


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """||ours - theirs|| / ||theirs||, the largest over images."""
    return float(((ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)).max())


def sample(pipe, prompts, noise, method, steps, *, on_step=None, **known):
    """Guided with scale 7. known: what else belongs to the images, fields of `Batch`."""
    return sample_batch(
        pipe,
        Batch.of_captions(prompts, **known),
        noise,
        method,
        num_inference_steps=steps,
        guidance_scale=7.0,
        on_step=on_step,
    )
