"""Token-wise significance: against a plain transcription, and tokens that do nothing."""

import pytest
import torch

from memorization_suite.detection.tokens import token_significance
from memorization_suite.sampling import NoisePredictor
from tests.models import model_of, predictor_for
from tests.reference.wen2024_tokens import correct_significance, official_significance

STEPS, WATCHED = 4, 3


def make_predictor(pipe, prompts: list[str], unet=None) -> NoisePredictor:
    pipe.scheduler.set_timesteps(STEPS)
    return predictor_for(pipe, prompts, unet=unet)


def significance(pipe, prompts: list[str], noise, unet=None, **settings) -> torch.Tensor:
    return token_significance(make_predictor(pipe, prompts, unet), noise, 7.5, **settings)


class Masked(torch.nn.Module):
    """A UNet that is blind to some tokens."""

    def __init__(self, unet, tokens: list[int]):
        super().__init__()
        self.unet, self.tokens = unet, tokens

    def forward(self, x, t, encoder_hidden_states, return_dict=False):
        seen = torch.ones(encoder_hidden_states.shape[1])
        seen[self.tokens] = 0
        return self.unet(
            x,
            t,
            encoder_hidden_states=encoder_hidden_states * seen[:, None],
            return_dict=return_dict,
        )


def test_parity_with_the_transcription(pipe, noise, prompts):
    found = significance(pipe, [prompts[0]] * 3, noise, num_steps=WATCHED)
    told = correct_significance(
        pipe.unet,
        pipe.encode(prompts[:1]).tokens,
        pipe.encode([""]).tokens,
        noise,
        num_steps=STEPS,
        watched=WATCHED,
        guidance_scale=7.5,
    )
    assert torch.allclose(found, told, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("n", [1, 3])
def test_parity_with_the_official_code(pipe, noise, prompts, n):
    found = significance(pipe, [prompts[0]] * n, noise[:n], num_steps=WATCHED, official="swapped")
    told = official_significance(
        pipe.unet,
        pipe.encode(prompts[:1]).tokens,
        pipe.encode([""]).tokens,
        noise[:n],
        num_steps=STEPS,
        watched=WATCHED,
        guidance_scale=7.5,
    )
    assert torch.allclose(found, told.expand(n, -1), rtol=1e-3, atol=1e-6)


def test_at_the_first_step_the_official_score_of_one_image_is_the_right_one_but_for_its_constant(
    pipe, noise, prompts
):
    right, official = (
        significance(pipe, prompts[:1], noise[:1], num_steps=1, official=mode)
        for mode in ("", "swapped")
    )
    assert torch.allclose(right, 2 * official, rtol=1e-4, atol=1e-7)
    right, official = (
        significance(pipe, prompts[:1], noise[:1], num_steps=STEPS, official=mode)
        for mode in ("", "swapped")
    )
    assert not torch.allclose(
        right, 2 * official, rtol=0.05
    )  # from there on it is on another trajectory


@pytest.mark.parametrize("official", ["", "swapped"])
def test_prompts_do_not_see_each_other(pipe, noise, prompts, official):
    pair = [prompts[0], prompts[1], prompts[0]]
    groups = [torch.tensor([0, 2]), torch.tensor([1])]
    together = significance(pipe, pair, noise, official=official, groups=groups)
    apart = torch.zeros_like(together)
    for group in groups if official else [torch.tensor([i]) for i in range(3)]:
        apart[group] = significance(pipe, [pair[i] for i in group], noise[group], official=official)
    assert torch.allclose(together, apart, rtol=1e-3, atol=1e-6)


def test_a_token_without_influence_scores_zero(pipe, noise, prompts):
    blind = [2, 5, 70]
    scores = significance(pipe, prompts, noise, Masked(pipe.unet, blind), num_steps=2)
    assert scores.shape == (3, 77) and (scores[:, blind] == 0).all()
    assert (scores[:, [i for i in range(77) if i not in blind]] > 0).all()


def test_the_empty_prompt_scores_zero(pipe, noise):
    assert (significance(pipe, [""] * 3, noise, num_steps=1) == 0).all()


@pytest.mark.parametrize(("num_steps", "rows"), [(1, 2), (3, 6), (None, 2 * STEPS)])
def test_unet_rows_and_no_gradients_elsewhere(euler_pipe, noise, prompts, num_steps, rows):
    predictor = make_predictor(euler_pipe, prompts)
    before = predictor.tokens("text").clone()
    scores = token_significance(predictor, noise, 7.5, num_steps=num_steps)
    assert (
        predictor.unet_evals.tolist() == [rows] * 3
        and scores.isfinite().all()
        and not scores.requires_grad
    )
    assert all(p.grad is None and p.requires_grad for p in predictor.model.unet.parameters())
    assert (
        torch.equal(predictor.tokens("text"), before) and not predictor.tokens("text").requires_grad
    )


def test_half_precision_scores_are_close(make_pipe, noise, prompts):
    full, half = (
        significance(pipe, prompts, noise.to(pipe.unet.dtype), num_steps=1)
        for pipe in (make_pipe(), make_pipe(dtype=torch.bfloat16))
    )
    assert (
        half.dtype == torch.float32 and ((half - full).norm(dim=1) < 0.2 * full.norm(dim=1)).all()
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_steps": 0}, "num_steps 0"),
        ({"num_steps": 5}, "the sampler has 4 steps"),
        ({"official": "joint"}, "there are swapped"),
    ],
)
def test_what_is_refused(pipe, noise, prompts, settings, told):
    with pytest.raises(ValueError, match=told):
        significance(pipe, prompts, noise, **settings)


def test_token_texts(pipe):
    tokenizer = pipe.tokenizer
    model = model_of(tokenizer=tokenizer)
    texts = model.token_texts("a red square above $5")
    assert texts[:4] == ["a", "red", "square", "above"] and texts[4] == "$"
    assert len(model.token_texts("a " * 200)) == 75
    assert all(text for text in model.token_texts("café 🐍"))
