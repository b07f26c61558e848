"""MemorizationPipeline against diffusers' own StableDiffusionPipeline, and end to end in every
dtype.
"""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from memorization_suite.mitigation import METHODS, build_mitigation
from memorization_suite.pipelines import MemorizationPipeline
from memorization_suite.sampling import Batch, initial_noise
from memorization_suite.sampling.sample import sample as sample_batch
from tests.methods.helpers import sample
from tests.test_methods import quick

STEPS, SHAPE = 4, (4, 8, 8)
SIZE = {"height": 32, "width": 32}


def plain():
    return build_mitigation("no_mitigation")


def call(pipe, prompts, images, latents=None, **settings):
    """Final latents of this pipeline, from the same unit-variance noise for ours and diffusers'
    own.
    """
    latents = (
        initial_noise(list(range(len(prompts) * images)), SHAPE) if latents is None else latents
    )
    settings = {
        "output_type": "latent",
        "num_inference_steps": STEPS,
        "guidance_scale": 7.0,
    } | settings
    return pipe(
        prompts,
        num_images_per_prompt=images,
        latents=latents.to(pipe.unet.dtype),
        **SIZE,
        **settings,
    ).images


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["ddim", "euler"])
def test_our_loop_is_diffusers_loop_bit_for_bit(make_pipe, prompts, kind, count, images):
    """Epsilon models: `no_mitigation` goes through our loop."""
    expected = call(make_pipe(kind, cls=StableDiffusionPipeline), prompts[:count], images)
    assert torch.equal(call(make_pipe(kind), prompts[:count], images, mitigation=plain()), expected)


