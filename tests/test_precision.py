"""Derivatives of networks of half precision: forward mode is float32 throughout, reverse mode is of
the network's dtype and close to float32.
"""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch.utils._python_dispatch import TorchDispatchMode

from memorization_suite.detection import build_detector
from memorization_suite.detection.sharpness import directional
from memorization_suite.detection.spectrum import KINDS, ScoreJacobian
from memorization_suite.detection.tokens import token_significance
from memorization_suite.detection.trajectory import detect
from memorization_suite.mitigation import build_mitigation
from memorization_suite.pipelines.stable_diffusion.attention import OpenAttention
from memorization_suite.sampling import Batch
from tests.methods.helpers import relative, sample
from tests.models import predictor_for

HALVES = [torch.bfloat16, torch.float16]
# How far a derivative of the random model may be from that in float32, relatively.
TOLERANCE = {torch.bfloat16: 0.1, torch.float16: 0.02}
T = 981


@pytest.fixture(scope="module")
def half_pipes(make_pipe):
    """dtype -> the random model in it."""
    return {dtype: make_pipe(dtype=dtype) for dtype in HALVES}


@pytest.fixture(scope="module")
def rounded_pipes(make_pipe, components, half_pipes):
    """dtype -> the same weights in float32."""
    rounded = {}
    for dtype in HALVES:
        pipe = make_pipe(dtype=dtype)
        rounded[dtype] = pipe.to(dtype=torch.float32)
    return rounded


def exact_copy(predictor, rounded):
    """A predictor of a float32 model that is told what the predictor's model is told."""
    copy = predictor_for(rounded, [""] * len(predictor.images))
    told = predictor.conditioning.items()
    copy.conditioning = {half: one.each(torch.Tensor.float) for half, one in told}
    return copy


