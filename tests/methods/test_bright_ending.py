"""Bright Ending masks: where they come from, their size, their binary forms, the masked norm.
float32.
"""

import pytest
import torch

from memorization_suite.detection.bright_ending import (
    EndTokenAttention,
    binarize,
    grid,
    look_ahead,
    masked_norm,
)
from memorization_suite.mitigation import build_mitigation
from memorization_suite.sampling import Batch
from memorization_suite.sampling.loop import plain_run
from tests.methods.helpers import sample
from tests.models import predictor_for, predictor_of
from tests.reference import chen2025

LAYERS = [
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
]  # the random model's only ones of the finest resolution


def first_run(pipe, prompts, noise, steps, guidance_scale=7.0):
    """(masks, prediction of step 0, predictor) of a plain run."""
    pipe.scheduler.set_timesteps(steps)
    predictor = predictor_for(pipe, prompts)
    batch = Batch.of_captions(prompts)
    batch.plain_run = lambda watch: plain_run(predictor, noise, guidance_scale, watch)
    with torch.no_grad():
        return *look_ahead(predictor, batch), predictor


@pytest.mark.parametrize("shape", [(8, 8), (8, 16), (16, 8)])
def test_masks_equal_the_transcription(pipe, prompts, shape):
    """Three images with ends at different tokens, run together, also of other aspect ratios; 1e-4
    of the mask's size.
    """
    noise = torch.randn((3, 4, *shape), generator=torch.Generator().manual_seed(3))
    masks, first, predictor = first_run(pipe, prompts, noise, 3)
    ends = [pipe.token_span(prompt).stop for prompt in prompts]
    assert len(set(ends)) > 1
    for i in range(3):
        expected = chen2025.first_run_mask(
            pipe.unet,
            noise[i : i + 1],
            pipe.encode([""]).tokens,
            pipe.encode(prompts[i : i + 1]).tokens,
            ends[i],
            LAYERS,
            shape,
            num_steps=3,
            guidance_scale=7.0,
        )
        torch.testing.assert_close(masks[i : i + 1], expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(first.x, noise)
    assert predictor.unet_evals.tolist() == [6, 6, 6]


@pytest.mark.parametrize(
    ("steps", "guidance_scale", "rows"), [(1, 7.0, 2), (3, 0.0, 4), (3, 1.0, 3)]
)
def test_short_and_unguided_runs_have_masks_too(pipe, prompts, noise, steps, guidance_scale, rows):
    """One step; scale 0 computes the text half in the last step for the mask alone."""
    masks, _, predictor = first_run(pipe, prompts, noise, steps, guidance_scale)
    assert masks.shape == (3, 1, 8, 8) and (masks > 0).all() and (masks < 1).all()
    assert predictor.unet_evals.tolist() == [rows] * 3


def test_the_first_run_changes_nothing(pipe, prompts, noise):
    """Latents of the run are those of a run without a look (1e-4: attention is open in the last
    step); processors come back, also after an error.
    """
    pipe.scheduler.set_timesteps(3)
    predictor = predictor_for(pipe, prompts)
    before, ending = dict(pipe.unet.attn_processors), EndTokenAttention(predictor, [5, 5, 5])
    with torch.no_grad(), ending.last_step(3) as on_step:
        looked = plain_run(predictor, noise, 7.0, on_step)
    expected = sample(pipe, prompts, noise, build_mitigation("no_mitigation"), 3)
    torch.testing.assert_close(looked, expected.final, rtol=1e-4, atol=1e-3)
    assert pipe.unet.attn_processors == before

    def stop(step, prediction):
        on_step(step, prediction)
        if step.index == 1:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), torch.no_grad(), ending.last_step(3) as on_step:
        plain_run(predictor, noise, 7.0, stop)
    assert pipe.unet.attn_processors == before


def see_all(queries, probs, ends, height=4, width=4):
    """Mask of two images after calls with these numbers of queries; rows: uncond, uncond, text,
    text.
    """

    class Unet:
        attn_processors: dict = {}

    predictor = predictor_of(Unet(), None, torch.zeros(2, 7, 8), torch.zeros(2, 7, 8))
    predictor.call.halves, predictor.call.images = ("uncond", "text"), torch.arange(2)
    ending = EndTokenAttention(predictor, ends)
    for name, number, one in zip("abcdef", queries, probs):
        ending.see(name, one.expand(4, 2, number, 7))
    return ending.mask(height, width)


