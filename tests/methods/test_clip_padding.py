"""Padding and end token: parity with the transcription of the official script, attention without
masked tokens, refusals.
"""

import copy
from types import SimpleNamespace

import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from memorization_suite.sampling import Batch
from tests.methods.helpers import relative, sample
from tests.models import model_of, predictor_for
from tests.reference import kim2026
from tests.reference.somepalli2023 import guided_run

LONG = " ".join(["red"] * 90)
STRATEGY_2 = {"padding": "end", "mask_end": 0, "mask_padding": 0.7}


def edited(pipe, prompts, **settings):
    """(predictor after the hook, its numbers)."""
    predictor = predictor_for(pipe, prompts)
    numbers = build_mitigation("clip_padding", **settings).edit_embeddings(
        predictor, None, 981, Batch.of_captions(prompts, model=pipe)
    )
    return predictor, numbers


@pytest.mark.parametrize(
    ("settings", "official"),
    [
        ({}, ("!", True, 0.0)),
        ({"mask_end": 0}, ("!", False, 0.0)),
        (STRATEGY_2, (None, False, 0.7)),
        ({"padding": "end"}, (None, True, 0.0)),
        (STRATEGY_2 | {"mask_padding": 1.0}, (None, False, 1.0)),
        ({"mask_padding": 0.4}, ("!", True, 0.4)),
        ({"padding": "end", "mask_end": 0}, (None, False, 0.0)),
    ],
)
@pytest.mark.parametrize("quirk", ["", "padded_uncond"])
def test_parity(pipe, prompts, noise, settings, official, quirk):
    """Final latents of 4 steps within 1e-4, with the official unconditional half and with ours; 2N
    rows.
    """
    texts = [prompts[0], "red", LONG]
    made = sample(
        pipe, texts, noise, build_mitigation("clip_padding", **settings, official=quirk), 4
    )
    token, end, share = official
    stacked = kim2026.stacked(
        pipe.tokenizer,
        pipe.text_encoder,
        texts,
        uncond_padding_token=token if quirk else None,
        padding_token=token,
        end_to_zero=end,
        share_to_zero=share,
    )
    assert (
        relative(made.final, guided_run(pipe.unet, noise, stacked, num_steps=4, guidance_scale=7.0))
        < 1e-4
    )
    assert made.unet_evals.tolist() == [8, 8, 8]


def test_only_the_padding_changes_before_the_mask(pipe, prompts):
    """The text encoder is causal: begin token, prompt and end token are as without the method
    (1e-5), the padding is not.
    """
    predictor, _ = edited(pipe, prompts, mask_end=0)
    plain = pipe.encode(prompts).tokens
    for i, prompt in enumerate(prompts):
        end = pipe.token_span(prompt).stop
        torch.testing.assert_close(
            predictor.tokens("text")[i, : end + 1], plain[i, : end + 1], rtol=0, atol=1e-5
        )
        assert (
            (predictor.tokens("text")[i, end + 1 :] - plain[i, end + 1 :]).norm(dim=1) > 0.1
        ).all()
    assert torch.equal(predictor.tokens("uncond"), pipe.encode([""] * 3).tokens)


@pytest.mark.parametrize(
    ("prompt", "settings", "count"),
    [
        ("red", {}, 1),
        ("red", {"mask_end": 0}, 0),
        ("red", STRATEGY_2, 51),
        ("red", STRATEGY_2 | {"mask_padding": 1.0}, 74),
        (LONG, {"mask_padding": 1.0}, 1),
        (LONG, STRATEGY_2, 0),
        ("", {}, 1),
    ],
)
def test_masked_tokens(pipe, prompt, settings, count):
    """Begin token, one token and end token leave 74 for the padding; a cut prompt has none. Masked
    embeddings are zero, and only they.
    """
    predictor, numbers = edited(pipe, [prompt], **settings)
    assert numbers["masked_tokens"].tolist() == [count]
    zeros = (predictor.tokens("text")[0] == 0).all(1)
    first = pipe.token_span(prompt).stop + (not settings.get("mask_end", 1))
    assert zeros.nonzero().flatten().tolist() == list(range(first, first + count))


