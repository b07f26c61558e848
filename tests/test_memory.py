"""Passes within limits give what whole passes give; gradients with checkpointing are the same bits;
what does not fit is tried in smaller passes, and noted. Bytes are counted without a GPU, for
Stable Diffusion 1.4's own size too.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from memorization_suite.detection import build_detector
from memorization_suite.detection.sharpness import directional
from memorization_suite.detection.tokens import token_significance
from memorization_suite.detection.trajectory import detect
from memorization_suite.mitigation import build_mitigation
from memorization_suite.mitigation.nemo.method import scaled_values
from memorization_suite.pipelines.stable_diffusion import denoiser
from memorization_suite.sampling import Batch, Conditioning, NoisePredictor, memory
from memorization_suite.sampling.denoiser import Unusable
from memorization_suite.sampling.gradients import Parts
from memorization_suite.sampling.memory import (
    GIB,
    Limits,
    choose_limits,
    counted_storages,
    held_bytes,
    pass_bytes,
    peak_bytes,
)
from memorization_suite.sampling.passes import items_in_pass
from memorization_suite.tiny.models import build_scheduler
from tests.methods.helpers import relative, sample
from tests.models import predictor_for

MIB = 2**20
T = 981
SMALL = Limits(forward=2, backward=2)


@pytest.fixture
def limited(pipe):
    """limited(Limits): the random model with these limits."""

    def make(limits: Limits):
        model = pipe.fork()
        model.limits = limits
        return model

    return make


# --- limits ---


def test_limits_are_written():
    assert Limits(20, 8).as_dict() == {"forward": 20, "backward": 8}
    assert Limits().as_dict() == {"forward": None, "backward": None}


@pytest.mark.parametrize(("forward", "rows"), [(None, [6]), (1, [2, 2, 2]), (4, [4, 2]), (6, [6])])
def test_forward_passes_are_split_by_images(limited, noise, prompts, forward, rows):
    """Both halves of an image are in one pass, which knows what its rows are."""
    whole = predictor_for(limited(Limits()), prompts)
    predictor = predictor_for(limited(Limits(forward=forward)), prompts)
    seen = []

    def see(name, probs):
        call = predictor.call
        seen.append((len(probs), call.rows_of("text").sum().item(), call.images.tolist()))

    names = predictor.model.attention_names()[:1]
    with torch.no_grad():
        together = whole.conditional_noise(noise, T)
        with predictor.model.open_attention(names, see=see):
            parts = predictor.conditional_noise(noise, T)
    torch.testing.assert_close(parts, together, rtol=0, atol=1e-4)
    assert [count for count, _, _ in seen] == rows
    assert all(2 * text == count for count, text, _ in seen)
    assert sum((images for _, _, images in seen), []) == [0, 1, 2]
    assert predictor.unet_evals.tolist() == [2, 2, 2] and not predictor.smaller_passes()


@pytest.mark.parametrize(
    ("items", "rows", "limit", "together"),
    [
        (10, 2, None, 10),
        (10, 2, 20, 10),
        (10, 2, 19, 5),
        (10, 2, 12, 5),
        (10, 2, 8, 4),
        (3, 2, 1, 1),
        (0, 2, 4, 0),
    ],
)
def test_passes_are_few_and_of_one_size(items, rows, limit, together):
    """So that a network that is compiled for one size runs as such."""
    assert items_in_pass(items, rows, limit) == together


def test_ten_images_in_a_limit_of_six_go_five_by_five(limited, noise, prompts):
    predictor = predictor_for(limited(Limits(forward=12)), [*prompts * 3, prompts[0]])
    sizes = []
    names = predictor.model.attention_names()[:1]

    def see(name, probs):
        sizes.append(len(probs))

    with torch.no_grad(), predictor.model.open_attention(names, see=see):
        predictor.conditional_noise(torch.cat([*[noise] * 3, noise[:1]]), T)
    assert sizes == [10, 10]


LOOKING = ["bright_ending", "attention_entropy", "layer_entropy"]


def test_detectors_that_keep_attention_are_right_in_parts(limited, noise, prompts):
    found = []
    for limits in (Limits(), SMALL):
        model = limited(limits)
        model.set_timesteps(5)
        detectors = [build_detector(name) for name in LOOKING]
        predictor = predictor_for(model, prompts)
        made = detect(detectors, predictor, noise, Batch.of_captions(prompts), 7.0)
        found.append(made.results)
    for name, whole, parts in zip(LOOKING, *found):
        torch.testing.assert_close(parts.scores, whole.scores, rtol=1e-3, atol=1e-4, msg=name)
        assert torch.equal(parts.rows, whole.rows), name


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cross_attention", {}),
        ("ca_attenuation", {}),
        ("clip_padding", {"mask_by": "attention"}),
        ("guard", {}),
        ("prss", {"l_target_ss": 0.1, "l_target_pr": 0.2}),
    ],
)
def test_patches_are_right_in_parts(limited, noise, prompts, name, settings):
    method = build_mitigation(name, **settings)
    alternatives = {"alternatives": [(), (prompts[0],), (prompts[2], prompts[1])]}
    whole = sample(limited(Limits()), prompts, noise, method, 2, **alternatives)
    parts = sample(limited(SMALL), prompts, noise, method, 2, **alternatives)
    assert relative(parts.final, whole.final) < 1e-4
    assert torch.equal(parts.unet_evals, whole.unet_evals)


# --- gradients ---


def gradient_of(model, prompts, noise, patch) -> tuple[torch.Tensor, list[int], list[str]]:
    """Of the magnitudes by x and by the tokens; NFE; layers that were seen."""
    predictor = predictor_for(model, prompts)
    x = noise.clone().requires_grad_()
    tokens = predictor.tokens("text").clone().requires_grad_()
    predictor.set_tokens("text", tokens)
    seen = []
    with model.frozen(), patch(predictor, seen):
        magnitude = predictor.at(x, T).magnitude()
        # As methods do with a second evaluation before the gradient is taken.
        predictor.select(torch.tensor([1])).at(noise[:1], T).need("uncond")
        gradients = torch.autograd.grad(magnitude.sum(), (x, tokens))
    return torch.cat([each.flatten() for each in gradients]), predictor.unet_evals.tolist(), seen


def plain(predictor, seen):
    names = predictor.model.attention_names()
    return predictor.model.open_attention(names, see=lambda name, probs: seen.append(name))


def attenuated(predictor, seen):
    return build_mitigation("ca_attenuation").patch(predictor, Batch.of_captions([""] * 3))


def padded(predictor, seen):
    method = build_mitigation("clip_padding", mask_by="attention", mask_padding=0.5)
    batch = Batch.of_captions(["a red square", "a", "the great wave and two cats"])
    return method.patch(predictor, batch)


def blocked(predictor, seen):
    model = predictor.model
    name = model.attention_names()[0]
    factors = torch.rand((3, model.value_projection(name).out_features))
    return scaled_values(model, {name: factors}, predictor.call.image_of_row)


@pytest.mark.parametrize("patch", [plain, attenuated, padded, blocked])
def test_checkpointing_changes_no_bit_of_a_gradient(limited, noise, prompts, patch):
    """Nor NFE; attention is shown once; the network is as before."""
    made = []
    for limits in (Limits(), Limits(backward=6)):
        torch.manual_seed(0)
        model = limited(limits)
        made.append(gradient_of(model, prompts, noise, patch))
    (whole, evals, seen), (parts, evals_again, seen_again) = made
    assert torch.equal(parts, whole) and whole.any()
    assert evals_again == evals == [2, 3, 2]
    assert seen_again == seen
    assert not any("forward" in vars(module) for module in model.unet.modules())


def test_checkpointing_keeps_less(limited, noise, prompts):
    """And computes again: the blocks run twice."""
    peaks = {}
    calls = {}
    for limits in (Limits(), Limits(backward=6)):
        model = limited(limits)
        ran = []
        block = model.unet.mid_block.resnets[0].conv1
        handle = block.register_forward_hook(lambda *of_call, ran=ran: ran.append(1))

        def differentiate(model=model):
            gradient_of(model, prompts, noise, attenuated)

        peaks[limits] = peak_bytes("cpu", differentiate)
        handle.remove()
        calls[limits] = len(ran)
    assert peaks[Limits(backward=6)] < 0.7 * peaks[Limits()]
    assert calls == {Limits(): 2, Limits(backward=6): 3}


GRADIENTS = {
    "per_sample": {"lr": 0.05, "target_loss": 0.1, "optim_iters": 1},
    "sail": {"l_thres": 0.1, "max_steps": 2, "restarts": 0},
    "prompt_embedding": {"optim_target_loss": 0.1, "optim_iters": 1},
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_methods_with_limits_do_what_they_do_without(limited, noise, prompts, name):
    method = build_mitigation(name, **GRADIENTS[name])
    whole = sample(limited(Limits()), prompts, noise, method, 1, seeds=[4, 5, 6])
    parts = sample(limited(SMALL), prompts, noise, method, 1, seeds=[4, 5, 6])
    assert relative(parts.final, whole.final) < 1e-3
    assert torch.equal(parts.unet_evals, whole.unet_evals)
    assert parts.numbers.keys() == whole.numbers.keys()


def test_rows_that_were_asked_for_count_more_than_limits(limited, prompts):
    """Without them a part has as many rows as its gradient may keep, at least one."""
    limit = predictor_for(limited(Limits(backward=5)), prompts)
    free = predictor_for(limited(Limits()), prompts)
    assert [Parts(limit, asked, kept=2).size for asked in (0, 1, 3)] == [2, 1, 3]
    assert [Parts(free, asked, kept=2).size for asked in (0, 1, 3)] == [None, 1, 3]
    assert Parts(limit, 0, kept=8).size == 1


def test_nothing_of_a_graph_outlives_its_part(limited, noise, prompts):
    """More images in parts of one take no more memory than one, but for their latents."""
    method = build_mitigation("sail", l_thres=0.1, max_steps=2, restarts=0, grad_rows=1)
    peaks = []
    for n in (1, 2):
        model = limited(Limits(forward=2))
        chosen = (prompts[:n], noise[:n])

        def run(model=model, chosen=chosen):
            sample(model, *chosen, method, 1)

        with counted_storages() as count:
            run()
        assert count.live < 1 * MIB
        peaks.append(count.peak)
    assert peaks[1] < 1.2 * peaks[0]


def test_significance_and_products_with_limits(limited, noise, prompts):
    found = []
    for limits in (Limits(), SMALL):
        model = limited(limits)
        model.set_timesteps(2)
        predictor = predictor_for(model, prompts)
        with torch.no_grad():
            product = directional(predictor, noise, T, noise.flip(0))
        scores = token_significance(predictor_for(model, prompts), noise, 7.5, num_steps=1)
        found.append((product, scores, predictor.unet_evals.tolist()))
    assert relative(found[1][0], found[0][0]) < 1e-4
    assert relative(found[1][1], found[0][1]) < 1e-4
    assert found[1][2] == found[0][2] == [2, 2, 2]


# --- when it does not suffice after all ---


def short_of_memory(model, *, most: int, gradients: bool) -> list[int]:
    """From now on calls of the network with more rows fail, those with gradients when one is taken.

    Returns the rows of those that did.
    """
    failed = []
    predict = model.predict

    def scarce(x, t, conditioning):
        def fail(*gradient):
            failed.append(len(x))
            raise torch.OutOfMemoryError("CUDA out of memory.")

        is_large = len(x) > most and torch.is_grad_enabled() == gradients
        if is_large and not gradients:
            fail()
        output = predict(x, t, conditioning)
        if is_large:
            output.register_hook(fail)
        return output

    vars(model)["predict"] = scarce
    return failed


def test_a_forward_pass_that_does_not_fit_is_tried_in_halves(limited, noise, prompts):
    model = limited(Limits())
    whole = sample(model, prompts, noise, build_mitigation("no_mitigation"), 3)
    failed = short_of_memory(model, most=2, gradients=False)
    parts = sample(model, prompts, noise, build_mitigation("no_mitigation"), 3)
    assert failed == [6, 4]  # once in a batch
    assert relative(parts.final, whole.final) < 1e-4
    assert parts.unet_evals.tolist() == whole.unet_evals.tolist() == [6, 6, 6]
    assert "forward_rows" not in whole.numbers
    assert parts.numbers["forward_rows"].tolist() == [2, 2, 2]


def test_a_gradient_that_does_not_fit_is_tried_in_halves(limited, noise, prompts):
    """Noted for the images of the smaller passes alone: the first image is done at once."""
    method = build_mitigation("per_sample", lr=0.05, target_loss=0.1, optim_iters=1)
    model = limited(Limits())
    whole = sample(model, prompts, noise, method, 1)
    failed = short_of_memory(model, most=4, gradients=True)
    parts = sample(model, prompts, noise, method, 1)
    assert failed == [6]
    assert relative(parts.final, whole.final) < 1e-3
    assert torch.equal(parts.unet_evals, whole.unet_evals)
    assert parts.numbers["grad_rows"].tolist() == [2, 2, 2]
    assert parts.numbers.keys() - whole.numbers.keys() == {"grad_rows"}


PAIR_AND_ONE = [torch.tensor([0, 2]), torch.tensor([1])]


def significance(model, prompts, noise, **settings) -> tuple[torch.Tensor, NoisePredictor]:
    """Of one step."""
    model.set_timesteps(2)
    predictor = predictor_for(model, prompts)
    return token_significance(predictor, noise, 7.5, num_steps=1, **settings), predictor


@pytest.mark.parametrize("settings", [{}, {"official": "swapped", "groups": PAIR_AND_ONE}])
@pytest.mark.parametrize("limit", [2, None])
def test_significance_in_parts(limited, noise, prompts, settings, limit):
    """By a limit, or since memory does not suffice; images with one norm stay together."""
    whole, _ = significance(limited(Limits()), prompts, noise, **settings)
    model = limited(Limits(backward=limit))
    failed = short_of_memory(model, most=2, gradients=True)
    sizes = []
    predict = model.predict

    def counted(x, *told):
        if torch.is_grad_enabled():
            sizes.append(len(x))
        return predict(x, *told)

    vars(model)["predict"] = counted
    parts, predictor = significance(model, prompts, noise, **settings)
    assert relative(parts, whole) < 1e-4
    assert predictor.unet_evals.tolist() == [2, 2, 2]
    if limit is None:
        assert failed == [3] and sizes == [3, 2, 1]
        assert predictor.smaller_passes()["grad_rows"].isfinite().all()
    else:
        assert failed == [] and sizes == [2, 1]
        assert not predictor.smaller_passes()


@pytest.mark.parametrize("gradients", [False, True])
def test_one_image_that_does_not_fit_is_an_error(limited, noise, prompts, gradients):
    model = limited(Limits())
    short_of_memory(model, most=1, gradients=gradients)
    method = build_mitigation("prompt_embedding", optim_target_loss=0.1, optim_iters=1)
    if gradients:
        short_of_memory(model, most=0, gradients=True)
    with pytest.raises(torch.OutOfMemoryError):
        sample(model, prompts, noise, method, 1)


# --- decoding ---


def test_the_vae_takes_a_few_images_at_once(pipe, noise, monkeypatch):
    """Here two of 32 pixels; the pictures are the same."""
    whole = pipe.decode(noise)
    images = whole * 2 - 1
    latents = pipe.encode_images(images)
    sizes = []
    decode = pipe.vae.decode

    def counted(part, **options):
        sizes.append(len(part))
        return decode(part, **options)

    monkeypatch.setattr(pipe.vae, "decode", counted)
    monkeypatch.setattr(denoiser, "VAE_PIXELS", 2 * 32 * 32)
    torch.testing.assert_close(pipe.decode(noise), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(pipe.encode_images(images), latents, rtol=0, atol=1e-4)
    assert sizes == [2, 1]
    monkeypatch.setattr(denoiser, "VAE_PIXELS", 1)
    pipe.decode(noise)
    assert sizes[2:] == [1, 1, 1]


# --- bytes, and what is chosen by them ---


def test_storages_are_counted_once_while_they_live():
    held = torch.zeros(2 * MIB, dtype=torch.uint8)

    def allocate():
        a = torch.ones(3 * MIB, dtype=torch.uint8)
        views = [a[1:], held[1:], held.view(2, -1).t()]
        del a
        b = torch.ones(5 * MIB, dtype=torch.uint8)
        del views, b
        return torch.ones(MIB, dtype=torch.uint8)

    assert peak_bytes("cpu", allocate) == 8 * MIB


def test_a_cpu_has_no_limits_unless_a_budget_is_given(pipe):
    assert choose_limits(pipe, 32, None) == Limits()


@pytest.fixture(scope="module")
def measured(make_pipe):
    """Bytes of one image's evaluation, by whether a gradient is taken."""
    return {gradient: pass_bytes(make_pipe(), 32, gradient=gradient) for gradient in (False, True)}


