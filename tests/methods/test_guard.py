"""GUARD and attenuation alone: parity with the transcription, spikes, cost, combinations."""

import math

import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from memorization_suite.mitigation.guard import without_parallel
from memorization_suite.mitigation.spikes import names_in, spikes
from memorization_suite.sampling import Batch
from memorization_suite.sampling.sample import denoise
from memorization_suite.sampling.sample import sample as sample_batch
from tests.methods.helpers import relative, sample
from tests.models import predictor_of
from tests.reference import zhao2026

PLAIN = {"tau": 0.1, "a": 0.3, "blocks": "early", "repulsion": 2.0}
ALONE = {"tau": 0.01, "a": 0.3, "blocks": "early", "repulsion": None}


def theirs(pipe, prompts, noise, steps, **settings):
    model = pipe.unet, pipe.text_encoder, pipe.tokenizer
    return torch.cat(
        [
            zhao2026.generate(
                *model, prompt, row[None], num_steps=steps, guidance_scale=7.0, **settings
            )
            for prompt, row in zip(prompts, noise)
        ]
    )


@pytest.mark.parametrize(
    ("name", "settings", "official"),
    [
        ("guard", {}, PLAIN),
        ("guard", {"blocks": "all", "repulsion": 0.5}, PLAIN | {"blocks": "all", "repulsion": 0.5}),
        ("guard", {"spike_threshold": 1.0, "attenuation": 0.0}, PLAIN | {"tau": 1.0, "a": 0.0}),
        ("guard", {"official": "orthogonal"}, PLAIN | {"orthogonal": True}),
        ("guard", {"spike_threshold": 0.0}, PLAIN | {"tau": 0.0}),
        (
            "guard",
            {"spike_threshold": 0.0, "official": "zero_is_off"},
            PLAIN | {"tau": 0.0, "zero_is_off": True},
        ),
        (
            "guard",
            {"spike_threshold": 0.2, "official": "zero_is_off"},
            PLAIN | {"tau": 0.2, "zero_is_off": True},
        ),
        (
            "ca_attenuation",
            {"spike_threshold": 0.2, "official": "zero_is_off"},
            ALONE | {"tau": 0.2, "zero_is_off": True},
        ),
        ("ca_attenuation", {}, ALONE),
        (
            "ca_attenuation",
            {"blocks": "all", "attenuation": 0.6},
            ALONE | {"blocks": "all", "a": 0.6},
        ),
    ],
)
def test_parity(pipe, prompts, noise, name, settings, official):
    """Final latents of 3 steps within 1e-4: ours of three prompts together, the official way one
    image a call.
    """
    made = sample(pipe, prompts, noise, build_mitigation(name, **settings), 3)
    assert relative(made.final, theirs(pipe, prompts, noise, 3, **official)) < 1e-4
    assert made.unet_evals.tolist() == [9 if name == "guard" else 6] * 3
    assert (
        relative(
            made.final, sample(pipe, prompts, noise, build_mitigation("no_mitigation"), 3).final
        )
        > 1e-2
    )


def test_zero_is_off(pipe, prompts, noise):
    """Attenuation alone is plain guidance (1e-5) at 0 and below. By default every token above the
    mean is attenuated at 0, and the image is another.
    """
    plain = sample(pipe, prompts, noise, build_mitigation("no_mitigation"), 3).final
    for threshold in (0.0, -0.5):
        off = build_mitigation("ca_attenuation", spike_threshold=threshold, official="zero_is_off")
        assert relative(sample(pipe, prompts, noise, off, 3).final, plain) < 1e-5
    on = build_mitigation("ca_attenuation", spike_threshold=0.0)
    assert relative(sample(pipe, prompts, noise, on, 3).final, plain) > 1e-2


def test_spikes_equal_the_loops():
    """Per row and head, with one token that stands out; the begin token is none however large it
    is.
    """
    logits = torch.randn((2, 3, 5, 9), generator=torch.Generator().manual_seed(0))
    logits[0, 1, 2, 4] = 9.0
    logits[..., 0] = 20.0
    for tau in (0.01, 0.1, 1.5):
        found = spikes(logits, tau)
        assert found.shape == (2, 3, 1, 9)
        for row in range(2):
            for head in range(3):
                assert found[row, head, 0].nonzero().flatten().tolist() == zhao2026.spike_tokens(
                    logits[row, head], tau
                )
    assert found[0, 1, 0].tolist() == [k == 4 for k in range(9)]


def test_equal_logits_have_no_spikes():
    """A standard deviation of zero divides nothing by zero."""
    assert not spikes(torch.ones(1, 2, 3, 77), 0.01).any()


def test_multiplying_raises_a_negative_logit():
    """The source's quirk, kept: a spike among negative logits is raised by the factor 0.3, so it
    gets more attention.
    """
    logits = torch.full((1, 1, 1, 5), -4.0)
    logits[..., 2] = -2.0
    chosen = spikes(logits, 0.1)
    assert chosen.flatten().tolist() == [False, False, True, False, False]
    assert (
        torch.where(chosen, logits * 0.3, logits).softmax(-1)[..., 2] > logits.softmax(-1)[..., 2]
    )


def test_early_blocks_are_down_and_middle(pipe):
    assert {name.split("_")[0] for name in names_in(pipe, "early")} == {"down", "mid"}
    assert {name.split("_")[0] for name in names_in(pipe, "all")} == {"down", "mid", "up"}


