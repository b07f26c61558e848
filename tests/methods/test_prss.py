"""PRSS: search and re-anchoring against the transcription, one image at a time; which rows pass
through the UNet. float32.
"""

import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from memorization_suite.sampling import Batch
from memorization_suite.sampling.sample import denoise
from memorization_suite.sampling.sample import sample as sample_batch
from tests.methods.helpers import relative, sample
from tests.models import predictor_for
from tests.reference import chen2025

NAME = "prss"
LAYERS, SIZE, STEPS = ["down_blocks.0.attentions.0.transformer_blocks.0.attn2"], (8, 8), 4
CAPTIONS = (
    "a blue ring and two stars",
    "two cats",
    "a green circle",
    "a red square",
    "the great wave and many stars",
)


def theirs(
    pipe, prompts, noise, alternatives, *, target, low, high, masked=False, masked_anchor=True
):
    """(latents, chosen, triggered, measured magnitudes, re-anchored steps) of each image."""
    empty, results = pipe.encode([""]).tokens, []
    for i, prompt in enumerate(prompts):
        x, captions, mask = (
            noise[i : i + 1],
            [pipe.encode([text]).tokens for text in (prompt, *alternatives[i])],
            None,
        )
        if masked:
            mask = chen2025.first_run_mask(
                pipe.unet,
                x,
                empty,
                captions[0],
                pipe.token_span(prompt).stop,
                LAYERS,
                SIZE,
                num_steps=STEPS,
                guidance_scale=7.0,
            )
        chosen, trigger, measured = chen2025.semantic_search(
            pipe.unet, x, 751, empty, captions, target, mask
        )
        final, steps = chen2025.re_anchored(
            pipe.unet,
            x,
            empty,
            captions[chosen],
            captions[0],
            trigger,
            low=low,
            high=high,
            num_steps=STEPS,
            guidance_scale=7.0,
            mask=mask if masked_anchor else None,
        )
        results.append((final, chosen, trigger, measured, steps))
    return results


def compare(made, expected):
    """Latents 1e-4, decisions equal, magnitudes 1e-4."""
    assert made.numbers["alternative"].tolist() == [chosen for _, chosen, *_ in expected]
    assert made.numbers["triggered"].tolist() == [trigger for _, _, trigger, _, _ in expected]
    assert made.numbers["alternatives_tried"].tolist() == [
        len(measured) - 1 for *_, measured, _ in expected
    ]
    assert made.numbers["reanchored_steps"].tolist() == [steps for *_, steps in expected]
    for i, (_, chosen, _, measured, _) in enumerate(expected):
        assert float(made.numbers["first_magnitude"][i]) == pytest.approx(measured[0], rel=1e-4)
        assert float(made.numbers["chosen_magnitude"][i]) == pytest.approx(
            measured[chosen], rel=1e-4
        )
    assert relative(made.final, torch.cat([final for final, *_ in expected])) < 1e-4


@pytest.mark.parametrize(
    ("target", "low", "high"),
    [(5.0, 2.0, 12.0), (0.1, 3.0, 5.0), (8.5, 1.0, 30.0), (1000.0, 3.0, 5.0)],
)
def test_parity_per_image(pipe, prompts, noise, target, low, high):
    """Captions of different number: none for the second image; below, between and above the limits
    of re-anchoring.
    """
    alternatives = [CAPTIONS, (), CAPTIONS[::-1][:3]]
    method = build_mitigation(NAME, l_target_ss=target, l_target_pr=low, mag_thres_pr=high)
    made = sample(pipe, prompts, noise, method, STEPS, alternatives=alternatives)
    expected = theirs(pipe, prompts, noise, alternatives, target=target, low=low, high=high)
    compare(made, expected)
    if target == 5.0:
        assert made.numbers["triggered"].tolist() == [True, False, True]
        assert made.numbers["reached"].any() and made.numbers["reanchored_steps"].any()


@pytest.mark.parametrize("official", ["", "plain_anchor"])
def test_parity_with_masks(pipe, prompts, noise, official):
    """PRSS + BE: the mask of a first run in the search, and in the steps (in the official code in
    the search only).
    """
    alternatives = [CAPTIONS, CAPTIONS[:1], CAPTIONS[::-1][:3]]
    method = build_mitigation(
        NAME, l_target_ss=5.0, l_target_pr=2.0, mag_thres_pr=12.0, masked=1, official=official
    )
    made = sample(pipe, prompts, noise, method, STEPS, alternatives=alternatives)
    compare(
        made,
        theirs(
            pipe,
            prompts,
            noise,
            alternatives,
            target=5.0,
            low=2.0,
            high=12.0,
            masked=True,
            masked_anchor=not official,
        ),
    )


