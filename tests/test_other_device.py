"""Every method, detector and study on a device that is not the CPU: nothing stays behind there, and
the numbers are the CPU's. Methods and detectors in half precision, too.
"""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

import memorization_suite as suite
from memorization_suite.commands import calibrate, neurons
from memorization_suite.commands.spectrum import spectrum
from memorization_suite.commands.tokens import tokens
from memorization_suite.detection import DETECTORS, build_detector
from memorization_suite.detection.trajectory import detect
from memorization_suite.mitigation import METHODS, build_mitigation
from memorization_suite.mitigation.base import Adjustment, Mitigation
from memorization_suite.pipelines import loading
from memorization_suite.runs.tables import read_csv
from memorization_suite.sampling import Batch
from memorization_suite.sampling.noise import initial_noise, stream
from memorization_suite.sampling.sample import predictor_of
from tests.methods.helpers import sample
from tests.methods.pictures import FOLDER
from tests.methods.statistics_file import statistics_file
from tests.other_device import OTHER, on_other_device, other_device
from tests.test_methods import QUICK

STEPS = 2
# Of latents.
SIDE = 12
FRACTION = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
CAPTIONS = ["a red square above a blue circle", "the great wave"]


def neuron_file() -> str:
    """Path of a file with neurons of the captions."""
    layers = ("down_blocks.0", "mid_block", "up_blocks.1")
    names = [f"{layer}.attentions.0.transformer_blocks.0.attn2" for layer in layers]
    blocked = {caption: {name: [0, 5] for name in names} for caption in CAPTIONS}
    path = Path(FOLDER.name) / "neurons.json"
    path.write_text(json.dumps({"model": "", "settings": {}, "prompts": blocked}))
    return str(path)


# Where every image is moved, in few calls of the network.
MOVING = {
    "nemo": {"neurons": neuron_file()},
    "batch_wise": {"rho": 5.0, "apply_cfg_step": 0},
    "per_sample": {"lr": 0.05, "target_loss": 0.1, "optim_iters": 2},
    "sail": {"l_thres": 0.1, "max_steps": 2, "restarts": 0},
    "stability_regions": {"statistics": statistics_file(STEPS)},
    "prompt_embedding": {"optim_target_loss": 0.1, "optim_iters": 1},
    "anisotropy_embedding": {"optim_target_loss": -9.0, "optim_iters": 1},
    "bright_ending_embedding": {"optim_target_loss": 0.01, "optim_iters": 1},
}


@pytest.fixture(scope="module")
def here():
    """`tiny` with a smaller, random UNet, whose predictions listen to the prompt."""
    pipe = loading.load_pipeline("tiny", scheduler="ddim")
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        cross_attention_dim=128,
        attention_head_dim=(1, 2),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
    )
    for name, parameter in unet.requires_grad_(False).named_parameters():
        if name == "conv_out.weight":
            parameter.mul_(4.0)
        if "attn2.to_out" in name:
            parameter.mul_(60.0)
    pipe.register_modules(unet=unet.eval())
    return pipe


@pytest.fixture(scope="module")
def there(here):
    return on_other_device(here)


@pytest.fixture
def noise(here):
    return initial_noise([1, 2], here.latent_shape(2 * SIDE, 2 * SIDE))


def plain_attention():
    """As on the other device; the CPU's fused attention rounds differently."""
    return sdpa_kernel(SDPBackend.MATH)


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours.cpu(), theirs.cpu(), rtol=1e-4, atol=1e-4, equal_nan=True)


# --- the device itself ---


