"""Anisotropy as the official code has it, on one step and several, on epsilon and v models."""

import pytest
import torch

from memorization_suite.detection import build_detector
from memorization_suite.detection.trajectory import detect
from memorization_suite.sampling import Batch
from memorization_suite.sampling.sample import predictor_of
from tests.reference import asthana2026

STEPS, SCALE = 5, 7.5
# Ours -> the official code's.
MODES = {"uncond_guidance": "x,c|x", "uncond_text": "x,x|c", "text_guidance": "x|c,c|x"}


def scores(pipe, prompts, noise, **settings) -> torch.Tensor:
    predictor = predictor_of(pipe, Batch.of_captions(prompts), STEPS)
    detector = build_detector("anisotropy", **settings)
    detector.check(STEPS)
    seen = detect([detector], predictor, noise, Batch.of_captions(prompts), SCALE)
    assert predictor.unet_evals.tolist() == [4 * detector.num_steps] * len(prompts)
    return seen.results[0].scores


@pytest.mark.parametrize("cosine_of", MODES)
@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize(
    ("kind", "official"),
    [("epsilon", ""), ("epsilon", "sd2_branch"), ("v_prediction", "sd2_branch")],
)
def test_parity(make_pipe, prompts, noise, kind, official, num_steps, cosine_of):
    """Within 1e-5 of the score, with weights that let both terms count."""
    pipe = make_pipe("ddim", kind)
    weights = {"norm_weight": 0.3, "cosine_weight": 5.0}
    made = scores(
        pipe,
        prompts,
        noise,
        official=official,
        num_steps=num_steps,
        cosine_of=cosine_of,
        **weights,
    )
    expected = [
        asthana2026.official_score(
            pipe.unet,
            noise[i : i + 1],
            pipe.encode([""]).tokens,
            pipe.encode(prompts[i : i + 1]).tokens,
            num_steps=STEPS,
            watched=num_steps,
            guidance_scale=SCALE,
            mode=MODES[cosine_of],
            second_branch=bool(official),
            v_model=kind == "v_prediction",
            **weights,
        )
        for i in range(3)
    ]
    torch.testing.assert_close(made, torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_the_branch_scales_the_norm(make_pipe, prompts, noise):
    """Over sigma^2 on a v model, times alpha / sigma^2 on an epsilon model, 1e-5."""
    weights = {"norm_weight": 1.0, "cosine_weight": 0.0}
    for kind in ("epsilon", "v_prediction"):
        pipe = make_pipe("ddim", kind)
        plain = scores(pipe, prompts, noise, **weights)
        branch = scores(pipe, prompts, noise, official="sd2_branch", **weights)
        alpha, sigma = pipe.alpha_sigma(801)
        factor = (alpha if kind == "epsilon" else 1.0) / sigma**2
        torch.testing.assert_close(branch, factor * plain, rtol=1e-5, atol=0)


def test_more_steps_than_there_are():
    with pytest.raises(ValueError, match="--num_steps 6 is more than the 5 steps"):
        build_detector("anisotropy", num_steps=6).check(5)
    with pytest.raises(ValueError, match="2 steps are too few"):
        build_detector("anisotropy").check(2)
    assert build_detector("anisotropy").named_values() == {"norm": 1.0, "cos": 2.0}