# rows
@pytest.mark.parametrize("masked", [0, 1])
def test_rows_are_those_that_are_used(pipe, prompts, noise, masked):
    """2N + A + R: alternatives tried, and steps after step 0 that are re-anchored on another
    prompt; a first run is 2N - 2 more.
    """
    passed = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: passed.append(len(args[0])))
    method = build_mitigation(
        NAME, l_target_ss=5.0, l_target_pr=3.0, mag_thres_pr=12.0, masked=masked
    )
    try:
        made = sample(
            pipe, prompts, noise, method, STEPS, alternatives=[CAPTIONS, CAPTIONS[:1], ()]
        )
    finally:
        hook.remove()
    numbers, rows = made.numbers, []
    for i in range(3):
        anchored = int(numbers["reanchored_steps"][i]) if numbers["alternative"][i] else 0
        first = bool(numbers["triggered"][i]) and float(numbers["chosen_magnitude"][i]) > 3.0
        rows.append(
            2 * STEPS
            + int(numbers["alternatives_tried"][i])
            + max(anchored - first, 0)
            + masked * (2 * STEPS - 2)
        )
    assert made.unet_evals.tolist() == rows
    assert int(made.unet_evals.sum()) == sum(passed)
    assert numbers["alternative"][0] > 0 and numbers["reanchored_steps"][0] > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["ddim", "euler"])
@pytest.mark.parametrize("masked", [0, 1])
def test_an_image_below_the_target_is_the_image_without_the_method(
    make_pipe, prompts, noise, kind, dtype, masked
):
    """Bit for bit."""
    pipe = make_pipe(kind, dtype=dtype)
    expected = sample(pipe, prompts, noise.to(dtype), build_mitigation("no_mitigation"), 3)
    made = sample(
        pipe,
        prompts,
        noise.to(dtype),
        build_mitigation(NAME, l_target_ss=1000.0, masked=masked),
        3,
        alternatives=[CAPTIONS] * 3,
    )
    assert torch.equal(made.final, expected.final)
    assert not made.numbers["triggered"].any() and not made.numbers["alternatives_tried"].any()


# single rules
def test_a_better_alternative_is_used_without_re_anchoring_below_the_limit(pipe, prompts, noise):
    """With L above every magnitude it is the plain image of the chosen caption from the same
    noise.
    """
    method = build_mitigation(NAME, l_target_ss=0.1, l_target_pr=1e4, mag_thres_pr=1e5)
    made = sample(pipe, prompts[:1], noise[:1], method, STEPS, alternatives=[CAPTIONS])
    chosen = int(made.numbers["alternative"][0])
    plain = sample(
        pipe, [(prompts[0], *CAPTIONS)[chosen]], noise[:1], build_mitigation("no_mitigation"), STEPS
    )
    assert chosen > 0 and made.numbers["reanchored_steps"].tolist() == [0]
    assert relative(made.final, plain.final) < 1e-5


@pytest.mark.parametrize("guidance_scale", [0.0, 0.5, 1.0])
def test_weak_guidance_is_not_re_anchored(pipe, prompts, noise, guidance_scale):
    """Scale 0 stays an unconditional run, scale 1 follows the found caption."""
    method = build_mitigation(NAME, l_target_ss=0.1, l_target_pr=0.1, mag_thres_pr=0.2)
    run = {"num_inference_steps": STEPS, "guidance_scale": guidance_scale}
    batch = Batch.of_captions(prompts[:1], alternatives=[CAPTIONS])
    made = sample_batch(pipe, batch, noise[:1], method, **run)
    chosen = (prompts[0], *CAPTIONS)[int(made.numbers["alternative"][0])]
    batch = Batch.of_captions([chosen])
    plain = sample_batch(pipe, batch, noise[:1], build_mitigation("no_mitigation"), **run)
    assert relative(made.final, plain.final) < 1e-5
    assert made.numbers["reanchored_steps"].tolist() == [0]


