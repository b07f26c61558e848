"""Prompt-embedding adjustment: parity with the transcription, quirks, rows, what is optimized and
what is not. float32 unless said.
"""

import pytest
import torch

from memorization_suite.commands.generate_plan import plan
from memorization_suite.mitigation import build_mitigation
from memorization_suite.sampling import Batch
from memorization_suite.sampling.sample import denoise
from tests.methods.helpers import (
    Poisoned,
    check_updates,
    equal_rows,
    relative,
    sample,
    sample_plainly,
)
from tests.models import predictor_for, predictor_of
from tests.reference import wen2024

NAME = "prompt_embedding"


def adjusted(pipe, prompts, noise, unet=None, steps=4, **settings):
    """(embeddings, numbers) of the hook alone."""
    pipe.scheduler.set_timesteps(steps)
    predictor = predictor_for(pipe, prompts, unet=unet)
    with torch.no_grad():
        numbers = build_mitigation(NAME, **settings).edit_embeddings(
            predictor, noise, pipe.scheduler.timesteps[0], Batch.of_captions(prompts)
        )
    return predictor.tokens("text"), numbers


# parity
@pytest.mark.parametrize(
    ("lr", "target", "iters"),
    [(0.01, 7.5, 10), (0.002, 1.0, 3), (0.01, 1000.0, 10), (0.01, 1.0, 0)],
)
def test_parity_per_image(pipe, prompts, noise, lr, target, iters):
    """Each image alone, as the official code takes a prompt with one image; begin row left alone.
    Embeddings and latents 1e-4, updates equal.
    """
    made = sample(
        pipe,
        prompts,
        noise,
        build_mitigation(
            NAME, optim_lr=lr, optim_target_loss=target, optim_iters=iters, official="last_iterate"
        ),
        5,
    )
    embeds, numbers = adjusted(
        pipe,
        prompts,
        noise,
        steps=5,
        optim_lr=lr,
        optim_target_loss=target,
        optim_iters=iters,
        official="last_iterate",
    )
    empty, updates = pipe.encode([""]).tokens, []
    for i in range(3):
        expected, losses = wen2024.official_embedding(
            pipe.unet,
            noise[i : i + 1],
            801,
            empty,
            pipe.encode(prompts[i : i + 1]).tokens,
            lr=lr,
            target_loss=target,
            optim_iters=iters,
            decay_begin=False,
        )
        final = sample_plainly(pipe, noise[i : i + 1], expected, 5)
        updates.append(sum(loss > target for loss in losses))
        assert relative(embeds[i : i + 1], expected) < 1e-4
        assert relative(made.final[i : i + 1], final) < 1e-4
        if iters:
            assert float(numbers["first_magnitude"][i]) == pytest.approx(losses[0], rel=1e-4)
    check_updates(numbers, updates, differ=target == 7.5)
    check_updates(made.numbers, updates, differ=target == 7.5)


@pytest.mark.parametrize(("target", "iters"), [(11.0, 10), (1.0, 3)])
def test_parity_with_the_joint_norm(pipe, prompts, noise, target, iters):
    """Two images of one prompt and one of another share an embedding each, the begin row decays;
    embeddings 1e-4, updates equal.
    """
    texts, settings = (
        [prompts[0], prompts[2], prompts[0]],
        {"optim_lr": 0.01, "optim_target_loss": target, "optim_iters": iters},
    )
    embeds, numbers = adjusted(pipe, texts, noise, official="joint_norm,last_iterate", **settings)
    for images in ([0, 2], [1]):
        start = pipe.encode([texts[images[0]]]).tokens
        expected, losses = wen2024.official_embedding(
            pipe.unet,
            noise[images],
            751,
            pipe.encode([""]).tokens,
            start,
            lr=0.01,
            target_loss=target,
            optim_iters=iters,
        )
        assert relative(embeds[images], expected.expand(len(images), -1, -1)) < 1e-4
        assert numbers["iterations"][images].tolist() == [
            sum(loss > target for loss in losses)
        ] * len(images)
        assert float(numbers["first_magnitude"][images].norm()) == pytest.approx(
            losses[0], rel=1e-4
        )
        if numbers["iterations"][images[0]]:
            assert not torch.equal(expected[:, 0], start[:, 0])
    assert numbers["iterations"][0] > 0


def test_the_joint_norm_of_one_image_is_its_own(pipe, prompts, noise):
    """Only the begin row differs, by its decay of 3 steps."""
    settings = {"optim_lr": 0.01, "optim_iters": 3}
    own, _ = adjusted(pipe, prompts, noise, **settings)
    shared, _ = adjusted(pipe, prompts, noise, official="joint_norm", **settings)
    decayed = pipe.encode(prompts).tokens[:, 0] * (1 - 0.01 * 0.01) ** 3
    torch.testing.assert_close(own[:, 0], pipe.encode(prompts).tokens[:, 0], rtol=0, atol=0)
    assert relative(shared[:1, 0], decayed[:1]) < 1e-6


