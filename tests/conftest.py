"""A small random Stable Diffusion of the real classes, made without a download; torch on one
thread, so that results repeat.
"""

import copy
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported

import pytest
import torch
from diffusers import StableDiffusionPipeline

from memorization_suite.detection import DETECTORS
from memorization_suite.metrics.base import METRICS
from memorization_suite.mitigation import METHODS
from memorization_suite.pipelines import MemorizationPipeline
from memorization_suite.pipelines.family import FAMILIES
from memorization_suite.runs.plugins import PLUGINS, TABLES
from memorization_suite.tiny.models import (
    build_scheduler,
    build_text_encoder,
    build_unet,
    build_vae,
)
from memorization_suite.tiny.tokenizer import train_tokenizer

torch.set_num_threads(1)

PROMPTS = [
    "a red square above a blue circle",
    "the great wave",
    "two cats, in the style of an old master",
]
CAPTIONS = PROMPTS + [
    f"a {color} {shape} and {count} stars"
    for color in ("red", "blue", "green")
    for shape in ("square", "circle", "ring")
    for count in ("two", "three", "many")
]
LATENT = (4, 8, 8)


# Files that take longest: begun first, so that no core waits for one of them at the end.
LONGEST = (
    "test_document_commands.py",
    "test_methods.py",
    "slurm/test_sweep.py",
    "test_embedded_model.py",
    "test_notebook.py",
    "test_tiny_training.py",
    "test_demo.py",
    "stable_diffusion/test_end_to_end.py",
    "detection/test_studies.py",
    "test_first_look.py",
    "methods/test_sail.py",
)


def pytest_addoption(parser):
    parser.addoption("--write-golden", action="store_true", help="store what test_golden.py sees")


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Three different prompts."""
    return list(PROMPTS)


@pytest.fixture(scope="session")
def components(tmp_path_factory) -> dict:
    """Modules of the random model, float32; shared by all tests, so they may not be changed for
    good.
    """
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, 640, tmp_path_factory.mktemp("tokenizer"))
    unet = build_unet(channels=(32, 64, 64, 64), heads=(1, 2, 2, 2))
    with (
        torch.no_grad()
    ):  # make predictions of size one that listen to the prompt: ||e(c) - e("")|| of 1 to 10
        unet.conv_out.weight.mul_(4.0)
        for name, parameter in unet.named_parameters():
            if "attn2.to_out" in name and name.endswith("weight"):
                parameter.mul_(60.0)
    vae = build_vae((16, 32, 64))
    modules = {
        "vae": vae,
        "text_encoder": build_text_encoder(
            len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id
        ),
        "unet": unet,
    }
    return {"tokenizer": tokenizer} | {name: module.eval() for name, module in modules.items()}


@pytest.fixture(scope="session")
def make_pipe(components):
    """make_pipe("ddim" | "euler", prediction_type, dtype): a pipeline with its own scheduler; other
    dtypes than float32 get copies of the modules.
    """

    def make(
        kind="ddim", prediction_type="epsilon", *, dtype=torch.float32, cls=MemorizationPipeline
    ):
        parts = components if dtype == torch.float32 else copy.deepcopy(components)
        made = cls(
            **parts,
            scheduler=build_scheduler(kind, prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        made.set_progress_bar_config(disable=True)
        return made.to(dtype=dtype) if dtype != torch.float32 else made

    return make


@pytest.fixture
def pipe(make_pipe) -> MemorizationPipeline:
    """Epsilon with DDIM, as SD 1.4: timesteps 981, 961, ..., 1 at 50 steps."""
    return make_pipe("ddim", "epsilon")


@pytest.fixture
def euler_pipe(make_pipe) -> MemorizationPipeline:
    """v-prediction with Euler, as SD 2: 50 fractional timesteps from 999 to 0."""
    return make_pipe("euler", "v_prediction")


@pytest.fixture
def noise() -> torch.Tensor:
    """Unit-variance noise for three images of 32 x 32 pixels, (3, 4, 8, 8)."""
    return torch.randn((3, *LATENT), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def random_sd_folder(tmp_path_factory, make_pipe) -> str:
    """Folder of the random model (epsilon, DDIM) as diffusers saves it, for --model_id."""
    folder = tmp_path_factory.mktemp("random_sd")
    make_pipe(cls=StableDiffusionPipeline).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def random_v_folder(tmp_path_factory, make_pipe) -> str:
    """The same with v-prediction and Euler."""
    folder = tmp_path_factory.mktemp("random_sd_v")
    make_pipe("euler", "v_prediction", cls=StableDiffusionPipeline).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def registries():
    """What is registered and which plugins are loaded is as before after the test.

    Yields what makes it so at once: the next command is then as in a new process.
    """
    for registry in (METHODS, DETECTORS, FAMILIES, METRICS):
        registry.load()
    places = [*TABLES, PLUGINS]
    before = [dict(place) for place in places]

    def restore() -> None:
        for place, entries in zip(places, before):
            place.clear()
            place.update(entries)
        for module in [name for name in sys.modules if name.startswith("plugin:")]:
            del sys.modules[module]

    yield restore
    restore()