class NoHalf(TorchDispatchMode):
    """Counts what torch computes with numbers of half precision, but for their conversion."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tensors = [each for each in (*args, made) if isinstance(each, torch.Tensor)]
        if function is not torch.ops.aten._to_copy.default:
            self.seen |= {str(function) for each in tensors if each.dtype in HALVES}
        return made


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_forward_mode_is_that_of_a_float32_model_with_the_same_weights(
    half_pipes, rounded_pipes, noise, prompts, dtype
):
    """Bit for bit, and the network has its own tensors again."""
    pipe = half_pipes[dtype]
    predictor = predictor_for(pipe, prompts)
    exact = exact_copy(predictor, rounded_pipes[dtype])
    places = [parameter.data_ptr() for parameter in pipe.unet.parameters()]
    v = torch.randn(noise.shape, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        x = noise.to(dtype)
        product = directional(predictor, x.float(), T, v)
        assert torch.equal(product, directional(exact, x.float(), T, v))
        with NoHalf() as watch:
            directional(predictor, x.float(), T, v)
    assert product.dtype == torch.float32 and product.any()
    assert watch.seen <= {"aten.detach.default", "aten.alias.default"}
    assert [parameter.data_ptr() for parameter in pipe.unet.parameters()] == places
    assert {parameter.dtype for parameter in pipe.unet.parameters()} == {dtype}
    assert predictor.unet_evals.tolist() == [4, 4, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_both_products_of_a_spectrum_are_float32(half_pipes, rounded_pipes, noise, prompts, kind):
    """Bit for bit as of a float32 model with the same weights."""
    dtype = torch.bfloat16
    predictor = predictor_for(half_pipes[dtype], prompts)
    exact = exact_copy(predictor, rounded_pipes[dtype])
    v = torch.randn(3, noise[0].numel(), generator=torch.Generator().manual_seed(3)).double()
    ours, theirs = (ScoreJacobian(each, noise, T, kind) for each in (predictor, exact))
    assert torch.equal(ours.times(v), theirs.times(v))
    assert torch.equal(ours.transposed(v), theirs.transposed(v))


def test_the_network_is_as_before_after_an_exception(half_pipes):
    pipe = half_pipes[torch.bfloat16]
    before = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), pipe.in_float32():
        assert pipe.dtype == torch.float32
        raise RuntimeError("stop")
    after = pipe.unet.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(after[name].dtype == before[name].dtype for name in before)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_sharpness_in_half_precision(half_pipes, pipe, noise, prompts, dtype):
    scores = []
    for model in (half_pipes[dtype], pipe):
        model.set_timesteps(4)
        predictor = predictor_for(model, prompts)
        detector = build_detector("sharpness")
        batch = Batch.of_captions(prompts)
        made = detect([detector], predictor, noise.to(model.dtype), batch, 7.5)
        scores.append(made.results[0].scores)
    torch.testing.assert_close(scores[0], scores[1], rtol=2 * TOLERANCE[dtype], atol=0)
    assert detector.derivatives("bf16") == "fp32"
    assert build_detector("sharpness", product="finite").derivatives("bf16") == ""


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_significance_of_tokens_in_half_precision(half_pipes, pipe, noise, prompts, dtype):
    found = []
    for model in (half_pipes[dtype], pipe):
        model.set_timesteps(2)
        predictor = predictor_for(model, prompts)
        found.append(token_significance(predictor, noise.to(model.dtype), 7.5, num_steps=1))
    assert relative(found[0], found[1]) < TOLERANCE[dtype]


# What one update moves, and the flags that make it one.
METHODS = {
    "per_sample": {"lr": 0.05, "target_loss": 0.1, "optim_iters": 1},
    "sail": {"l_thres": 0.1, "max_steps": 2, "restarts": 0},
    "prompt_embedding": {"optim_target_loss": 0.1, "optim_iters": 1},
    "anisotropy_embedding": {"optim_target_loss": -9.0, "optim_iters": 1},
    "bright_ending_embedding": {"optim_target_loss": 0.01, "optim_iters": 1},
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_optimize_in_half_precision(half_pipes, pipe, noise, prompts, name):
    """Finite, one update, and the losses after it are close to those in float32."""
    method = build_mitigation(name, **METHODS[name])
    steps = 3 if name == "anisotropy_embedding" else 1
    full = sample(pipe, prompts[:1], noise[:1], method, steps)
    for dtype, model in half_pipes.items():
        half = sample(model, prompts[:1], noise[:1].to(dtype), method, steps)
        assert half.final.isfinite().all() and half.numbers["iterations"].tolist() == [1]
        assert not half.numbers["failed"].any()
        for figure in {"first_magnitude", "last_loss", "loss"} & full.numbers.keys():
            ours, theirs = half.numbers[figure].float(), full.numbers[figure].float()
            torch.testing.assert_close(ours, theirs, rtol=2 * TOLERANCE[dtype], atol=0.02)
    assert method.derivatives("bf16") == "bf16"


def test_a_method_without_derivatives_names_no_precision():
    assert build_mitigation("cross_attention").derivatives("bf16") == ""


def test_open_attention_of_large_queries_does_not_overflow():
    """In fp16 the product of two rows of 64 x 40 numbers is infinite before it is scaled."""
    attention = Attention(query_dim=40, cross_attention_dim=40, heads=1, dim_head=40).half()
    attention.eval().requires_grad_(False)
    attention.to_q.weight.copy_(torch.eye(40))
    attention.to_k.weight.copy_(torch.eye(40))
    rows = torch.full((1, 2, 40), 64.0, dtype=torch.float16)
    assert (rows @ rows.transpose(1, 2)).isinf().all()
    seen = []
    look = OpenAttention("mid", see=lambda name, probs: seen.append(probs))
    mixed = look(attention, rows, encoder_hidden_states=rows)
    assert torch.equal(seen[0], torch.full((1, 1, 2, 2), 0.5))
    assert mixed.isfinite().all()