# what it costs and reports
def test_rows_are_counted_per_image(pipe, prompts, noise):
    """2N + J + 1, and 2N for an image that met the target at once; as they really pass through the
    UNet.
    """
    passed = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: passed.append(len(args[0])))
    try:
        made = sample(
            pipe, prompts, noise, build_mitigation(NAME, optim_lr=0.01, optim_target_loss=7.5), 4
        )
    finally:
        hook.remove()
    updates = made.numbers["iterations"]
    assert updates.tolist()[1] == 0 and updates.max() > 0
    assert made.unet_evals.tolist() == [8 + (j + 1 if j else 0) for j in updates.tolist()]
    assert int(made.unet_evals.sum()) == sum(passed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["ddim", "euler"])
@pytest.mark.parametrize("settings", [{"optim_target_loss": 1000.0}, {"optim_iters": 0}])
def test_an_image_below_the_target_is_the_image_without_the_method(
    make_pipe, prompts, noise, kind, dtype, settings
):
    """Bit for bit."""
    pipe = make_pipe(kind, dtype=dtype)
    expected = sample(pipe, prompts, noise.to(dtype), build_mitigation("no_mitigation"), 2)
    made = sample(pipe, prompts, noise.to(dtype), build_mitigation(NAME, **settings), 2)
    assert torch.equal(made.final, expected.final)
    assert made.unet_evals.tolist() == expected.unet_evals.tolist()
    assert made.numbers["iterations"].tolist() == [0, 0, 0]


def test_reported_magnitudes_belong_to_the_result(pipe, prompts, noise):
    """last_magnitude is the magnitude of the embedding that is used, at step 0 (1e-4), also at the
    cap.
    """
    seen = []
    method = build_mitigation(NAME, optim_lr=0.01, optim_target_loss=7.5, optim_iters=2)
    made = sample(
        pipe, prompts, noise, method, 3, on_step=lambda step, prediction: seen.append(prediction)
    )
    predictor = seen[0].predictor
    with torch.no_grad():
        again = predictor.at(seen[0].x, seen[0].t)
        torch.testing.assert_close(
            made.numbers["last_magnitude"], again.magnitude(), rtol=1e-4, atol=0
        )
        torch.testing.assert_close(seen[0].text, again.text, rtol=0, atol=1e-4)
    assert made.numbers["reached"].tolist() == (made.numbers["last_magnitude"] <= 7.5).tolist()
    assert made.numbers["reached"].any() and not made.numbers["reached"].all()


def test_the_cap_keeps_the_best_embedding(pipe, prompts, noise):
    """With a learning rate that throws the second prompt far up, its own embedding is kept; the
    official code keeps the last.
    """
    best, numbers = adjusted(pipe, prompts, noise, optim_iters=4)
    last, official = adjusted(pipe, prompts, noise, optim_iters=4, official="last_iterate")
    assert official["last_magnitude"][1] > 2 * official["first_magnitude"][1]
    assert (numbers["last_magnitude"] <= official["last_magnitude"] * (1 + 1e-5)).all()
    assert numbers["last_magnitude"][1] == pytest.approx(
        float(numbers["first_magnitude"][1]), rel=1e-5
    )
    assert torch.equal(best[1], pipe.encode(prompts).tokens[1])
    assert not torch.equal(last[1], best[1])


# what takes part
def test_only_the_begin_token_is_left_alone(pipe, prompts, noise):
    """Every other row moves, padding too; the learning rate of the first update is the size of
    every step.
    """
    embeds, _ = adjusted(
        pipe,
        prompts,
        noise,
        optim_lr=0.01,
        optim_iters=1,
        weight_decay=0.0,
        official="last_iterate",
    )
    moved = (embeds - pipe.encode(prompts).tokens).abs()
    assert (moved[:, 0] == 0).all()
    assert (moved[:, 1:].amax(2) > 0.009).all()
    assert moved.max() < 0.0101


@pytest.mark.parametrize("grad_rows", [1, 2])
def test_parts_of_the_backward_pass_change_nothing(pipe, prompts, noise, grad_rows):
    """Embeddings 1e-4, updates equal; a joint norm is never split."""
    for official in ("", "joint_norm"):
        texts, settings = (
            [prompts[0], prompts[2], prompts[0]],
            {"optim_lr": 0.01, "optim_target_loss": 7.5, "optim_iters": 3, "official": official},
        )
        whole, numbers = adjusted(pipe, texts, noise, **settings)
        parts, others = adjusted(pipe, texts, noise, **settings, grad_rows=grad_rows)
        assert relative(parts, whole) < 1e-4
        assert numbers["iterations"].tolist() == others["iterations"].tolist()


