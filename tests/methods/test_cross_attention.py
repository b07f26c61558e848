"""Cross-attention scaling: parity with the transcription, which rows and tokens it touches,
refusals.
"""

import pytest
import torch

from memorization_suite.mitigation import Mitigation, build_mitigation
from memorization_suite.mitigation.base import METHODS, register
from memorization_suite.sampling import Batch
from tests.methods.helpers import relative, sample
from tests.models import predictor_for
from tests.reference import ren2024

LONG = " ".join(["red"] * 90)


@pytest.mark.parametrize(
    ("settings", "official"),
    [
        ({}, {"c1": 1.25}),
        ({"bos_scale": 1.1}, {"c1": 1.1}),
        ({"mask_length_minis1": 1}, {"c1": 1.25, "mask_length_minis1": True}),
        ({"cross_attn_mask": 0, "bos_scale": 1.5}, {"c1": 1.5, "cross_attn_mask": False}),
        ({"bos_mode": "add", "bos_scale": 2.0}, {"c1": 2.0, "additive": True}),
    ],
)
def test_parity(pipe, prompts, noise, settings, official):
    """Final latents of 3 steps within 1e-4: ours of four prompts together, the official way one
    image a call; 2N rows.
    """
    texts, x = [*prompts[:2], "red", LONG], torch.cat([noise, noise[:1] + 0.1])
    made = sample(pipe, texts, x, build_mitigation("cross_attention", **settings), 3)
    settings = {"cross_attn_mask": True, "mask_length_minis1": False, **official}
    expected = torch.cat(
        [
            ren2024.generate(
                pipe.unet,
                pipe.text_encoder,
                pipe.tokenizer,
                text,
                row[None],
                num_steps=3,
                guidance_scale=7.0,
                **settings,
            )
            for text, row in zip(texts, x)
        ]
    )
    assert relative(made.final, expected) < 1e-4
    assert made.unet_evals.tolist() == [6] * 4
    assert (
        relative(made.final, sample(pipe, texts, x, build_mitigation("no_mitigation"), 3).final)
        > 1e-2
    )


def test_without_scale_and_mask_it_does_nothing(pipe, prompts, noise):
    """C = 1, no mask: plain sampling to rounding, 1e-4."""
    made = sample(
        pipe,
        prompts,
        noise,
        build_mitigation("cross_attention", bos_scale=1.0, cross_attn_mask=0),
        3,
    )
    assert (
        relative(
            made.final, sample(pipe, prompts, noise, build_mitigation("no_mitigation"), 3).final
        )
        < 1e-4
    )


def attention(pipe, prompts, halves, **settings):
    """(factors, shifts) of the running call's logits, (rows, tokens), for a call of these
    halves.
    """
    predictor = predictor_for(pipe, prompts)
    predictor.call.halves, predictor.call.images = halves, predictor.images
    method = build_mitigation("cross_attention", **settings)
    batch = Batch.of_captions(prompts)
    lengths = method.lengths(pipe, batch) if method.cross_attn_mask else None
    return [part[:, 0, 0] for part in method.factor_and_shift(predictor, lengths, 77)]


def test_rows_and_tokens(pipe, prompts):
    """Every half with a prompt is scaled, also one that another method adds; the mask has the
    prompt's length in the empty prompt's rows too.
    """
    factor, shift = attention(pipe, prompts, ("text", "uncond", "other"))
    assert factor[:, 0].tolist() == [1.25] * 3 + [1.0] * 3 + [1.25] * 3
    assert (factor[:, 1:] == 1).all()
    lengths = [pipe.token_span(prompt).stop + 1 for prompt in prompts]
    assert torch.isfinite(shift).sum(1).tolist() == lengths * 3
    _, shorter = attention(pipe, prompts, ("text",), mask_length_minis1=1)
    assert torch.isfinite(shorter).sum(1).tolist() == [length - 1 for length in lengths]


def test_the_empty_prompt_keeps_its_begin_token(pipe, noise):
    """The shortest mask leaves one token, and finite numbers."""
    made = sample(
        pipe, ["", "red"], noise[:2], build_mitigation("cross_attention", mask_length_minis1=1), 3
    )
    assert torch.isfinite(made.final).all()


def test_adding_helps_a_negative_logit_and_multiplying_hurts_it():
    """The source's quirk: at l_0 = -2, C = 1.25 lowers the begin token's share; adding ln C raises
    it.
    """
    logits = torch.tensor([-2.0, 0.0, 0.0])
    before = logits.softmax(0)[0]
    assert (
        torch.tensor([-2.0 * 1.25, 0.0, 0.0]).softmax(0)[0]
        < before
        < (logits + torch.tensor([1.25, 1.0, 1.0]).log()).softmax(0)[0]
    )


def test_the_mask_covers_what_another_method_made_of_the_prompt(pipe, prompts, noise):
    """A+B: the length is that of the text that was encoded."""
    try:

        @register("longer", paper="none")
        class Longer(Mitigation):
            """Adds words."""

            def edit_prompts(self, batch):
                return [f"{prompt}, two blue cats" for prompt in batch.prompts]

        made = sample(pipe, prompts, noise, build_mitigation("longer+cross_attention"), 2)
        longer = [f"{prompt}, two blue cats" for prompt in prompts]
        assert (
            relative(
                made.final,
                sample(pipe, longer, noise, build_mitigation("cross_attention"), 2).final,
            )
            < 1e-4
        )
    finally:
        del METHODS.entries["longer"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cross_attn_mask": 2}, "--cross_attn_mask 2 is neither 0 nor 1"),
        ({"mask_length_minis1": 3}, "--mask_length_minis1 3 is neither 0 nor 1"),
        ({"cross_attn_mask": 0, "mask_length_minis1": 1}, "needs --cross_attn_mask 1"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build_mitigation("cross_attention", **settings).check(50)
