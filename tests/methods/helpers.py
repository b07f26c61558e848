"""What the tests of single methods share."""

import torch

from memorization_suite.sampling import Batch
from memorization_suite.sampling.sample import sample as sample_batch
from tests.reference import wen2024


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


def sample_plainly(pipe, x, embedding, steps):
    """Final latents of plain guidance from x with this embedding, by the transcription."""
    empty = pipe.encode([""]).tokens
    return wen2024.sample(pipe.unet, x, empty, embedding, num_steps=steps, guidance_scale=7.0)


def check_updates(numbers, updates, *, differ):
    """Every image made as many updates. differ: no two images may have made the same number."""
    assert numbers["iterations"].tolist() == updates
    if differ:
        proves_little = f"a test with equal numbers of updates proves little: {updates}"
        assert len(set(updates)) == len(updates), proves_little


class Poisoned(torch.nn.Module):
    """A UNet whose prediction is NaN from the call with number `after` on, in the rows that
    is_bad(x, embeddings) names, (rows,) bool.
    """

    def __init__(self, unet, is_bad, after):
        super().__init__()
        self.unet = unet
        self.is_bad = is_bad
        self.after = after
        self.calls = 0

    def forward(self, x, t, encoder_hidden_states, return_dict=False):
        noise = self.unet(x, t, encoder_hidden_states=encoder_hidden_states, return_dict=False)[0]
        bad = self.is_bad(x, encoder_hidden_states) & (self.calls >= self.after)
        self.calls += 1
        return (noise * torch.where(bad, torch.nan, 1.0).reshape(-1, 1, 1, 1),)


def equal_rows(a, b):
    """Which rows of a are the one row of b, (rows,) bool."""
    return (a == b).flatten(1).all(1)
