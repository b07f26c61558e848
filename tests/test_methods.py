"""Properties of whole methods: images never see each other, NFE are as stated, edge cases
fail softly. float32.
"""

from pathlib import Path

import pytest
import torch

from memorization_suite.mitigation import METHODS, build_mitigation
from memorization_suite.sampling import Batch, NoisePredictor
from memorization_suite.sampling.sample import denoise
from memorization_suite.sampling.sample import sample as sample_batch
from tests.methods import helpers
from tests.methods.pictures import reference_image
from tests.methods.statistics_file import statistics_file
from tests.models import predictor_for, predictor_of

close = torch.testing.assert_close
QUICK = {
    "nemo": {"neurons": str(Path(__file__).parent / "methods" / "neurons.json")},
    "captain_noise": {"reference": reference_image()},
    "batch_wise": {"rho": 5.0, "apply_cfg_step": 1},
    "static_transition": {"cfg_step": 0},
    "per_sample": {"lr": 0.05, "target_loss": 7.0, "optim_iters": 3},
    "stability_regions": {"statistics": statistics_file(4)},
    "sail": {"l_thres": 8.0, "max_steps": 3, "restarts": 1},
    **{
        name: {"optim_lr": 0.01, "optim_iters": 2}
        for name in ("prompt_embedding", "bright_ending_embedding", "anisotropy_embedding")
    },
}


def quick(name: str):
    """The method with settings that take few UNet calls on the random model."""
    return build_mitigation(name, **QUICK.get(name, {}))


def make_predictor(pipe, prompts, unet=None, **settings) -> NoisePredictor:
    return predictor_for(pipe, prompts, unet=unet, **settings)


def adjust(method, predictor, noise, t=981):
    """(what the method makes of the noise, its prediction there)."""
    batch = Batch.of_captions([""] * len(noise))
    with torch.no_grad():
        return method.adjust_initial_noise(predictor, noise, t, batch), batch.first


def sample(pipe, prompts, noise, method, steps=4, **settings):
    return helpers.sample(pipe, prompts, noise, method, steps, **settings)


def rows_close(ours, theirs, tolerance=1e-4):
    """||ours - theirs|| <= tolerance ||theirs|| for every image: latents of a random model grow to
    some hundred, so absolute bounds say little.
    """
    return bool(
        ((ours - theirs).flatten(1).norm(dim=1) <= tolerance * theirs.flatten(1).norm(dim=1)).all()
    )


# every method
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_three_equals_three_batches_of_one(pipe, prompts, noise, name):
    """Latents and the method's numbers to 1e-4, NFE exactly."""
    seeds = [11, 12, 13]
    together = sample(pipe, prompts, noise, quick(name), seeds=seeds, prompt_seeds=seeds)
    for i in range(3):
        alone = sample(
            pipe,
            prompts[i : i + 1],
            noise[i : i + 1],
            quick(name),
            seeds=seeds[i : i + 1],
            prompt_seeds=seeds[i : i + 1],
        )
        assert rows_close(together.adjusted[i : i + 1], alone.adjusted)
        assert rows_close(together.final[i : i + 1], alone.final)
        assert together.unet_evals[i] == alone.unet_evals[0]
        for column, values in together.numbers.items():
            close(values[i : i + 1].float(), alone.numbers[column].float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_sampling_changes_nothing_it_was_given(pipe, prompts, noise, name):
    """Noise, UNet parameters, their requires_grad and gradients, and attention processors are as
    before; a second run is equal.
    """
    start, processors = noise.clone(), dict(pipe.unet.attn_processors)
    weights = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    first, second = (sample(pipe, prompts, noise, quick(name), seeds=[1, 2, 3]) for _ in range(2))
    assert torch.equal(noise, start)
    assert pipe.unet.attn_processors == processors
    assert all(torch.equal(value, weights[key]) for key, value in pipe.unet.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in pipe.unet.parameters())
    assert torch.equal(first.final, second.final)


@pytest.mark.parametrize("name", METHODS)
def test_euler_v_model_runs_with_every_method(euler_pipe, prompts, noise, name):
    made = sample(euler_pipe, prompts, noise, quick(name))
    assert torch.isfinite(made.final).all()
    assert made.final.dtype == made.adjusted.dtype == noise.dtype


# nothing to do
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("batch_wise", {"gamma": 0.0, "apply_cfg_step": 1}),
        ("batch_wise", {"adj_iters": 0, "apply_cfg_step": 1}),
        ("per_sample", {"optim_iters": 0}),
        ("per_sample", {"target_loss": 1000.0}),
        ("no_mitigation", {}),
        ("static_transition", {}),
    ],
)
@pytest.mark.parametrize("kind", ["ddim", "euler"])
def test_the_noise_is_left_as_drawn(make_pipe, prompts, noise, kind, name, settings):
    """Exactly under DDIM; under Euler's scaling and back to 1e-5."""
    made = sample(make_pipe(kind), prompts, noise, build_mitigation(name, **settings))
    close(made.adjusted, noise, rtol=0, atol=0 if kind == "ddim" else 1e-5)
    assert torch.equal(made.initial, noise)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("batch_wise", {"gamma": 0.0, "apply_cfg_step": -1}), ("per_sample", {"target_loss": 1000.0})],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["ddim", "euler"])
