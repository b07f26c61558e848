"""Anisotropy score and the embedding that lowers it: parity with the transcription, weights, rows.
float32.
"""

import pytest
import torch

from memorization_suite.detection.anisotropy import anisotropy, mean_cosine
from memorization_suite.mitigation import build_mitigation
from memorization_suite.sampling import Batch
from tests.methods.helpers import check_updates, relative, sample, sample_plainly
from tests.models import predictor_for
from tests.reference import asthana2026

NAME, STEPS = "anisotropy_embedding", 5


def make_predictor(pipe, prompts, steps=STEPS):
    pipe.scheduler.set_timesteps(steps)
    return predictor_for(pipe, prompts)


# the score
def test_mean_cosine_equals_the_loops():
    """Number by number, 1e-6; -1 for opposite vectors, 0 where one is zero, with finite
    gradients.
    """
    a, b = torch.randn(2, 2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    for i in range(2):
        assert float(mean_cosine(a, b)[i]) == pytest.approx(
            asthana2026.mean_cosine(a[i : i + 1], b[i : i + 1]), abs=1e-6
        )
    torch.testing.assert_close(mean_cosine(a, -3 * a), torch.full((2,), -1.0))
    zero = torch.zeros(1, 4, 3, 5, requires_grad=True)
    mean_cosine(a[:1], zero).sum().backward()
    assert mean_cosine(a[:1], zero).item() == 0
    assert torch.isfinite(zero.grad).all()


@pytest.mark.parametrize(
    ("norm_weight", "cosine_weight"), [(1.0, 2.0), (2.0, 1.0), (0.0, 1.0), (1.0, 0.0)]
)
def test_the_score_equals_the_transcription(pipe, prompts, noise, norm_weight, cosine_weight):
    """t = 981 and 41 of 50 steps, three images at once; 1e-4. Four NFE."""
    predictor = make_predictor(pipe, prompts, 50)
    times = pipe.scheduler.timesteps[[0, -3]].tolist()
    assert times == [981, 41]
    with torch.no_grad():
        scores = anisotropy(*(predictor.at(noise, t) for t in times), norm_weight, cosine_weight)
        for i in range(3):
            embeds = pipe.encode([""]).tokens, pipe.encode(prompts[i : i + 1]).tokens
            expected = asthana2026.score(
                pipe.unet, noise[i : i + 1], 981, 41, *embeds, norm_weight, cosine_weight
            )
            assert float(scores[i]) == pytest.approx(float(expected), rel=1e-4, abs=1e-5)
    assert predictor.unet_evals.tolist() == [4, 4, 4]


# the method
@pytest.mark.parametrize(("target", "iters"), [(7.0, 8), (1.0, 3), (1000.0, 10)])
def test_parity_per_image(pipe, prompts, noise, target, iters):
    """Each image alone; updates equal, scores and final latents 1e-4."""
    method = build_mitigation(NAME, optim_lr=0.01, optim_target_loss=target, optim_iters=iters)
    made, empty, updates = sample(pipe, prompts, noise, method, STEPS), pipe.encode([""]).tokens, []
    for i in range(3):
        x = noise[i : i + 1]
        embedding, scores = asthana2026.adjusted_embedding(
            pipe.unet,
            x,
            801,
            401,
            empty,
            pipe.encode(prompts[i : i + 1]).tokens,
            gamma1=1.0,
            gamma2=2.0,
            lr=0.01,
            target=target,
            optim_iters=iters,
        )
        updates.append(len(scores) - 1)
        assert float(made.numbers["first_loss"][i]) == pytest.approx(scores[0], rel=1e-4)
        assert float(made.numbers["last_loss"][i]) == pytest.approx(min(scores), rel=1e-3)
        final = sample_plainly(pipe, x, embedding, STEPS)
        assert relative(made.final[i : i + 1], final) < 1e-4
    check_updates(made.numbers, updates, differ=target == 7.0)


def test_rows_are_two_timesteps_an_evaluation(pipe, prompts, noise):
    """2N + 2 for an image that met the target at once, else 2N + 2J + 4: the first timestep's last
    text half is step 0's.
    """
    made = sample(
        pipe, prompts, noise, build_mitigation(NAME, optim_lr=0.01, optim_target_loss=7.0), STEPS
    )
    updates = made.numbers["iterations"].tolist()
    assert 0 in updates and max(updates) > 0
    assert made.unet_evals.tolist() == [2 * STEPS + 2 + 2 * (j + 1 if j else 0) for j in updates]


def test_without_the_cosine_it_is_prompt_embedding(pipe, prompts, noise):
    """Latents 1e-4 ; with weight 2 twice the target means the same."""
    settings = {"optim_lr": 0.01, "optim_iters": 3}
    expected = sample(
        pipe,
        prompts,
        noise,
        build_mitigation("prompt_embedding", optim_target_loss=7.5, **settings),
        STEPS,
    )
    for weight in (1.0, 2.0):
        method = build_mitigation(
            NAME, norm_weight=weight, cosine_weight=0.0, optim_target_loss=7.5 * weight, **settings
        )
        made = sample(pipe, prompts, noise, method, STEPS)
        assert made.numbers["iterations"].tolist() == expected.numbers["iterations"].tolist()
        assert relative(made.final, expected.final) < 1e-4


def test_a_negative_target_is_possible(pipe, prompts, noise):
    """The cosine alone may be below zero."""
    predictor = make_predictor(pipe, prompts)
    method = build_mitigation(
        NAME,
        norm_weight=0.0,
        cosine_weight=1.0,
        optim_target_loss=-0.9,
        optim_lr=0.02,
        optim_iters=2,
    )
    with torch.no_grad():
        numbers = method.edit_embeddings(
            predictor, noise, pipe.scheduler.timesteps[0], Batch.of_captions(prompts)
        )
    assert (numbers["last_loss"] < numbers["first_loss"]).any()
    assert numbers["iterations"].tolist() == [2, 2, 2]


def test_euler_reads_the_same_x_at_both_timesteps(euler_pipe, prompts, noise):
    """Unit variance as the UNet reads it at the first timestep, not the late timestep's scaling of
    the latents.
    """
    seen = []
    hook = euler_pipe.unet.register_forward_pre_hook(
        lambda module, args: seen.append((float(args[1]), args[0].clone()))
    )
    try:
        sample(euler_pipe, prompts[:1], noise[:1], build_mitigation(NAME, optim_iters=0), STEPS)
    finally:
        hook.remove()
    times = euler_pipe.scheduler.timesteps
    assert [t for t, _ in seen[:2]] == [float(times[0]), float(times[-3])]
    assert torch.equal(seen[0][1], seen[1][1])
    assert 0.8 < float(seen[0][1].std()) < 1.2


def test_too_few_steps_are_refused():
    with pytest.raises(ValueError, match="2 steps are too few: at least 3"):
        build_mitigation(NAME).check(2)
    build_mitigation(NAME).check(3)


def test_defaults_and_folder_name():
    assert build_mitigation(NAME).named_values() == {
        "tl": 1.5,
        "lr": 0.05,
        "oi": 10,
        "g1": 1.0,
        "g2": 2.0,
    }
