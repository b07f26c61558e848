"""The compiled UNet serves calls of one size, and only a UNet as it was."""

import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.sampling import Batch
from memorization_suite.sampling.denoiser import Unusable
from memorization_suite.sampling.sample import noise_of, sample

CAPTION = "Okoro Review: One Ancient Tent Too Many"
STEPS = 3


@pytest.fixture
def calls(monkeypatch):
    """Rows of each call of what torch.compile gives: here the UNet itself."""
    rows = []

    def compiled(network, dynamic):
        assert dynamic is False

        def call(x, *args, **options):
            rows.append(len(x))
            return network(x, *args, **options)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    return rows


def compile_tiny(model, calls, rows: int = 4) -> None:
    """Compiles, which is tried once."""
    model.compile_for(rows, 32, STEPS)
    assert calls == [rows]
    calls.clear()


def sampled(model, method: str = "no_mitigation", images: int = 2, **settings) -> torch.Tensor:
    """Final latents of a caption's images."""
    batch = Batch.of_captions([CAPTION] * images)
    noise = noise_of(model, batch, model.native_size)
    options = {"num_inference_steps": STEPS, "guidance_scale": 7.0}
    return sample(model, batch, noise, build_mitigation(method, **settings), **options).final


def test_full_batches_are_compiled_and_smaller_ones_are_not(calls):
    model = load_pipeline("tiny")
    plain = sampled(model)
    compile_tiny(model, calls)
    assert sampled(model).equal(plain)
    assert calls == [4] * STEPS
    sampled(model, images=1)
    assert calls == [4] * STEPS


def test_half_of_the_guidance_runs_as_it_is(calls):
    model = load_pipeline("tiny")
    compile_tiny(model, calls)
    sampled(model, "batch_wise", adj_iters=1, apply_cfg_step=0)
    assert calls == [4] * (2 + STEPS - 1)


def test_derivatives_run_as_they_are(calls):
    model = load_pipeline("tiny")
    compile_tiny(model, calls)
    sampled(model, "per_sample", optim_iters=1, target_loss=1e-9)
    # The last evaluation has no gradient; it serves as step 0.
    assert calls == [4] * STEPS


@pytest.mark.parametrize("method", ["ca_attenuation", "nemo"])
def test_a_patched_unet_runs_as_it_is(calls, method):
    model = load_pipeline("tiny")
    settings = {"neurons": "tiny/weights/tiny/neurons.json"} if method == "nemo" else {}
    patched = sampled(model, method, **settings)
    compile_tiny(model, calls)
    assert sampled(model, method, **settings).equal(patched)
    assert not calls
    sampled(model)
    assert calls == [4] * STEPS


def test_another_size_is_compiled_anew_and_the_same_is_not(calls):
    model = load_pipeline("tiny")
    model.compile_for(4, 32, STEPS)
    first = model.compiled
    model.compile_for(4, 32, STEPS)
    assert model.compiled is first
    model.compile_for(2, 32, STEPS)
    assert model.compiled.size == (2, 4, 16, 16)


def test_a_compiler_that_is_not_there_is_said(monkeypatch):
    def compiled(network, dynamic):
        def call(*args, **options):
            raise RuntimeError("no C++ compiler\nand a long story")

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    model = load_pipeline("tiny")
    with pytest.raises(Unusable, match=r"not possible here \(RuntimeError: no C\+\+ compiler\)"):
        model.compile_for(4, 32, STEPS)
    assert model.compiled is None


@pytest.mark.slow
def test_a_compiled_unet_gives_the_same_to_rounding():
    model = load_pipeline("tiny")
    plain = sampled(model)
    model.compile_for(4, 32, STEPS)
    assert torch.allclose(sampled(model), plain, atol=1e-3)