def test_an_image_that_is_not_moved_is_the_image_without_the_method(
    make_pipe, prompts, noise, kind, dtype, name, settings
):
    """Bit for bit, so that pairs with and without a method differ by the method only; a rounded
    first latent changes the image in bfloat16.
    """
    pipe = make_pipe(kind, dtype=dtype)
    expected = sample(pipe, prompts[:1], noise[:1].to(dtype), build_mitigation("no_mitigation"), 2)
    made = sample(pipe, prompts[:1], noise[:1].to(dtype), build_mitigation(name, **settings), 2)
    assert torch.equal(made.adjusted, expected.adjusted)
    assert torch.equal(made.final, expected.final)


@pytest.mark.parametrize("name", ["batch_wise", "per_sample"])
def test_the_empty_prompt_has_magnitude_zero_and_keeps_its_noise(pipe, prompts, noise, name):
    made = sample(pipe, ["", *prompts[1:]], noise, quick(name))
    assert made.numbers["first_magnitude"][0] == 0
    assert not made.numbers["failed"].any()
    assert torch.equal(made.adjusted[0], noise[0])
    assert torch.isfinite(made.final).all()


# NFE
@pytest.mark.parametrize(
    ("name", "settings", "rows"),
    [
        ("no_mitigation", {}, 100),
        ("batch_wise", {}, 103),
        ("batch_wise", {"tau": 900.0}, 103),
        ("batch_wise", {"adj_iters": 4, "apply_cfg_step": 3}, 112),
        ("static_transition", {}, 75),
        ("static_transition", {"cfg_step": 4}, 95),
    ],
)
def test_unet_rows_of_50_steps(pipe, prompts, noise, name, settings, rows):
    """As counted, and as they really pass through the UNet. static_transition: t = 981..501 are 25
    steps above 500.
    """
    passed = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: passed.append(len(args[0])))
    try:
        made = sample(pipe, prompts[:1], noise[:1], build_mitigation(name, **settings), 50)
    finally:
        hook.remove()
    assert made.unet_evals.tolist() == [sum(passed)] == [rows]


def test_per_sample_rows_are_counted_per_image(pipe, prompts, noise):
    """2J + 2N with J updates of this image: the last check serves as step 0."""
    made = sample(
        pipe,
        prompts,
        noise,
        build_mitigation("per_sample", lr=1.0, target_loss=8.0, optim_iters=12),
    )
    updates = made.numbers["iterations"]
    assert len(set(updates.tolist())) > 1
    assert made.unet_evals.tolist() == (2 * updates + 8).tolist()


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0])
def test_unguided_runs_cost_one_row_per_step(pipe, prompts, noise, guidance_scale):
    made = sample_batch(
        pipe,
        Batch.of_captions(prompts),
        noise,
        build_mitigation("no_mitigation"),
        num_inference_steps=5,
        guidance_scale=guidance_scale,
    )
    assert made.unet_evals.tolist() == [5, 5, 5]


@pytest.mark.parametrize("name", ["no_mitigation", "batch_wise", "static_transition"])
def test_skipping_the_unused_half_changes_only_the_cost(pipe, prompts, noise, name):
    made = []
    for skip in (True, False):
        pipe.scheduler.set_timesteps(4)
        predictor = make_predictor(pipe, prompts, skip_unused_half=skip)
        made.append(denoise(predictor, noise, Batch.of_captions(prompts), quick(name), 7.0))
    assert rows_close(made[0].final, made[1].final)
    assert made[1].unet_evals.tolist() == [8 + 8 * (name == "batch_wise")] * 3
    assert (made[0].unet_evals < made[1].unet_evals).all() == (name != "no_mitigation")


