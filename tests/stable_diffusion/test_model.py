"""A folder of 2022, as Stable Diffusion 1.4's is on the hub, loads whole."""

import json

import pytest
import torch
from safetensors.torch import load_file

from memorization_suite.pipelines.loading import load_pipeline
from tests.stable_diffusion.model import renamed, write_model
from tests.stable_diffusion.stand_ins import CAPTIONS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("sd14")
    with torch.random.fork_rng():
        write_model(made, CAPTIONS)
    return made


def same(have: dict, stored: dict) -> bool:
    """Whether every tensor came from the file."""
    return all(name in stored and torch.equal(have[name], stored[name]) for name in have)


def test_every_weight_comes_from_the_files(folder):
    """Also under the names that attention and text encoder had then."""
    pipe = load_pipeline(str(folder), scheduler="ddim")
    weights = "diffusion_pytorch_model.safetensors"
    assert same(pipe.unet.state_dict(), load_file(folder / "unet" / weights))
    assert same(renamed(pipe.vae.state_dict()), load_file(folder / "vae" / weights))
    text = pipe.text_encoder.state_dict()
    text = {f"text_model.{name.removeprefix('text_model.')}": text[name] for name in text}
    assert same(text, load_file(folder / "text_encoder" / "model.safetensors"))


def test_captions_end_and_are_padded_as_clip_does(folder):
    tokenizer = load_pipeline(str(folder), scheduler="ddim").tokenizer
    ids = tokenizer("a red square", padding="max_length", max_length=77).input_ids
    begin, end = len(tokenizer) - 2, len(tokenizer) - 1
    assert ids[0] == begin and ids[-1] == end and ids.count(end) > 60


def test_a_model_that_names_the_feature_extractor_as_it_was_called_then(folder):
    file = folder / "model_index.json"
    index = json.loads(file.read_text())
    file.write_text(
        json.dumps(index | {"feature_extractor": ["transformers", "CLIPFeatureExtractor"]})
    )
    assert load_pipeline(str(folder), scheduler="keep").scheduler.config.steps_offset == 1
