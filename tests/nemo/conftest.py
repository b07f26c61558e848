"""The embedded model, loaded once, and statistics of a few ordinary prompts."""

import functools
from pathlib import Path

import pytest

import memorization_suite.pipelines.loading
from memorization_suite.commands.neuron_settings import NoiseMaps
from memorization_suite.commands.neurons import ordinary_statistics
from memorization_suite.prompts.files import read_prompts
from memorization_suite.tiny import MODELS

PROMPTS = Path(__file__).parents[2] / "tiny" / "prompts"
ORDINARY = [prompt.caption for prompt in read_prompts(PROMPTS / "tiny_ordinary_tuning.csv")][:6]
MEMORIZED = "Inside the Borrowed Cactus Museum of Alder"
load = functools.cache(memorization_suite.pipelines.loading.load_pipeline)


@pytest.fixture(scope="session")
def tiny():
    """The embedded model's pipeline with its own scheduler."""
    if not MODELS["tiny"].is_dir():
        pytest.skip("the weights of tiny are not in this checkout")
    return load("tiny", dtype="fp32", device="cpu", scheduler="keep")


@pytest.fixture(scope="session")
def statistics(tiny):
    """Of six ordinary prompts, three seeds."""
    return ordinary_statistics(tiny, ORDINARY, ORDINARY, NoiseMaps(seeds=3))[0]