# Euler's scale
@pytest.mark.parametrize("name", ["batch_wise", "per_sample"])
def test_methods_see_unit_variance_under_euler(euler_pipe, prompts, noise, name):
    """The method's x is what the UNet reads; its result, scaled back, is what the first sampling
    step reads. 1e-4.
    """
    euler_pipe.scheduler.set_timesteps(4)
    sigma = float(euler_pipe.scheduler.sigmas[0])
    x = noise * sigma / (sigma**2 + 1) ** 0.5
    predictor = make_predictor(euler_pipe, prompts)
    expected = adjust(quick(name), predictor, x, euler_pipe.scheduler.timesteps[0])[0].x
    made = sample(euler_pipe, prompts, noise, quick(name))
    close(made.adjusted * sigma / (sigma**2 + 1) ** 0.5, expected, rtol=0, atol=1e-4)
    close(made.numbers["moved"], (expected - x).flatten(1).norm(dim=1), rtol=1e-3, atol=1e-4)


def test_first_step_starts_from_the_adjusted_noise(pipe, prompts, noise):
    """DDIM: the UNet reads `adjusted` itself in step 0."""
    seen = []
    made = sample(
        pipe,
        prompts,
        noise,
        quick("batch_wise"),
        on_step=lambda step, prediction: seen.append(prediction.x),
    )
    assert torch.equal(seen[0], made.adjusted)
    assert float((made.adjusted - noise).flatten(1).norm(dim=1).min()) > 0.1


# non-finite numbers
class Poisoned(torch.nn.Module):
    """A UNet whose prediction is NaN for rows with one embedding, from the call with number `after`
    on.
    """

    def __init__(self, unet, embed, after):
        super().__init__()
        self.unet, self.embed, self.after, self.calls = unet, embed, after, 0

    def forward(self, x, t, encoder_hidden_states, return_dict=False):
        noise = self.unet(x, t, encoder_hidden_states=encoder_hidden_states, return_dict=False)[0]
        bad = (encoder_hidden_states == self.embed).flatten(1).all(1) & (self.calls >= self.after)
        self.calls += 1
        return (noise * torch.where(bad, torch.nan, 1.0).reshape(-1, 1, 1, 1),)


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("name", ["batch_wise", "per_sample"])
def test_an_image_with_non_finite_magnitude_keeps_its_noise(pipe, prompts, noise, name, after):
    """It is flagged; the others are as without it, also in a whole run (1e-4)."""
    poisoned = Poisoned(pipe.unet, pipe.encode(prompts[2:]).tokens, after)
    clean, _ = adjust(quick(name), make_predictor(pipe, prompts), noise)
    made, _ = adjust(quick(name), make_predictor(pipe, prompts, poisoned), noise)
    assert made.numbers["failed"].tolist() == [False, False, True]
    assert torch.equal(made.x[2], noise[2])
    assert rows_close(made.x[:2], clean.x[:2])
    pipe.scheduler.set_timesteps(4)
    poisoned.calls = 0
    predictor = make_predictor(pipe, prompts, poisoned)
    ours = denoise(predictor, noise, Batch.of_captions(prompts), quick(name), 7.0)
    assert rows_close(ours.final[:2], sample(pipe, prompts, noise, quick(name)).final[:2])


# per_sample's optimization
def test_embeddings_carry_no_graph(pipe, prompts):
    """Gradients are taken with respect to the latents alone; a graph would keep the text encoder's
    activations, and the UNet's, for nothing.
    """
    assert not pipe.encode(prompts).tokens.requires_grad


class Bowl(torch.nn.Module):
    """A UNet with e(x, c) - e(x, "") = x: the magnitude is ||x||, and a large learning rate swings
    past its minimum.
    """

    def forward(self, x, t, encoder_hidden_states, return_dict=False):
        return (x * encoder_hidden_states[:, :1, :1, None],)