def test_bfloat16_keeps_its_optimizer_in_float32(make_pipe, prompts, noise):
    """Steps of 0.001 are lost when added to numbers of size one in bfloat16; ten of them are not
    when they are added up in float32.
    """
    pipe = make_pipe(dtype=torch.bfloat16)
    embeds, numbers = adjusted(
        pipe,
        prompts,
        noise.to(torch.bfloat16).float(),
        optim_lr=0.001,
        optim_target_loss=0.1,
        official="last_iterate",
    )
    start = pipe.encode(prompts).tokens
    large = start[:, 1:].abs() > 1
    moved = (embeds[:, 1:] != start[:, 1:])[large].float().mean()
    assert embeds.dtype == torch.bfloat16
    assert numbers["iterations"].tolist() == [10, 10, 10]
    assert moved > 0.3, f"share of large entries that moved: {moved}"


@pytest.mark.parametrize("after", [0, 2])
def test_an_image_with_a_non_finite_magnitude_keeps_its_embedding(pipe, prompts, noise, after):
    """It is flagged, the others are as without it (1e-4); a run to the end works."""
    settings = {"optim_lr": 0.01, "optim_target_loss": 7.5, "optim_iters": 3}
    clean, _ = adjusted(pipe, prompts, noise, **settings)

    def is_third(x, _):
        return equal_rows(x, noise[2])

    unet = Poisoned(pipe.unet, is_third, after)
    embeds, numbers = adjusted(pipe, prompts, noise, unet, **settings)
    assert numbers["failed"].tolist() == [False, False, True]
    assert not numbers["reached"][2]
    assert torch.equal(embeds[2], pipe.encode(prompts).tokens[2])
    assert relative(embeds[:2], clean[:2]) < 1e-4
    predictor = predictor_of(
        Poisoned(pipe.unet, is_third, 2),
        pipe.scheduler,
        pipe.encode(prompts).tokens,
        pipe.encode([""] * 3).tokens,
    )
    method = build_mitigation(NAME, **settings)
    made = denoise(predictor, noise, Batch.of_captions(prompts), method, 7.0)
    assert torch.isfinite(made.final).all()


def test_the_empty_prompt_is_left_alone(pipe, prompts, noise):
    """Magnitude 0: the target is met, whatever it is."""
    made = sample(
        pipe,
        ["", *prompts[1:]],
        noise,
        build_mitigation(NAME, optim_target_loss=1e-9, optim_iters=1),
        2,
    )
    assert (
        made.numbers["first_magnitude"][0] == 0
        and made.numbers["reached"][0]
        and made.numbers["iterations"][0] == 0
    )
    assert torch.isfinite(made.final).all()


def test_it_combines_with_an_adjustment_of_the_noise(pipe, prompts, noise):
    """per_sample starts from the new embedding: its first magnitude is the embedding's last
    (1e-4).
    """
    made = sample(
        pipe,
        prompts,
        noise,
        build_mitigation(
            f"{NAME}+per_sample", optim_lr=0.01, optim_target_loss=7.5, target_loss=7.0, lr=0.05
        ),
        2,
    )
    torch.testing.assert_close(
        made.numbers["per_sample.first_magnitude"],
        made.numbers[f"{NAME}.last_magnitude"],
        rtol=1e-4,
        atol=0,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optim_target_loss": 0.0}, "--optim_target_loss 0.0 is out of range.*above 0"),
        ({"optim_lr": -1.0}, "--optim_lr -1.0 is out of range"),
        ({"optim_iters": -1}, "--optim_iters -1 is out of range"),
        ({"official": "joint"}, "--official 'joint' is not possible; there are joint_norm"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build_mitigation(NAME, **settings)


def test_defaults_and_folder_name():
    assert build_mitigation(NAME).named_values() == {"tl": 1.5, "lr": 0.05, "oi": 10}
    as_published = build_mitigation(NAME, official="joint_norm,last_iterate", optim_target_loss=3.0)
    assert as_published.named_values() == {
        "tl": 3.0,
        "lr": 0.05,
        "oi": 10,
        "official": "joint_norm,last_iterate",
    }


def test_quirks_are_a_set_however_they_are_typed(tmp_path):
    """One folder and one identity."""
    orders = ("joint_norm,last_iterate", "last_iterate,joint_norm", ",last_iterate,,joint_norm")
    plans = [
        plan(model_id="tiny", method=NAME, official=order, output_path=str(tmp_path))
        for order in orders
    ]
    assert len({planned.folder for planned in plans}) == 1
    assert all(planned.identity == plans[0].identity for planned in plans)
    assert {build_mitigation(NAME, official=order).official for order in orders} == {orders[0]}
    with pytest.raises(ValueError, match="--official 'joint_norm,joint_norm' is not possible"):
        build_mitigation(NAME, official="joint_norm,joint_norm")