@pytest.fixture
def measured_once(monkeypatch, measured):
    """What is measured for limits is known."""

    def known(model, image_length, steps, *, gradient):
        return measured[gradient]

    monkeypatch.setattr(memory, "pass_bytes", known)


def test_the_probe_leaves_everything_alone_and_repeats(pipe, measured):
    """The model, its sampler and the random numbers."""
    pipe.set_timesteps(7)
    state = torch.get_rng_state()
    needs = [parameter.requires_grad for parameter in pipe.unet.parameters()]
    processors = dict(pipe.unet.attn_processors)
    assert pass_bytes(pipe, 32, gradient=True) == measured[True] > measured[False]
    assert torch.equal(torch.get_rng_state(), state)
    assert len(pipe.scheduler.timesteps) == 7
    assert [parameter.requires_grad for parameter in pipe.unet.parameters()] == needs
    assert pipe.unet.attn_processors == processors
    assert pipe.limits == Limits()


def test_limits_grow_with_the_budget(pipe, measured_once):
    held = held_bytes(pipe) / GIB
    small, large = (choose_limits(pipe, 32, budget) for budget in (0.05, 0.5))
    assert 2 <= small.backward < small.forward < large.forward
    assert large.backward / small.backward == pytest.approx(
        (0.9 * 0.5 - held) / (0.9 * 0.05 - held), rel=0.1
    )