def test_layers_of_the_finest_resolution_are_averaged():
    """Layers with 16 queries count, those with 4 do not, whatever the order; each image's own end
    token, text rows only, mean over heads.
    """
    tokens = torch.arange(7.0).reshape(1, 1, 1, 7)
    rows, heads = (
        torch.tensor([100.0, 100.0, 1.0, 2.0]).reshape(4, 1, 1, 1),
        torch.tensor([0.5, 1.5]).reshape(1, 2, 1, 1),
    )
    one = rows * heads * tokens
    mask = see_all([4, 16, 16, 4], [one * 1000, one, one * 3, one * 1000], [2, 6])
    torch.testing.assert_close(
        mask, torch.tensor([1 * 2 * 2.0, 2 * 6 * 2.0]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4)
    )


def test_pixels_are_where_they_are_and_smaller_layers_are_enlarged():
    """Row-major queries; from 2 x 4 queries to 4 x 8 latents, bilinearly."""
    probs = torch.arange(8.0).reshape(1, 1, 8, 1).expand(4, 2, 8, 7)
    mask = see_all([8], [probs], [1, 1], 4, 8)
    small = torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7]])
    expected = torch.nn.functional.interpolate(small[None, None], (4, 8), mode="bilinear")
    torch.testing.assert_close(mask, expected.expand(2, 1, 4, 8))
    with pytest.raises(ValueError, match="no cross-attention"):
        see_all([], [], [1, 1])


@pytest.mark.parametrize(
    ("queries", "size", "expected"),
    [
        (4096, (64, 64), (64, 64)),
        (9216, (96, 96), (96, 96)),
        (1024, (64, 64), (32, 32)),
        (64 * 96, (64, 96), (64, 96)),
        (32 * 48, (64, 96), (32, 48)),
        (5 * 7, (9, 13), (5, 7)),
        (3 * 4, (9, 13), (3, 4)),
    ],
)
def test_grids(queries, size, expected):
    assert grid(queries, *size) == expected


def test_queries_of_another_aspect_ratio_are_refused():
    with pytest.raises(ValueError, match="4096 attention queries do not fit latents of 96 x 64"):
        grid(4096, 96, 64)


# masks as weights
def test_masked_norm_by_hand():
    """sqrt(sum m^2 e^2) / mean(m) number by number; from the channels' squared sum as well;
    constant masks of any size give the norm.
    """
    e, mask = (
        torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0)),
        torch.rand(2, 1, 3, 5, generator=torch.Generator().manual_seed(1)),
    )
    for i in range(2):
        total = sum(
            float(mask[i, 0, y, x] * e[i, c, y, x]) ** 2
            for c in range(4)
            for y in range(3)
            for x in range(5)
        )
        expected = total**0.5 / (sum(mask[i].flatten().tolist()) / 15)
        assert float(masked_norm(e, mask)[i]) == pytest.approx(expected, rel=1e-5)
        energy = (e**2).sum(1, keepdim=True)
        assert float(masked_norm(energy.sqrt(), mask)[i]) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(
        masked_norm(e, torch.full_like(mask, 1e-3)), e.flatten(1).norm(dim=1)
    )


def test_masked_norm_of_nothing():
    """Zero noise has norm 0 and a finite gradient, an empty mask norm 0."""
    e = torch.zeros(2, 4, 3, 3, requires_grad=True)
    masked_norm(e, torch.ones(2, 1, 3, 3)).sum().backward()
    assert (e.grad == 0).all()
    assert masked_norm(torch.ones(1, 4, 3, 3), torch.zeros(1, 1, 3, 3)).tolist() == [0.0]


def test_otsu_separates_two_levels_of_each_image():
    """Bright and dark pixels with some spread; the second image is the first a thousand times
    darker, in a bfloat16 tensor.
    """
    generator = torch.Generator().manual_seed(0)
    bright = torch.zeros(1, 1, 8, 8)
    bright[..., 2:5, 3:7] = 1
    mask = bright * 0.5 + 0.1 + 0.05 * torch.rand(1, 1, 8, 8, generator=generator)
    both = torch.cat([mask, mask / 1000])
    assert torch.equal(binarize(both, "otsu"), torch.cat([bright, bright]))
    assert torch.equal(binarize(both.to(torch.bfloat16), "otsu"), torch.cat([bright, bright]))


def test_quantiles_none_and_constant_masks():
    mask = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert binarize(mask, "quantile", 0.75).flatten().tolist() == [0.0] * 12 + [1.0] * 4
    assert torch.equal(binarize(mask, "none"), mask)
    for how in ("otsu", "quantile"):
        assert (binarize(torch.full((2, 1, 4, 4), 0.3), how) == 1).all()
    with pytest.raises(ValueError, match="'half'; there are none, otsu, quantile"):
        binarize(mask, "half")
