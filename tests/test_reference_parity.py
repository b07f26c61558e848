"""Our methods against tests/reference/: independent, straight transcriptions of the official
procedures. float32, one thread.
"""

import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from memorization_suite.sampling.noise import official_noise
from tests.methods.helpers import relative, sample
from tests.models import model_of, predictor_of
from tests.reference import han2025

SEED, IMAGES, SHAPE, SCALE = 2, 3, (4, 8, 8), 7.0


def ours(pipe, prompts, method, num_steps):
    """What `pipe.sample` makes of the official noise stream, one sample per prompt."""
    noise = official_noise(SEED, [IMAGES] * len(prompts), SHAPE, torch.float32, "cpu")
    return [
        sample(pipe, [prompt] * IMAGES, drawn, method, num_steps)
        for prompt, drawn in zip(prompts, noise)
    ]


def theirs(pipe, prompts, num_steps, **settings):
    return han2025.official_generate(
        pipe.unet,
        pipe.text_encoder,
        pipe.tokenizer,
        prompts,
        n=IMAGES,
        shape=SHAPE,
        seed=SEED,
        num_steps=num_steps,
        guidance_scale=SCALE,
        **settings,
    )


def test_plain_guidance(pipe, prompts):
    """No mitigation, 50 steps: the reference's own DDIM is the scheduler's."""
    expected, _ = theirs(pipe, prompts[:1], 50)
    (sample,) = ours(pipe, prompts[:1], build_mitigation("no_mitigation"), 50)
    assert relative(sample.final, expected[0]) < 1e-4


@pytest.mark.parametrize(
    ("rho", "gamma", "adj_iters", "apply_cfg_step", "num_steps"),
    [
        (50.0, 0.7, 2, 4, 50),
        (50.0, 0.7, 1, 0, 5),
        (50.0, 0.7, 4, 3, 5),
        (5.0, 0.7, 2, 2, 5),
        (1.0, 1.5, 2, 2, 5),
        (30.0, 0.0, 2, -1, 5),
    ],
)
def test_batch_wise(pipe, prompts, rho, gamma, adj_iters, apply_cfg_step, num_steps):
    """Final latents of several prompts within 1e-4, although ours skips the text half of unguided
    steps.
    """
    settings = {"rho": rho, "gamma": gamma, "adj_iters": adj_iters}
    some = prompts[:1] if num_steps == 50 else prompts[:2]
    expected, _ = theirs(pipe, some, num_steps, batch_wise=settings, apply_cfg_step=apply_cfg_step)
    samples = ours(
        pipe,
        some,
        build_mitigation("batch_wise", **settings, apply_cfg_step=apply_cfg_step),
        num_steps,
    )
    assert max(relative(sample.final, latents) for sample, latents in zip(samples, expected)) < 1e-4
    moved = torch.stack([sample.numbers["moved"] for sample in samples])
    assert (moved > 0.01).all() if gamma else (moved == 0).all()


@pytest.mark.parametrize(
    ("lr", "target_loss", "optim_iters"),
    [(0.01, 7.8, 30), (0.05, 7.0, 30), (0.05, 6.0, 3), (0.05, 1000.0, 10), (0.05, 3.0, 0)],
)
def test_per_sample(pipe, prompts, lr, target_loss, optim_iters):
    """Updates of each image are equal and final latents within 1e-4, although ours optimizes the
    images together.
    """
    settings = {"lr": lr, "target_loss": target_loss, "optim_iters": optim_iters}
    expected, updates = theirs(pipe, prompts[:2], 5, per_sample=settings)
    samples = ours(pipe, prompts[:2], build_mitigation("per_sample", **settings), 5)
    assert [sample.numbers["iterations"].tolist() for sample in samples] == updates
    assert max(relative(sample.final, latents) for sample, latents in zip(samples, expected)) < 1e-4
    if optim_iters == 30:
        assert len(set(sum(updates, []))) >= 3, (
            f"a test with equal numbers of updates proves little: {updates}"
        )


def test_both_adjusters_leave_the_noise_stream_alone(pipe, prompts):
    """The second prompt's noise does not depend on the method used for the first one."""
    streams = [
        [
            sample.initial
            for sample in ours(pipe, prompts[:2], build_mitigation(name, **settings), 2)
        ]
        for name, settings in (
            ("no_mitigation", {}),
            ("batch_wise", {"apply_cfg_step": 0}),
            ("per_sample", {"optim_iters": 2}),
        )
    ]
    assert all(torch.equal(a, b) for stream in streams[1:] for a, b in zip(streams[0], stream))


@pytest.mark.parametrize("kind", ["ddim", "euler"])
def test_v_to_epsilon_equals_the_scalar_loops(make_pipe, kind):
    """At every fifth timestep of a run, 1e-5 absolute on numbers of size one."""
    scheduler = make_pipe(kind, "v_prediction").scheduler
    scheduler.set_timesteps(50)
    v, z = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    model = model_of(scheduler=scheduler)
    for t in scheduler.timesteps[::5]:
        numbers = (v.flatten().tolist(), z.flatten().tolist(), float(t))
        expected = han2025.epsilon_from_v_euler(*numbers)
        torch.testing.assert_close(
            model.to_noise(v, z, t).flatten(), torch.tensor(expected), rtol=0, atol=1e-5
        )
        if kind == "ddim":
            assert han2025.epsilon_from_v(*numbers[:2], int(t)) == pytest.approx(expected, abs=1e-9)


class VelocityUNet(torch.nn.Module):
    """An epsilon model's velocity, by algebra: v = (e - sigma x) / alpha."""

    def __init__(self, unet, scheduler):
        super().__init__()
        self.unet, self.scheduler = unet, scheduler

    def forward(self, x, t, **kwargs):
        bar = torch.tensor(han2025.alpha_bars(), dtype=torch.float64)[int(t)]
        noise = self.unet(x, t, **kwargs)[0]
        return (((noise.double() - (1 - bar).sqrt() * x.double()) / bar.sqrt()).float(),)


@pytest.mark.parametrize("t", [1, 501, 981])
def test_v_model_and_epsilon_model_have_the_same_magnitude(make_pipe, prompts, noise, t):
    """Thresholds mean the same for both kinds of model; raw v magnitudes at t=981 would be 13 times
    larger.
    """
    magnitudes = []
    for prediction_type in ("epsilon", "v_prediction"):
        pipe = make_pipe("ddim", prediction_type)
        unet = (
            pipe.unet if prediction_type == "epsilon" else VelocityUNet(pipe.unet, pipe.scheduler)
        )
        predictor = predictor_of(
            unet, pipe.scheduler, pipe.encode(prompts).tokens, pipe.encode([""] * 3).tokens
        )
        with torch.no_grad():
            magnitudes.append(predictor.at(noise, t).magnitude())
            raw = unet(noise, t, encoder_hidden_states=predictor.tokens("text"), return_dict=False)[
                0
            ]
            raw = (
                (
                    raw
                    - unet(
                        noise,
                        t,
                        encoder_hidden_states=predictor.tokens("uncond"),
                        return_dict=False,
                    )[0]
                )
                .flatten(1)
                .norm(dim=1)
            )
    torch.testing.assert_close(magnitudes[0], magnitudes[1], rtol=1e-4, atol=0)
    torch.testing.assert_close(raw * pipe.alpha_sigma(t)[0], magnitudes[1], rtol=1e-4, atol=0)