@pytest.mark.parametrize("settings", [{}, STRATEGY_2, {"mask_padding": 0.5}])
def test_tokens_out_of_the_attention(pipe, prompts, noise, settings):
    """--mask_by attention is the UNet's own mask over the tokens for conditional rows (1e-5 of the
    largest); unconditional rows see everything.
    """
    method = build_mitigation("clip_padding", **settings, mask_by="attention")
    predictor, _ = edited(pipe, prompts, **settings, mask_by="attention")
    batch = Batch.of_captions(prompts, model=pipe)
    keep = (~method.masked(pipe, batch)).float()
    with torch.no_grad():
        with method.patch(predictor, batch):
            some = predictor.select(torch.tensor([2, 0])).at(noise[[2, 0]], 981)
            ours = predictor.at(noise, 981)
            ours.need("uncond", "text")
            some.need("uncond", "text")
        text = pipe.unet(
            noise,
            981,
            encoder_hidden_states=predictor.tokens("text"),
            encoder_attention_mask=keep,
            return_dict=False,
        )[0]
        uncond = pipe.unet(
            noise, 981, encoder_hidden_states=predictor.tokens("uncond"), return_dict=False
        )[0]
        unmasked = pipe.unet(
            noise, 981, encoder_hidden_states=predictor.tokens("text"), return_dict=False
        )[0]
    torch.testing.assert_close(ours.text, text, rtol=0, atol=1e-5 * float(text.abs().max()))
    torch.testing.assert_close(ours.uncond, uncond, rtol=0, atol=1e-5 * float(uncond.abs().max()))
    torch.testing.assert_close(some.text, text[[2, 0]], rtol=0, atol=1e-5 * float(text.abs().max()))
    assert float((unmasked - text).norm()) > 1e-3 * float(text.norm())


def test_the_padding_of_stable_diffusion_2_is_overwritten_too(pipe, prompts):
    """Its tokenizer pads with "!", so --padding end changes something there, and exclamation does
    not.
    """
    ours = [
        edited(pipe, prompts, padding=padding, mask_end=0)[0].tokens("text")
        for padding in ("exclamation", "end")
    ]
    torch.testing.assert_close(ours[1], pipe.encode(prompts).tokens, rtol=0, atol=1e-5)
    pipe.tokenizer = copy.deepcopy(pipe.tokenizer)
    pipe.tokenizer.pad_token = "!"
    torch.testing.assert_close(pipe.encode(prompts).tokens, ours[0], rtol=0, atol=1e-5)
    again = [
        edited(pipe, prompts, padding=padding, mask_end=0)[0].tokens("text")
        for padding in ("exclamation", "end")
    ]
    for first, second in zip(ours, again):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_a_text_encoder_that_wants_a_mask_gets_it(pipe, prompts, monkeypatch):
    """As diffusers does; with one, the padding is not attended to while encoding."""
    monkeypatch.setattr(pipe.text_encoder.config, "use_attention_mask", True, raising=False)
    predictor, _ = edited(pipe, prompts, padding="end", mask_end=0)
    torch.testing.assert_close(
        predictor.tokens("text"), pipe.encode(prompts).tokens, rtol=0, atol=1e-5
    )


def test_prompts_that_another_method_edited_are_encoded(pipe, prompts, noise):
    """random_tokens + clip_padding is clip_padding on the edited prompts."""
    seeds = [1, 2, 3]
    both = sample(
        pipe, prompts, noise, build_mitigation("random_tokens+clip_padding"), 2, prompt_seeds=seeds
    )
    texts = build_mitigation("random_tokens").edit_prompts(
        Batch.of_captions(prompts, prompt_seeds=seeds, model=pipe)
    )
    assert torch.equal(
        both.final, sample(pipe, texts, noise, build_mitigation("clip_padding"), 2).final
    )
    assert set(both.numbers) == {"tokens_lost", "masked_tokens", "padding_tokens"}


@pytest.mark.parametrize("token", [None, 7])
def test_a_tokenizer_without_the_token_is_refused(token):
    tokenizer = SimpleNamespace(
        unk_token_id=7, unk_token="<unk>", convert_tokens_to_ids=lambda text: token
    )
    with pytest.raises(ValueError, match="no token '!'; --padding end is possible"):
        build_mitigation("clip_padding").encode(model_of(tokenizer=tokenizer), ["a"])


def test_the_official_unconditional_half_is_the_empty_prompts(pipe, prompts, noise):
    with pytest.raises(ValueError, match="does not go with a negative prompt"):
        sample(
            pipe,
            prompts,
            noise,
            build_mitigation("clip_padding", official="padded_uncond"),
            1,
            negative_prompt="two cats",
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_end": 2}, "--mask_end 2 is neither 0 nor 1"),
        ({"mask_padding": 1.5}, "--mask_padding 1.5.*0 to 1"),
    ],
)
def test_values_that_are_too_large_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build_mitigation("clip_padding", **settings).check(50)


def test_names_of_folders():
    assert build_mitigation("clip_padding").named_values() == {
        "pad": "exclamation",
        "end": 1,
        "share": 0.0,
    }
    named = build_mitigation(
        "clip_padding", mask_by="attention", official="padded_uncond"
    ).named_values()
    assert named["by"] == "attention" and named["official"] == "padded_uncond"
