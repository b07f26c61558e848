"""Properties of sampling/: noise prediction, guidance schedules, noise per image, attention
patches. float32; tolerances are absolute.
"""

import numpy as np
import pytest
import torch

from memorization_suite.pipelines.stable_diffusion.attention import patched_attention
from memorization_suite.prompts.files import Prompt
from memorization_suite.sampling import (
    Batch,
    BelowTimestep,
    Deferred,
    NoisePredictor,
    Step,
    image_seed,
    initial_noise,
)
from memorization_suite.sampling.loop import plain_run
from memorization_suite.sampling.noise import (
    STREAMS,
    derived,
    numpy_stream,
    official_noise,
    prompt_seed,
    stream,
)
from tests.models import model_of, predictor_for
from tests.reference import han2025

close = torch.testing.assert_close
FROZEN_SEEDS = [5064105440874769477, 7006255215521402662, 3304656143886516455, 7896617691693857887]
FROZEN_NOISE = [-0.7356896, 0.0673154, 1.2471069]


@pytest.fixture
def predictor(pipe, prompts) -> NoisePredictor:
    """Three images of three prompts, at DDIM's 50 steps."""
    pipe.scheduler.set_timesteps(50)
    return predictor_for(pipe, prompts)


# prediction
@torch.no_grad()
def test_halves_are_the_unet_outputs(predictor, noise):
    pred = predictor.at(noise, 981)
    for half in ("uncond", "text"):
        expected = predictor.model.unet(
            noise, 981, encoder_hidden_states=predictor.tokens(half)
        ).sample
        close(getattr(pred, half), expected, rtol=0, atol=1e-5)
    assert pred.magnitude().min() > 1.0, "the random model should listen to its prompts"
    assert len({round(float(m), 2) for m in pred.magnitude()}) == 3


@torch.no_grad()
@pytest.mark.parametrize(
    ("scale", "half"), [(0, "uncond"), (1, "text"), (0.0, "uncond"), (1.0, "text")]
)
def test_scale_0_and_1_are_one_half_and_cost_one_row(predictor, noise, scale, half):
    guided = predictor.at(noise, 981).guided(scale)
    assert predictor.unet_evals.tolist() == [1, 1, 1]
    close(guided, getattr(predictor.at(noise, 981), half), rtol=0, atol=0)


@torch.no_grad()
def test_other_scales_cost_two_rows_and_a_half_is_computed_once(predictor, noise):
    pred = predictor.at(noise, 981)
    guided = pred.guided(7.0)
    close(guided, pred.uncond + 7.0 * (pred.text - pred.uncond), rtol=0, atol=1e-5)
    pred.magnitude(), pred.guided(0), pred.guided(1), pred.conditional
    assert predictor.unet_evals.tolist() == [2, 2, 2]


