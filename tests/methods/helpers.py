"""What the tests of single methods share."""

import torch


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """||ours - theirs|| / ||theirs||, the largest over images."""
    return float(((ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)).max())


def sample(pipe, prompts, noise, method, steps, **settings):
    """Guided with scale 7."""
    return pipe.sample(
        prompts, noise, method, num_inference_steps=steps, guidance_scale=7.0, **settings
    )