def test_strong_re_anchoring_forgets_the_unconditional_prediction(pipe, prompts, noise):
    """Above H: e_0 + s (e* - e_0), one DDIM step by hand; with the original as e* that is e_0
    itself. 1e-5.
    """
    method = build_mitigation(NAME, l_target_ss=0.1, l_target_pr=0.01, mag_thres_pr=0.02)
    for alternatives in ((), CAPTIONS[1:2]):
        made = sample(pipe, prompts[:1], noise[:1], method, 1, alternatives=[alternatives])
        t = int(pipe.scheduler.timesteps[0])
        with torch.no_grad():
            e = [
                pipe.unet(noise[:1], t, encoder_hidden_states=pipe.encode([text]).tokens).sample
                for text in (prompts[0], *alternatives)
            ]
        chosen = int(made.numbers["alternative"][0])
        expected = pipe.scheduler.step(
            e[0] + 7.0 * (e[chosen] - e[0]), pipe.scheduler.timesteps[0], noise[:1]
        ).prev_sample
        assert relative(made.final, expected) < 1e-5


def test_images_of_one_prompt_may_take_different_captions(pipe, prompts, noise):
    """Each by its own noise."""
    made = sample(
        pipe,
        [prompts[0]] * 3,
        noise,
        build_mitigation(NAME, l_target_ss=7.85),
        STEPS,
        alternatives=[CAPTIONS] * 3,
    )
    assert made.numbers["alternative"].tolist() == [1, 3, 1]


def test_after_an_adjustment_of_the_noise_the_original_is_predicted_anew(pipe, prompts, noise):
    """per_sample+prss: step 0 is at other noise than the search; the rows say that e_0 was computed
    there.
    """
    settings = {
        "l_target_ss": 0.1,
        "l_target_pr": 0.1,
        "mag_thres_pr": 0.2,
        "optim_iters": 1,
        "target_loss": 0.1,
    }
    made = sample(
        pipe,
        prompts[:1],
        noise[:1],
        build_mitigation(f"per_sample+{NAME}", **settings),
        STEPS,
        alternatives=[CAPTIONS[2:3]],
    )
    assert made.numbers["prss.alternative"].tolist() == [1]
    assert made.unet_evals.tolist() == [2 + 1 + 2 * 2 + 2 * (STEPS - 1) + STEPS]


class Broken(torch.nn.Module):
    """A UNet whose prediction is NaN for one embedding."""

    def __init__(self, unet, embed):
        super().__init__()
        self.unet, self.embed = unet, embed
        self.dtype, self.device = unet.dtype, unet.device

    def forward(self, x, t, encoder_hidden_states, return_dict=False):
        noise = self.unet(x, t, encoder_hidden_states=encoder_hidden_states, return_dict=False)[0]
        return (
            noise
            * torch.where(
                (encoder_hidden_states == self.embed).flatten(1).all(1), torch.nan, 1.0
            ).reshape(-1, 1, 1, 1),
        )


def test_a_non_finite_magnitude_is_never_chosen(pipe, prompts, noise):
    """An alternative without a number is passed over; an original without one is flagged, not
    searched for.
    """
    pipe.scheduler.set_timesteps(2)

    def run(broken):
        unet = Broken(pipe.unet, pipe.encode([broken]).tokens)
        predictor = predictor_for(pipe, prompts[:2], unet=unet)
        batch = Batch.of_captions(prompts[:2], alternatives=[CAPTIONS[:3], ()])
        method = build_mitigation(NAME, l_target_ss=0.1)
        return denoise(predictor, noise[:2], batch, method, 7.0)

    assert run("none of them").numbers["alternative"].tolist() == [3, 0]
    made = run(CAPTIONS[2])
    assert made.numbers["alternative"].tolist() == [1, 0] and torch.isfinite(made.final).all()
    made = run(prompts[0])
    assert made.numbers["failed"].tolist() == [True, False]
    assert made.numbers["triggered"].tolist() == [False, True]
    assert torch.isfinite(made.final[1]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l_target_pr": 5.0}, "--mag_thres_pr 5 must be above --l_target_pr 5"),
        ({"masked": 2}, "--masked 2 is neither 0 nor 1"),
        ({"l_target_ss": 0.0}, "--l_target_ss 0.0 is out of range"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build_mitigation(NAME, **settings).check(50)


def test_defaults_and_folder_name():
    assert build_mitigation(NAME).named_values() == {"ss": 1.0, "L": 3.0, "H": 5.0}
    assert build_mitigation(NAME, masked=1).named_values() == {
        "ss": 1.0,
        "L": 3.0,
        "H": 5.0,
        "masked": 1,
    }