def test_what_cuda_allows():
    with other_device():
        x = torch.arange(6.0, device=OTHER).reshape(2, 3).requires_grad_()
        assert (x * torch.tensor(2.0)).device == OTHER
        assert x[torch.tensor([1, 0]), [0, 2]].tolist() == [3.0, 2.0]
        assert torch.tensor([1, 2], device=OTHER).tolist() == [1, 2]
        assert x.new_tensor([5.0]).item() == 5.0
        assert torch.zeros(2).copy_(x[:, 1].detach()).tolist() == [1.0, 4.0]
        (x.sum(1).square() * torch.ones(2).to(OTHER)).sum().backward()
        assert x.grad.device == OTHER and x.grad[1].tolist() == [24.0] * 3
        drawn = torch.randn(2, device=OTHER, generator=torch.Generator(OTHER).manual_seed(1))
        assert drawn.tolist() == torch.randn(2, generator=stream(1)).tolist()
        held = x.detach().cpu()
    assert type(held) is torch.Tensor and held.numpy().sum() == 15


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x + torch.ones(2),
        lambda x: torch.where(torch.tensor([True, False]), x, 0.0),
        lambda x: torch.zeros(2).add_(x),
        lambda x: torch.zeros(2)[x.long()],
        lambda x: x.index_select(0, torch.tensor([0])),
        lambda x: x.index_add_(0, torch.tensor([0]), x[:1]),
        lambda x: torch.equal(x, torch.ones(2)),
        lambda x: torch.cat([x, torch.ones(2)]),
        lambda x: torch.randn(2, device=x.device, generator=torch.Generator()),
        lambda x: x.normal_(generator=torch.Generator()),
        lambda x: torch.randn(2, generator=torch.Generator(x.device)),
    ],
)
def test_what_cuda_refuses(fault):
    with other_device(), pytest.raises(RuntimeError, match="same device|a generator of"):
        fault(torch.ones(2, device=OTHER))


def test_it_is_no_array():
    with other_device(), pytest.raises(TypeError, match="numpy"):
        torch.ones(2, device=OTHER).numpy()


class Forgetful(Mitigation):
    """Draws on the CPU, and forgets to move what it drew."""

    def adjust_initial_noise(self, predictor, x, t, batch):
        return Adjustment(x + torch.randn(x.shape, generator=stream(1)))


def test_a_method_that_leaves_a_tensor_on_the_cpu_is_found(here, there, noise):
    sample(here, CAPTIONS, noise, Forgetful(), 1)
    with other_device(), pytest.raises(RuntimeError, match="same device"):
        sample(there, CAPTIONS, noise.to(OTHER), Forgetful(), 1)


# --- the suite on it ---


def steps_of(name: str) -> int:
    """Sampling steps; these look at the third last."""
    return 3 if name.startswith("anisotropy") else STEPS


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_what_it_gives_on_the_cpu(here, there, noise, name):
    """NFE exactly; latents and the method's numbers to 1e-4."""
    method = build_mitigation(name, **(QUICK | MOVING).get(name, {}))
    total = steps_of(name)
    known = {"seeds": [1, 2], "prompt_seeds": [3, 4]}
    with plain_attention():
        expected = sample(here, CAPTIONS, noise, method, total, **known)
    with other_device():
        made = sample(there, CAPTIONS, noise.to(OTHER), method, total, **known)
        assert made.final.device == OTHER
        same(made.adjusted, expected.adjusted)
        same(made.final, expected.final)
        assert made.unet_evals.tolist() == expected.unet_evals.tolist()
        for figure, values in expected.numbers.items():
            same(made.numbers[figure], values)


def scores_of(pipe, name: str, noise):
    """Scores and masks of two images of one prompt."""
    settings = {"statistics": statistics_file(STEPS)} if name == "stability" else {}
    total = steps_of(name)
    detector = build_detector(name, **settings)
    if detector.steps(total) > total:
        detector = build_detector(name, num_steps=total, **settings)
    batch = Batch.of_captions(CAPTIONS[:1] * 2)
    return detect([detector], predictor_of(pipe, batch, total), noise, batch, 7.5).results[0]


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_scores_as_on_the_cpu(here, there, noise, name):
    """NFE exactly; scores and masks to 1e-4."""
    with plain_attention():
        expected = scores_of(here, name, noise)
    with other_device():
        made = scores_of(there, name, noise.to(OTHER))
        same(made.scores, expected.scores)
        assert made.rows.tolist() == expected.rows.tolist()
        if expected.masks is not None:
            same(made.masks, expected.masks)


@pytest.fixture(scope="module", params=[torch.bfloat16, torch.float16], ids=str)
def half(here, request):
    """The model in half precision."""
    pipe = copy.copy(here)
    for name in ("unet", "vae", "text_encoder"):
        setattr(pipe, name, copy.deepcopy(getattr(here, name)).to(request.param))
    return pipe