def test_without_repulsion_guard_is_attenuation_alone(pipe, prompts, noise):
    """Equal settings, r = 0: 1e-4."""
    settings = {"spike_threshold": 0.5, "attenuation": 0.2}
    one = sample(pipe, prompts, noise, build_mitigation("guard", repulsion=0.0, **settings), 3)
    other = sample(pipe, prompts, noise, build_mitigation("ca_attenuation", **settings), 3)
    assert relative(one.final, other.final) < 1e-4


def test_a_factor_of_one_changes_nothing(pipe, prompts, noise):
    """a = 1: attenuation alone is plain guidance (1e-4); with r, guidance is weaker by r_i at each
    step (1e-4).
    """
    plain = sample(pipe, prompts, noise, build_mitigation("no_mitigation"), 3)
    assert (
        relative(
            sample(
                pipe, prompts, noise, build_mitigation("ca_attenuation", attenuation=1.0), 3
            ).final,
            plain.final,
        )
        < 1e-4
    )
    one_step = sample(pipe, prompts, noise, build_mitigation("guard", attenuation=1.0), 1)
    weaker = sample_batch(
        pipe,
        Batch.of_captions(prompts),
        noise,
        build_mitigation("no_mitigation"),
        num_inference_steps=1,
        guidance_scale=5.0,
    )
    assert relative(one_step.final, weaker.final) < 1e-4


def test_the_repulsion_falls_as_a_quarter_cosine(pipe, prompts, noise):
    """r_i = 2 cos(pi i / 2N), read off the noise that is stepped with, 1e-4."""
    schedule, seen = build_mitigation("guard", attenuation=1.0).guidance(None), []
    combine = schedule.combine

    def look(step, pred):
        noise_pred = combine(step, pred)
        direction = pred.conditional
        seen.append(float(((noise_pred - pred.uncond) * direction).sum() / (direction**2).sum()))
        return noise_pred

    schedule.combine = look
    method = build_mitigation("guard", attenuation=1.0)
    object.__setattr__(method, "guidance", lambda batch: schedule)
    sample(pipe, prompts, noise, method, 4)
    assert seen == pytest.approx([7 - 2 * math.cos(math.pi * i / 8) for i in range(4)], abs=1e-4)


def test_parallel_parts_are_taken_off_per_image():
    """Cosine above 0.9: the part goes, at most twice the repulsion; below: nothing changes; zero
    repulsion divides nothing by zero.
    """
    away = torch.zeros(4, 4, 2, 2)
    away[:3, 0, 0, 0] = 1.0
    attraction = torch.zeros(4, 4, 2, 2)
    attraction[0, 0, 0, 0], attraction[0, 1, 0, 0] = 1.0, 0.1  # nearly parallel
    attraction[1, 0, 0, 0], attraction[1, 1, 0, 0] = 1.0, 1.0  # not
    attraction[2, 0, 0, 0] = 5.0  # parallel and long: only 2 of 5 go
    attraction[3, 2, 1, 1] = 1.0
    left = without_parallel(attraction, away)
    for i in range(4):
        torch.testing.assert_close(
            left[i], zhao2026.orthogonalized(attraction[i], away[i]), rtol=0, atol=1e-6
        )
    assert left[0, 0, 0, 0].abs() < 1e-6 and left[2, 0, 0, 0] == pytest.approx(3.0)
    assert torch.equal(left[[1, 3]], attraction[[1, 3]])


def test_the_first_step_uses_what_a_noise_adjustment_computed(pipe, prompts, noise):
    """3N rows, of which the adjustment's last evaluation serves two; its own halves are
    ordinary.
    """
    made = sample(pipe, prompts, noise, build_mitigation("per_sample+guard", optim_iters=0), 3)
    assert made.unet_evals.tolist() == [9, 9, 9]
    assert (
        relative(made.final, sample(pipe, prompts, noise, build_mitigation("guard"), 3).final)
        < 1e-4
    )
    alone = sample(pipe, prompts, noise, build_mitigation("per_sample", optim_iters=0), 3)
    assert (
        relative(
            made.numbers["first_magnitude"][:, None], alone.numbers["first_magnitude"][:, None]
        )
        < 1e-5
    )


@pytest.mark.parametrize("skip", [True, False])
def test_nothing_stays_behind(pipe, prompts, noise, skip):
    """The extra half is gone afterward, also after an exception; running both halves always
    changes nothing here.
    """
    pipe.scheduler.set_timesteps(3)
    predictor = predictor_of(
        pipe.unet,
        pipe.scheduler,
        pipe.encode(prompts).tokens,
        pipe.encode([""] * 3).tokens,
        skip_unused_half=skip,
    )
    batch = Batch.of_captions(prompts)
    made = denoise(predictor, noise, batch, build_mitigation("guard"), 7.0)
    assert set(predictor.conditioning) == {"uncond", "text"} and made.unet_evals.tolist() == [
        9,
        9,
        9,
    ]
    hook = pipe.unet.mid_block.register_forward_pre_hook(lambda *args: 1 / 0)
    processors = dict(pipe.unet.attn_processors)
    try:
        with pytest.raises(ZeroDivisionError):
            denoise(predictor, noise, batch, build_mitigation("guard"), 7.0)
    finally:
        hook.remove()
    assert (
        set(predictor.conditioning) == {"uncond", "text"}
        and pipe.unet.attn_processors == processors
    )


def test_half_precision_keeps_its_dtype(make_pipe, prompts, noise):
    pipe = make_pipe(dtype=torch.bfloat16)
    made = sample(pipe, prompts, noise.bfloat16(), build_mitigation("guard"), 2)
    assert made.final.dtype == torch.bfloat16 and torch.isfinite(made.final).all()