def test_the_cap_keeps_the_best_iterate(pipe):
    """AdamW with lr 0.6 from lengths 2 and 1 swings back after two updates: the third iterate of
    five is kept and the target reported as missed.
    """
    x = torch.tensor([1.0, 0.5]).reshape(2, 1, 1, 1).expand(2, 4, 1, 1).clone()
    latent = x.clone().requires_grad_()
    optimizer, lengths = torch.optim.AdamW([latent], lr=0.6), []
    for _ in range(5):
        length = latent.flatten(1).norm(dim=1)
        lengths.append(length.detach())
        optimizer.zero_grad()
        length.sum().backward()
        optimizer.step()
    best, where = torch.stack(lengths).min(0)
    assert where.tolist() == [2, 2]
    made, first = adjust(
        build_mitigation("per_sample", lr=0.6, target_loss=1e-3, optim_iters=4),
        predictor_of(Bowl(), pipe.scheduler, torch.ones(2, 77, 8), torch.zeros(2, 77, 8)),
        x,
    )
    for kept in (
        made.numbers["last_magnitude"],
        made.x.flatten(1).norm(dim=1),
        first.magnitude(),
    ):
        close(kept, best)
    assert made.numbers["reached"].tolist() == [False, False]
    assert made.numbers["iterations"].tolist() == [4, 4]


def test_the_reported_prediction_belongs_to_the_result(pipe, prompts, noise):
    """Step 0 reuses it instead of running the UNet, 1e-5."""
    predictor = make_predictor(pipe, prompts)
    made, first = adjust(
        build_mitigation("per_sample", lr=1.0, target_loss=8.0, optim_iters=12), predictor, noise
    )
    with torch.no_grad():
        again = predictor.at(made.x, 981)
        close(first.text, again.text, rtol=0, atol=1e-5)
        close(first.uncond, again.uncond, rtol=0, atol=1e-5)
    assert made.numbers["reached"].all() and (made.numbers["last_magnitude"] <= 8.0).all()


@pytest.mark.parametrize("grad_rows", [1, 2])
def test_chunks_of_the_backward_pass_change_nothing(pipe, prompts, noise, grad_rows):
    """Iterates 1e-4 (AdamW divides by the size of small gradients), updates equal."""
    settings = {"lr": 0.05, "target_loss": 7.8, "optim_iters": 5}
    whole, _ = adjust(
        build_mitigation("per_sample", **settings), make_predictor(pipe, prompts), noise
    )
    parts, _ = adjust(
        build_mitigation("per_sample", **settings, grad_rows=grad_rows),
        make_predictor(pipe, prompts),
        noise,
    )
    close(parts.x, whole.x, rtol=0, atol=1e-4)
    assert parts.numbers["iterations"].tolist() == whole.numbers["iterations"].tolist()


@pytest.mark.parametrize("fails", [False, True])
def test_unet_parameters_get_no_gradient_and_are_thawed(pipe, prompts, noise, fails):
    """requires_grad comes back as it was, parameter by parameter, also after an exception in the
    UNet.
    """
    parameters = list(pipe.unet.parameters())
    parameters[0].requires_grad_(False)

    def stop(module, args):
        assert not any(p.requires_grad for p in parameters)
        if fails:
            raise RuntimeError("stop")

    hook = pipe.unet.register_forward_pre_hook(stop)
    try:
        adjust(quick("per_sample"), make_predictor(pipe, prompts), noise)
    except RuntimeError:
        assert fails
    finally:
        hook.remove()
        state = [p.requires_grad for p in parameters]
        parameters[0].requires_grad_(True)
    assert state == [False] + [True] * (len(parameters) - 1)
    assert all(p.grad is None for p in parameters)


# its official precision


def adjusted_by(pipe, prompts, noise, **settings):
    """Adjusted noise after three updates at the official learning rate."""
    method = build_mitigation("per_sample", target_loss=1e-3, optim_iters=3, lr=0.01, **settings)
    return adjust(method, make_predictor(pipe, prompts), noise)[0].x


def test_official_bf16_latents_round_weight_decay_away(pipe, prompts, noise):
    """In fp32 a weight decay of 0.1 acts; bfloat16 has not the digits for it."""

    def by_decay(**settings):
        return [
            adjusted_by(pipe, prompts, noise, weight_decay=decay, **settings)
            for decay in (0.0, 0.1, 3.0)
        ]

    none, some, much = by_decay()
    assert not torch.equal(none, some)
    none, some, much = by_decay(official="bf16_latents")
    assert torch.equal(none, some) and not torch.equal(none, much)
    assert torch.equal(some, some.bfloat16().float()) and some.dtype == noise.dtype