@pytest.mark.parametrize("name", METHODS)
def test_a_method_in_half_precision(half, noise, name):
    """Finite latents in the network's dtype, and no figure in half precision."""
    method = build_mitigation(name, **(QUICK | MOVING).get(name, {}))
    made = sample(half, CAPTIONS[:1], noise[:1].to(half.dtype), method, steps_of(name), seeds=[1])
    assert made.final.dtype == made.adjusted.dtype == half.dtype
    assert made.final.isfinite().all() and made.adjusted.isfinite().all()
    for figure, values in made.numbers.items():
        assert values.dtype != half.dtype, figure


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_in_half_precision(half, noise, name):
    scores = scores_of(half, name, noise.to(half.dtype)).scores
    assert scores.dtype == torch.float32 and scores.isfinite().all()


FEW = {"model_id": "tiny", "device": "cpu", "quiet": True}
SHORT = FEW | {"num_inference_steps": STEPS, "image_length": 2 * SIDE}
TWO = SHORT | {"n_samples_per_prompt": 2, "end": 1}


def generation(out, few):
    method = {"method": "batch_wise", "apply_cfg_step": 0, "screen": "noise_norm:1.5"}
    made = {"trace": True, "save_latents": True, "output_path": str(out), "batch_size": 2}
    suite.generate(suite.plan(**TWO | {"end": 2}, **method, **made))


def detection(out, few):
    asked = {"detector": "noise_norm,bright_ending,tile_distance", "save_masks": True}
    suite.detect(suite.plan_detection(**TWO, **asked, output_path=str(out)))


def studies(out, few):
    tokens(**TWO, num_steps=1, output_path=str(out))
    known = {"iterations": 2, "probes": 1, "operator": ("arnoldi",), "kind": ("text",)}
    spectrum(**TWO | {"n_samples_per_prompt": 1}, **known, output_path=str(out))


def norms(out, few):
    calibrate.stability(**SHORT, prompts=few, out=out / "norms.json")


def blocked(out, few):
    known = FEW | {"prompts": few, "seeds": 2, "statistics": out / "statistics.safetensors"}
    neurons.ordinary(**FEW, prompts=few, seeds=2, out=known["statistics"])
    neurons.search(**known, threshold=0.1, end=1, out=out / "neurons.json")


@pytest.mark.parametrize("job", [generation, detection, studies, norms, blocked])
def test_a_command_writes_what_it_writes_on_the_cpu(here, there, tmp_path, monkeypatch, job):
    few = tmp_path / "few.txt"
    few.write_text("\n".join(CAPTIONS))
    folders = {}
    for name, model in (("here", here), ("there", there)):
        monkeypatch.setattr(loading, "load_pipeline", lambda *_, model=model, **__: model)
        folders[name] = tmp_path / name
        folders[name].mkdir()
        with plain_attention() if model is here else other_device():
            job(folders[name], few)
    files = [path for path in folders["here"].rglob("*.*") if path.is_file()]
    assert files
    for path in files:
        check_file(path, folders["there"] / path.relative_to(folders["here"]))


def check_file(ours: Path, theirs: Path) -> None:
    """Pictures to a grey level, numbers to 1e-3; not what people read of a run."""
    if ours.name in ("manifest.json", "config.json"):
        return
    if ours.suffix == ".png":
        pictures = [np.asarray(Image.open(path), dtype=float) for path in (ours, theirs)]
        np.testing.assert_allclose(*pictures, atol=1)
    elif ours.suffix == ".npy":
        np.testing.assert_allclose(np.load(ours), np.load(theirs), rtol=1e-3, atol=1e-3)
    elif ours.suffix == ".safetensors":
        for name, values in load_file(theirs).items():
            torch.testing.assert_close(load_file(ours)[name], values, rtol=1e-3, atol=1e-3)
    else:
        check_text(text_of(ours), text_of(theirs))


def text_of(path: Path) -> str:
    """A file's text; of a table without times."""
    if path.suffix != ".csv":
        return path.read_text()
    rows = read_csv(path)
    return str([{name: row[name] for name in row if "seconds" not in name} for row in rows])


def check_text(ours: str, theirs: str) -> None:
    """The same words, and numbers to 1e-3."""
    assert FRACTION.split(ours) == FRACTION.split(theirs)
    numbers = [[float(one) for one in FRACTION.findall(text)] for text in (ours, theirs)]
    np.testing.assert_allclose(*numbers, rtol=1e-3, atol=1e-3)