def test_what_was_chosen_stays_within_the_budget(limited, noise, prompts, measured_once):
    """Sampling and gradients of twelve images, in a budget for a few."""
    model = limited(Limits())
    budget = (held_bytes(model) + 5 * MIB) / GIB / 0.9
    model.limits = choose_limits(model, 32, budget)
    assert model.limits.backward < 24, "the budget limits nothing"
    method = build_mitigation("per_sample", lr=0.05, target_loss=0.1, optim_iters=1)
    peak = peak_bytes(
        "cpu", lambda: sample(model, prompts * 4, noise.repeat(4, 1, 1, 1), method, 1)
    )
    assert held_bytes(model) + peak < budget * GIB


def test_too_small_a_budget_says_what_is_possible(pipe, measured_once):
    with pytest.raises(Unusable, match=r"--memory_budget 0\.001 is too little .* takes") as error:
        choose_limits(pipe, 32, 0.001)
    least = float(str(error.value).split("takes ")[1].split(" GiB")[0])
    limits = choose_limits(pipe, 32, least)
    assert limits.backward >= 2 and limits.forward >= 2


# --- Stable Diffusion 1.4's own size, without its bytes ---

UNET = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
VAE = {
    "sample_size": 512,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
# Its text encoder, in bfloat16.
TEXT_MIB = 235


class FakeStableDiffusion(denoiser.StableDiffusionDenoiser):
    """Stable Diffusion 1.4 without its text encoder. Made where tensors have no bytes."""

    device = torch.device("cpu")
    _execution_device = "cpu"
    vae_scale_factor = 8

    def __init__(self):
        import diffusers

        torch.set_default_dtype(torch.bfloat16)
        try:
            self.unet = diffusers.UNet2DConditionModel(**UNET).eval().requires_grad_(False)
            self.vae = diffusers.AutoencoderKL(**VAE).eval()
        finally:
            torch.set_default_dtype(torch.float32)
        self.scheduler = build_scheduler("ddim", "epsilon")

    def encode(self, prompts, *, padding=None):
        return Conditioning(torch.empty(len(prompts), 77, 768, dtype=torch.bfloat16))

    def evaluate(self, images: int, limits: Limits, *, gradient: bool) -> None:
        """Magnitudes, as methods look at them."""
        self.limits = limits
        told = self.encode([""] * images)
        x = torch.zeros(images, 4, 64, 64, requires_grad=gradient)
        with torch.set_grad_enabled(gradient):
            magnitude = NoisePredictor(self, told, told).at(x, T).magnitude()
        if gradient:
            torch.autograd.grad(magnitude, x, torch.ones_like(magnitude))


@pytest.mark.slow
def test_the_bytes_of_stable_diffusion(monkeypatch):
    """Ten images of 512 pixels in bfloat16, counted. Shown with pytest -s; goals are MiB in all."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = FakeStableDiffusion()
        held = held_bytes(model) + TEXT_MIB * MIB
        latents = torch.zeros(10, 4, 64, 64)

        def total(function) -> float:
            return (held + peak_bytes("cpu", function)) / MIB

        plain, limited = Limits(), Limits(backward=20)
        figures = {
            "the model": held / MIB,
            "sampling": total(lambda: model.evaluate(10, plain, gradient=False)),
            "decoding in slices": total(lambda: model.decode(latents)),
            "per-sample, checkpointed": total(lambda: model.evaluate(10, limited, gradient=True)),
            "per-sample, whole": total(lambda: model.evaluate(10, plain, gradient=True)),
        }
        monkeypatch.setattr(denoiser, "VAE_PIXELS", 10 * 512 * 512)
        figures["decoding at once"] = total(lambda: model.decode(latents))
        chosen = choose_limits(model, 512, 8)
    for name, value in figures.items():
        print(f"{name}: {value:.0f} MiB")
    print(f"limits for 8 GiB: {chosen}")
    assert figures["sampling"] < 4452 and figures["decoding in slices"] < 4452
    assert figures["per-sample, checkpointed"] < 5788 < figures["per-sample, whole"]
    assert figures["decoding in slices"] < 0.6 * figures["decoding at once"]
    assert chosen.forward > 40 and chosen.backward >= 20