@torch.no_grad()
def test_a_scale_per_image(predictor, noise):
    pred = predictor.at(noise, 981)
    guided = pred.guided(torch.tensor([0.0, 1.0, 7.0]))
    for i, scale in enumerate((0, 1, 7.0)):
        close(guided[i], pred.guided(scale)[i], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_scale_per_image_keeps_the_dtype(make_pipe, prompts, noise):
    """As a number does; otherwise the sampler's latents would change dtype on the way."""
    pipe = make_pipe(dtype=torch.bfloat16)
    pred = predictor_for(pipe, prompts).at(noise, 981)
    assert pred.guided(torch.full((3,), 7.0)).dtype == pred.guided(7.0).dtype == torch.bfloat16


@torch.no_grad()
def test_select_predicts_the_chosen_rows_and_counts_into_the_same_counter(predictor, noise):
    rows = torch.tensor([2, 0])
    part = predictor.select(rows)
    close(part.at(noise[rows], 981).text, predictor.at(noise, 981).text[rows], rtol=0, atol=1e-5)
    assert predictor.unet_evals.tolist() == [2, 1, 2]
    nested = part.select(torch.tensor([1]))  # image 0
    close(nested.at(noise[:1], 981).uncond, predictor.at(noise, 981).uncond[:1], rtol=0, atol=1e-5)
    assert predictor.unet_evals.tolist() == [4, 2, 3]


@torch.no_grad()
def test_conditional_noise_is_float32_also_for_bfloat16(make_pipe, prompts, noise):
    pipe = make_pipe(dtype=torch.bfloat16)
    predictor = predictor_for(pipe, prompts)
    assert (
        predictor.conditional_noise(noise, 981).dtype
        == predictor.at(noise, 981).magnitude().dtype
        == torch.float32
    )


@torch.no_grad()
def test_bfloat16_v_model_keeps_the_precision_of_its_output(make_pipe, prompts, noise):
    """Its difference is alpha (v_text - v_uncond): epsilon rounded to bfloat16 before the
    difference would be 1 / alpha = 13 times as wrong.
    """
    pipe = make_pipe("ddim", "v_prediction", dtype=torch.bfloat16)
    predictor = predictor_for(pipe, prompts)
    both = [
        pipe.unet(
            noise.bfloat16(), 981, encoder_hidden_states=predictor.tokens(half)
        ).sample.float()
        for half in ("text", "uncond")
    ]
    expected = pipe.alpha_sigma(981)[0] * (both[0] - both[1])
    difference = predictor.conditional_noise(noise, 981) - expected
    assert float(difference.norm() / expected.norm()) < 0.02


@pytest.mark.parametrize(
    ("kind", "t"), [("ddim", 981), ("ddim", 1), ("euler", 978.6122), ("euler", 999.0)]
)
def test_epsilon_and_v_round_trip(make_pipe, noise, kind, t):
    """to_noise and to_output are inverse to each other, 1e-4 (dividing by alpha = 0.07
    amplifies rounding).
    """
    for prediction_type in ("epsilon", "v_prediction"):
        scheduler = make_pipe(kind, prediction_type).scheduler
        model = model_of(scheduler=scheduler)
        output = torch.randn(noise.shape, generator=torch.Generator().manual_seed(5))
        close(
            model.to_output(model.to_noise(output, noise, t), noise, t),
            output,
            rtol=0,
            atol=1e-4,
        )


def test_other_prediction_types_are_refused(make_pipe, noise):
    scheduler = make_pipe("ddim", "sample").scheduler
    with pytest.raises(ValueError, match="'sample'.*epsilon.*v_prediction"):
        model_of(scheduler=scheduler).to_noise(noise, noise, 981)


@pytest.mark.parametrize(
    ("t", "alpha"), [(981, 0.0760), (999, 0.0683), (901, 0.118), (781, 0.2085), (1, 0.9991)]
)
def test_alpha_sigma_published_values(pipe, t, alpha):
    """METHODS 0.2, to its digits."""
    assert pipe.alpha_sigma(t)[0] == pytest.approx(alpha, abs=6e-5 if alpha < 0.1 else 6e-4)


def test_alpha_sigma_at_fractional_timesteps(euler_pipe):
    """sigma / alpha is Euler's own sigma at every step, 1e-5 relative; alpha^2 + sigma^2 = 1."""
    euler_pipe.scheduler.set_timesteps(50)
    for t, sigma_e in zip(euler_pipe.scheduler.timesteps, euler_pipe.scheduler.sigmas):
        alpha, sigma = euler_pipe.alpha_sigma(t)
        assert sigma / alpha == pytest.approx(float(sigma_e), rel=1e-5)
        assert alpha**2 + sigma**2 == pytest.approx(1.0, abs=1e-12)
    bars = han2025.alpha_bars()
    low, high = (((1 - bars[k]) / bars[k]) ** 0.5 for k in (978, 979))
    alpha, sigma = euler_pipe.alpha_sigma(978.25)
    assert sigma / alpha == pytest.approx(0.75 * low + 0.25 * high, rel=1e-5)


# guidance
def off_steps(schedule, timesteps) -> list[int]:
    """Indices of the unguided steps."""
    return [
        i
        for i, t in enumerate(timesteps)
        if schedule.scale(Step(i, t, len(timesteps), 7.0), None) == 0.0
    ]


@pytest.mark.parametrize(
    ("kind", "tau", "k_off", "first_guided"),
    [
        ("ddim", 900, 5, 881),
        ("ddim", 880, 6, 861),
        ("ddim", 860, 7, 841),
        ("ddim", 840, 8, 821),
        ("ddim", 780, 11, 761),
        ("ddim", 760, 12, 741),
        ("ddim", 740, 13, 721),
        ("ddim", 720, 14, 701),
        ("ddim", 881, 5, 881),
        ("ddim", 1000, 0, 981),
        ("euler", 917.4490, 4, 917.44898),
        ("euler", 999.0, 0, 999),
        ("euler", 978.6122, 1, 978.6),
        ("euler", 958.2245, 2, 958.2),
        ("euler", 937.8367, 3, 937.8),
    ],
)
def test_published_tau_and_apply_cfg_step_are_the_same_schedule(
    make_pipe, kind, tau, k_off, first_guided
):
    """METHODS 1.4; the four-decimal values 978.6122 and 937.8367 lie below the grid points that
    they mean.
    """
    scheduler = make_pipe(kind).scheduler
    scheduler.set_timesteps(50)
    assert (
        off_steps(BelowTimestep(tau), scheduler.timesteps)
        == off_steps(Deferred(k_off - 1), scheduler.timesteps)
        == list(range(k_off))
    )
    assert float(scheduler.timesteps[k_off]) == pytest.approx(first_guided, abs=0.05)


# noise
def test_image_seeds_are_frozen():
    """Published runs depend on these numbers: a change here is a change of every image."""
    assert [
        image_seed(2, 0, 0),
        image_seed(2, 0, 1),
        image_seed(2, 1, 0),
        image_seed(0, 0, 0),
    ] == FROZEN_SEEDS
    close(
        initial_noise([image_seed(2, 0, 0)], (4, 8, 8))[0, 0, 0, :3],
        torch.tensor(FROZEN_NOISE),
        rtol=0,
        atol=1e-6,
    )


def test_image_seeds_differ_and_fit_a_generator():
    seeds = [
        image_seed(seed, prompt, sample)
        for seed in range(4)
        for prompt in range(20)
        for sample in range(10)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_initial_noise_belongs_to_the_image():
    """Any batch, any order: the same noise for the same seed, and the global stream is left
    alone.
    """
    torch.manual_seed(0)
    before = torch.get_rng_state()
    together = initial_noise([5, 6, 7], (4, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(together[[2, 0]], initial_noise([7, 5], (4, 8, 8)))
    assert together.dtype == torch.float32
    assert 0.8 < float(together.std()) < 1.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_official_noise_replays_one_global_stream(dtype):
    ours = list(official_noise(2, [3, 1, 2], (4, 8, 8), dtype, "cpu"))
    torch.manual_seed(2)
    assert all(
        torch.equal(drawn, torch.randn((rows, 4, 8, 8), dtype=dtype))
        for rows, drawn in zip((3, 1, 2), ours)
    )


def test_streams_of_an_image_are_frozen_and_differ():
    """What a scheduler draws has been the seed with its last bit turned over."""
    drawn = [torch.randn(4, generator=stream(6, purpose)).tolist() for purpose in STREAMS]
    assert len({tuple(values) for values in drawn}) == len(STREAMS)
    assert drawn[0] == torch.randn(4, generator=torch.Generator().manual_seed(6)).tolist()
    assert drawn[1] == torch.randn(4, generator=torch.Generator().manual_seed(7)).tolist()
    assert STREAMS[:2] == ("initial noise", "scheduler") and stream(6).initial_seed() == 6
    with pytest.raises(ValueError):
        stream(6, "dice")


def test_seeds_are_derived_from_what_they_are_for():
    assert derived(2, 1, 0) == image_seed(2, 1, 0) and derived(2, 1) == prompt_seed(2, 1)
    assert len({derived(2), derived(2, 1), derived(2, 1, 1), derived(2, 0, 1), derived(3)}) == 5
    assert derived(2, 1) == derived(2, 1, 0)  # numpy pads with zeros
    assert numpy_stream(5).integers(1000) == np.random.default_rng(5).integers(1000)


# batches
def test_a_batch_of_a_prompt_file():
    """Rows and samples decide the seeds, and images of a prompt form a group."""
    prompts = [Prompt(4, "a", alternatives=("b",)), Prompt(7, "a")]
    batch = Batch.of(prompts, 2, seed=2)
    assert len(batch) == 4 and batch.prompts == ["a"] * 4
    assert batch.seeds == [image_seed(2, row, k) for row in (4, 7) for k in range(2)]
    assert batch.prompt_seeds == [prompt_seed(2, row) for row in (4, 4, 7, 7)]
    assert batch.alternatives == [("b",), ("b",), (), ()]
    assert [group.tolist() for group in batch.groups()] == [[0, 1], [2, 3]]
    assert [one.initial_seed() for one in batch.generator] == [seed ^ 1 for seed in batch.seeds]


def test_a_batch_of_captions_makes_up_what_is_not_given():
    batch = Batch.of_captions(["a", "b", "a"], seeds=[5, 6, 7], negative_prompt="c")
    assert batch.seeds == [5, 6, 7] and batch.negative_prompt == "c"
    assert batch.prompt_seeds == [prompt_seed(0, row) for row in (0, 1, 0)]
    assert batch.alternatives == [(), (), ()] and batch.generator is None
    assert [group.tolist() for group in batch.groups()] == [[0, 2], [1]]
    assert Batch.of_captions(["a"]).seeds == [image_seed(0, 0, 0)]


def test_a_plain_run_leaves_the_scheduler_alone(predictor, noise):
    """Its own copy is stepped; the rows count."""
    timesteps = predictor.model.scheduler.timesteps.clone()
    seen = []
    predictor.model.scheduler.set_timesteps(3)
    final = plain_run(predictor, noise, 7.0, lambda step, prediction: seen.append(step.index))
    assert seen == [0, 1, 2] and final.shape == noise.shape and not final.requires_grad
    assert predictor.unet_evals.tolist() == [6] * 3
    assert len(predictor.model.scheduler.timesteps) == 3 and len(timesteps) == 50


# attention
class Deaf:
    """Cross-attention that hears nothing."""

    def __call__(self, attn, hidden_states, *args, **kwargs):
        return torch.zeros_like(hidden_states)


def test_attention_patch_works_and_is_taken_back(predictor, noise):
    before = dict(predictor.model.unet.attn_processors)
    names = predictor.model.attention_names()
    assert len(names) == len(before) / 2
    with torch.no_grad(), patched_attention(predictor.model.unet, lambda name: Deaf(), names):
        assert (predictor.at(noise, 981).magnitude() == 0).all()
    assert predictor.model.unet.attn_processors == before


def test_open_attention_is_the_stock_attention(predictor, noise):
    """To 1e-5 of the prediction's size, in the order of the calls; it shows probabilities, and its
    logits can be changed.
    """
    names, seen, rows = predictor.model.attention_names(), [], []

    def see(name, probs):
        seen.append(name)
        rows.append(predictor.call.rows_of("text").tolist())
        torch.testing.assert_close(probs.sum(-1), torch.ones(probs.shape[:3]))

    with torch.no_grad():
        stock = predictor.at(noise, 981).conditional
        with predictor.model.open_attention(names, see=see):
            ours = predictor.at(noise, 981).conditional
        with predictor.model.open_attention(names, edit=lambda name, logits: logits * 0):
            flat = predictor.at(noise, 981).conditional
    assert (ours - stock).norm() < 1e-5 * stock.norm()
    assert (flat - stock).norm() > 1e-2 * stock.norm()
    assert seen == names and names[0].startswith("down") and names[-1].startswith("up")
    assert rows == [[False] * len(noise) + [True] * len(noise)] * len(names)


def test_the_end_token_is_at_the_stop_of_the_span(pipe, prompts):
    for prompt in [*prompts, "", "word " * 100]:
        ids = pipe.tokenizer(prompt, truncation=True, padding="max_length").input_ids
        assert pipe.token_span(prompt).stop == ids.index(pipe.tokenizer.eos_token_id)


@pytest.mark.parametrize("where", ["block", "factory"])
def test_attention_is_restored_after_an_exception(pipe, where):
    before = dict(pipe.unet.attn_processors)

    def make(name):
        if where == "factory":
            raise RuntimeError("stop")
        return Deaf()

    with (
        pytest.raises(RuntimeError, match="stop"),
        patched_attention(pipe.unet, make, pipe.attention_names(["up"])),
    ):
        raise RuntimeError("stop")
    assert pipe.unet.attn_processors == before


def test_unknown_attention_module_is_named(pipe):
    before = dict(pipe.unet.attn_processors)
    with (
        pytest.raises(ValueError, match="no attention module 'down_blocks.9'"),
        patched_attention(pipe.unet, lambda name: Deaf(), ["down_blocks.9"]),
    ):
        pass
    assert pipe.unet.attn_processors == before


def test_attention_names_select_by_place(pipe):
    assert all(name.endswith("attn2") for name in pipe.attention_names())
    assert {name.split(".")[0] for name in pipe.attention_names(["mid"])} == {"mid_block"}