@pytest.mark.parametrize("kind", ["ddim", "euler"])
def test_v_prediction_agrees_to_rounding(make_pipe, prompts, kind):
    """1e-5 relative to the size of the latents: ours goes to epsilon and back."""
    expected = call(make_pipe(kind, "v_prediction", cls=StableDiffusionPipeline), prompts, 2)
    ours = call(make_pipe(kind, "v_prediction"), prompts, 2, mitigation=plain())
    assert float((ours - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["ddim", "euler"])
def test_generator_guidance_negative_prompt_and_images(make_pipe, prompts, kind, guidance_scale):
    """Pictures drawn from a generator, with a negative prompt. Dividing by Euler's first sigma and
    back: 1e-4.
    """
    settings = {
        "guidance_scale": guidance_scale,
        "num_inference_steps": 3,
        "output_type": "np",
        **SIZE,
    }
    pictures = []
    for cls, extra in (
        (StableDiffusionPipeline, {}),
        (MemorizationPipeline, {"mitigation": plain()}),
    ):
        made = make_pipe(kind, cls=cls)(
            prompts[0],
            negative_prompt="blue",
            generator=torch.Generator().manual_seed(3),
            **settings,
            **extra,
        )
        pictures.append(made.images)
    np.testing.assert_allclose(pictures[1], pictures[0], rtol=0, atol=0 if kind == "ddim" else 1e-4)


def test_without_a_mitigation_it_is_the_parent(make_pipe, prompts):
    """Also with arguments that only diffusers knows."""
    seen = []
    settings = {
        "callback_on_step_end": lambda pipe, i, t, tensors: seen.append(i) or {},
        "eta": 0.0,
    }
    ours, expected = (
        call(make_pipe(cls=cls), prompts[:2], 1, **settings)
        for cls in (MemorizationPipeline, StableDiffusionPipeline)
    )
    assert torch.equal(ours, expected)
    assert seen == list(range(STEPS)) * 2


def test_a_saved_folder_loads(random_sd_folder, make_pipe, prompts):
    """Saved by diffusers, loaded as ours; and saved by ours, loaded again."""
    pipe = MemorizationPipeline.from_pretrained(random_sd_folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe, MemorizationPipeline)
    assert torch.equal(
        call(pipe, prompts, 1, mitigation=plain()),
        call(make_pipe(), prompts, 1, mitigation=plain()),
    )


def test_our_own_folder_loads(make_pipe, prompts, tmp_path):
    pipe = make_pipe("euler", "v_prediction")
    pipe.save_pretrained(tmp_path)
    again = MemorizationPipeline.from_pretrained(tmp_path)
    assert torch.equal(
        call(again, prompts, 1, mitigation=plain()), call(pipe, prompts, 1, mitigation=plain())
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("kind", "prediction_type"), [("ddim", "epsilon"), ("euler", "v_prediction")]
)
def test_half_precision_end_to_end(make_pipe, prompts, dtype, kind, prediction_type, name):
    """Finite pictures; the sampler's latents keep the dtype; the adjustment itself is reported in
    float32.
    """
    pipe = make_pipe(kind, prediction_type, dtype=dtype)
    method = quick(name)
    made = sample_batch(
        pipe,
        Batch.of_captions(prompts[:2]),
        initial_noise([1, 2], SHAPE).to(dtype),
        method,
        num_inference_steps=4,
        guidance_scale=3.0,
    )
    assert made.final.dtype == dtype
    assert torch.isfinite(made.final).all()
    assert all(values.dtype != dtype for values in made.numbers.values())
    assert torch.isfinite(pipe.decode(made.final)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_v_model_in_bfloat16_stays_as_close_to_float32_as_diffusers_does(make_pipe, prompts, dtype):
    """Converting to epsilon and back may not cost precision: at most 1.5 times diffusers' own
    distance to the float32 latents, plus 1e-5.
    """
    exact = call(make_pipe("euler", "v_prediction", cls=StableDiffusionPipeline), prompts, 2)
    own = call(
        make_pipe("euler", "v_prediction", dtype=dtype, cls=StableDiffusionPipeline), prompts, 2
    ).float()
    ours = call(
        make_pipe("euler", "v_prediction", dtype=dtype), prompts, 2, mitigation=plain()
    ).float()
    assert float((ours - exact).norm()) < 1.5 * float((own - exact).norm()) + 1e-5 * float(
        exact.norm()
    )


@pytest.mark.parametrize(
    ("output_type", "check"),
    [
        ("latent", lambda images: images.shape == (2, *SHAPE)),
        ("np", lambda images: images.shape == (2, 32, 32, 3)),
        ("pt", lambda images: images.shape == (2, 3, 32, 32)),
        ("pil", lambda images: images[1].size == (32, 32)),
    ],
)
def test_output_types(pipe, prompts, output_type, check):
    made = pipe(
        prompts[0],
        mitigation=build_mitigation("batch_wise", rho=5.0, apply_cfg_step=0),
        num_images_per_prompt=2,
        num_inference_steps=2,
        output_type=output_type,
        **SIZE,
    )
    assert check(made.images)
    assert made.nsfw_content_detected is None


def test_size_defaults_to_the_models_and_tuple_is_returned_on_request(pipe, prompts):
    images, nsfw = pipe(
        prompts[:1],
        mitigation=plain(),
        num_inference_steps=1,
        output_type="latent",
        return_dict=False,
    )
    assert images.shape == (1, 4, 16, 16)
    assert nsfw is None


@pytest.mark.parametrize("unknown", ["callback_on_step_end", "guidance_rescale", "no_such_thing"])
def test_an_argument_that_a_mitigated_run_does_not_take_raises(pipe, prompts, unknown):
    with pytest.raises(TypeError, match=unknown):
        pipe(prompts[0], mitigation=plain(), **{unknown: None})


def test_settings_without_a_guided_step_are_refused(pipe, prompts, noise):
    with pytest.raises(ValueError, match="apply_cfg_step 4 leaves no step with guidance"):
        sample(pipe, prompts, noise, build_mitigation("batch_wise"), 5)


def test_a_method_is_told_whose_images_it_sees(pipe, prompts, noise, monkeypatch):
    """Seeds of images and prompts as given, or made up by position; images of a prompt form a
    group.
    """
    method, seen = plain(), []
    monkeypatch.setattr(
        type(method),
        "edit_prompts",
        lambda self, batch: seen.append(batch) or batch.prompts,
        raising=False,
    )
    two = [prompts[0], prompts[1], prompts[0]]
    sample(pipe, two, noise, method, 1, seeds=[5, 6, 7], alternatives=[("a",), (), ("b",)])
    assert (
        seen[0].seeds == [5, 6, 7]
        and seen[0].alternatives == [("a",), (), ("b",)]
        and seen[0].model is pipe
    )
    assert [group.tolist() for group in seen[0].groups()] == [[0, 2], [1]]


def test_a_plain_run_inside_a_method_is_the_unmitigated_run(
    euler_pipe, prompts, noise, monkeypatch
):
    """Same latents, its rows counted, and the scheduler goes on as if it had not been."""
    method, found = build_mitigation("batch_wise", gamma=0.0, apply_cfg_step=-1), []
    expected = sample(euler_pipe, prompts, noise, plain(), 3)
    monkeypatch.setattr(
        type(method),
        "edit_embeddings",
        lambda self, predictor, x, t, batch: found.append(batch.plain_run()) or {},
        raising=False,
    )
    made = sample(euler_pipe, prompts, noise, method, 3)
    assert torch.equal(found[0], expected.final) and torch.equal(made.final, expected.final)
    assert (made.unet_evals == 2 * expected.unet_evals + 8).all()


def test_a_batch_can_be_sampled_again(pipe, prompts, noise):
    """What one method leaves for its own hooks is not seen by the next."""
    batch = Batch.of_captions(prompts)
    method = build_mitigation("random_tokens+per_sample", target_loss=1000.0)
    made = sample_batch(pipe, batch, noise, method, num_inference_steps=3, guidance_scale=7.0)
    assert "tokens_lost" in made.numbers and batch == Batch.of_captions(prompts)
    again = sample_batch(pipe, batch, noise, plain(), num_inference_steps=3, guidance_scale=7.0)
    expected = sample(pipe, prompts, noise, plain(), 3)
    assert torch.equal(again.final, expected.final) and again.numbers == {}
    assert torch.equal(again.unet_evals, expected.unet_evals)
