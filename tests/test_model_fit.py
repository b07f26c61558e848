"""What a model's network reads and predicts: what the loop does not give is refused by its name,
and what runs makes the images of diffusers, to the bit.
"""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
    UNet2DConditionModel,
)

from memorization_suite import generate_images, tiny
from memorization_suite.mitigation import build_mitigation
from memorization_suite.pipelines import MemorizationPipeline
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.pipelines.stable_diffusion import fit
from tests.tiny_folders import configured

SCHEDULER = "scheduler/scheduler_config.json"
# Stable Diffusion 2 for 768 pixels, as far as its small files tell it.
LIKE_2 = {"cross_attention_dim": 1024, "sample_size": 384}


@pytest.fixture
def copied(tmp_path):
    """copied(name): a copy of an embedded model."""
    return lambda name="tiny": Path(shutil.copytree(tiny.MODELS[name], tmp_path / f"my {name}"))


def with_unet(model: Path, **values) -> Path:
    """A random UNet in the place of the model's, with other values in its configuration."""
    config = json.loads((model / "unet" / "config.json").read_text()) | values
    shutil.rmtree(model / "unet")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        UNet2DConditionModel.from_config(config).save_pretrained(model / "unet")
    return model


def refusal(model: Path, **more) -> str:
    """What is said of a model that is not loaded."""
    with pytest.raises(ValueError, match="cannot be ") as error:
        load_pipeline(str(model), **more)
    return str(error.value)


# --- inputs that the loop does not give

INPUTS = [
    ({"num_class_embeds": 4}, "class_labels (num_class_embeds is 4)"),
    ({"class_embed_type": "timestep"}, "class_labels (class_embed_type is 'timestep')"),
    ({"time_cond_proj_dim": 16}, "timestep_cond, an embedding of the guidance scale (time_cond"),
    (
        {"encoder_hid_dim_type": "image_proj", "encoder_hid_dim": 128},
        "image_embeds (encoder_hid_dim_type is 'image_proj')",
    ),
    (
        {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 56,
        },
        "text_embeds and time_ids, as in Stable Diffusion XL (addition_embed_type",
    ),
    (
        {"addition_embed_type": "image_hint", "encoder_hid_dim": 128},
        "image_embeds and hint (addition_embed_type",
    ),
]


@pytest.mark.parametrize(("values", "told"), INPUTS)
def test_a_network_that_needs_another_input(copied, values, told):
    assert f"its UNet needs the input {told}" in refusal(with_unet(copied(), **values))


def test_the_same_in_python(copied):
    """With a mitigation; without one the pipeline is diffusers' own, which gives the input."""
    model = with_unet(copied(), time_cond_proj_dim=16)
    pipe = MemorizationPipeline.from_pretrained(model, dtype=torch.float32)
    options = {"num_inference_steps": 2, "output_type": "latent"}
    assert pipe("a red square", **options).images.shape == (1, 4, 16, 16)
    with pytest.raises(ValueError, match="needs the input timestep_cond"):
        pipe("a red square", mitigation=build_mitigation("no_mitigation"), **options)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"in_channels": 9}, "its UNet reads 9 channels, its VAE gives 4"),
        ({"out_channels": 8}, "its UNet gives 8 channels, its VAE 4"),
        ({"cross_attention_dim": 64}, "wants text of width 64, its text encoder gives 128"),
    ],
)
def test_a_network_of_other_sizes(copied, values, told):
    assert told in refusal(with_unet(copied(), **values))


def is_equal_to_diffusers(pipe: MemorizationPipeline) -> bool:
    """Whether two images of four steps are diffusers' own, to the bit."""
    noise = torch.randn((2, 4, 16, 16), generator=torch.Generator().manual_seed(5))
    made = []
    for options in ({}, {"mitigation": build_mitigation("no_mitigation")}):
        copied = copy.copy(pipe)
        copied.scheduler = copy.deepcopy(pipe.scheduler)
        images = copied(
            ["a red square", "two cats"],
            num_inference_steps=4,
            generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
            latents=noise.clone(),
            output_type="latent",
            **options,
        )
        made.append(images.images)
    return torch.equal(*made)


@pytest.mark.parametrize(
    "values",
    [
        {"encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 128},
        {"encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 128, "cross_attention_dim": 64},
        {"addition_embed_type": "text", "encoder_hid_dim": 128},
    ],
)
def test_a_network_that_makes_more_of_the_text_itself(copied, values):
    """That needs no other input."""
    assert is_equal_to_diffusers(load_pipeline(str(with_unet(copied(), **values))))


@pytest.mark.parametrize(
    "sampler",
    [
        TCDScheduler,
        LCMScheduler,
        DDPMScheduler,
        EulerAncestralDiscreteScheduler,
        DPMSolverMultistepScheduler,
    ],
)
def test_a_sampler_gets_what_diffusers_gives_it(sampler):
    """TCD's own eta is 0.3, and diffusers' pipeline gives 0."""
    pipe = load_pipeline("tiny")
    pipe.scheduler = sampler.from_config(pipe.scheduler.config)
    assert is_equal_to_diffusers(pipe)


# --- another UNet


def other_unet(tmp_path: Path, **values) -> str:
    """A folder of a UNet alone, with other values in its configuration."""
    folder = Path(shutil.copytree(tiny.MODELS["tiny"] / "unet", tmp_path / "other"))
    configured(folder, "config.json", **values)
    return str(folder)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"cross_attention_dim": 64}, "it wants text of width 64, the model's is 128 wide"),
        ({"in_channels": 9}, "its in_channels are 9, the model's 4"),
        ({"out_channels": 8}, "its out_channels are 8, the model's 4"),
        ({"_class_name": "UNet3DConditionModel"}, "it is a UNet3DConditionModel, no UNet2D"),
        ({"time_cond_proj_dim": 16}, "its UNet needs the input timestep_cond"),
        ({"num_class_embeds": 4}, "its UNet needs the input class_labels"),
    ],
)
def test_another_unet_of_another_kind(tmp_path, values, told):
    """By its small file: no weights are read."""
    unet_id = other_unet(tmp_path, **values)
    (Path(unet_id) / "diffusion_pytorch_model.safetensors").unlink()
    said = refusal("tiny", unet_id=unet_id)
    assert said == f"--unet_id {unet_id} cannot be used with this model: {said.split(': ', 1)[1]}"
    assert told in said


@pytest.mark.parametrize("place", [".", "unet"])
def test_the_unet_of_a_model_that_predicts_otherwise(copied, place):
    """The scheduler beside it says so."""
    model = copied("tiny-v")
    unet = json.loads((model / "unet" / "config.json").read_text())
    width = json.loads((tiny.MODELS["tiny"] / "unet" / "config.json").read_text())
    assert unet["cross_attention_dim"] == width["cross_attention_dim"]
    said = refusal("tiny", unet_id=str(model / place))
    assert f"it predicts v_prediction, as {SCHEDULER} beside it says" in said


@pytest.mark.parametrize("values", [{"sample_size": 32}, {"_class_name": None}])
def test_another_unet_that_stays_good(tmp_path, values, capsys):
    """Images have its size."""
    pipe = load_pipeline("tiny", unet_id=other_unet(tmp_path, **values))
    assert pipe.native_size == 2 * values.get("sample_size", 16)
    assert not capsys.readouterr().err


# --- what it predicts


@pytest.mark.parametrize("name", tiny.MODELS)
def test_the_embedded_models_predict_what_they_say(name, capsys):
    pipe = load_pipeline(name)
    found = fit.noise_correlation(pipe)
    assert found > 0.99 if pipe.predicts == "epsilon" else abs(found) < 0.3
    assert not capsys.readouterr().err


def is_doubted(line: str) -> bool:
    """Whether the line, of stderr, says that a network hardly predicts noise."""
    return (
        line.startswith("its UNet does not predict noise: of pure noise its output is another")
        and 'must say "prediction_type": "v_prediction"' in line
        and line.endswith("A network that was never trained gives this too\n")
    )


def test_a_network_of_v_whose_scheduler_does_not_say_so(copied, capsys):
    model = copied("tiny-v")
    configured(model, SCHEDULER, prediction_type=None)
    load_pipeline(str(model))
    assert is_doubted(capsys.readouterr().err)


def test_a_network_that_was_never_trained_stays_good(copied, capsys):
    """Its scheduler says what it predicts, as diffusers writes it."""
    load_pipeline(str(with_unet(copied())))
    assert not capsys.readouterr().err


def test_another_unet_that_is_alone_is_asked(tmp_path, capsys):
    unet = shutil.copytree(tiny.MODELS["tiny-v"] / "unet", tmp_path / "unet")
    load_pipeline("tiny", unet_id=str(unet))
    assert is_doubted(capsys.readouterr().err)


def test_the_unet_of_a_model_that_does_not_say_what_it_predicts(copied, capsys):
    model = copied("tiny-v")
    configured(model, SCHEDULER, prediction_type=None)
    assert load_pipeline("tiny-v", unet_id=str(model)).predicts == "v"
    assert not capsys.readouterr().err


def test_a_network_of_noise_whose_scheduler_says_v(copied):
    model = copied()
    configured(model, SCHEDULER, prediction_type="v_prediction")
    assert "v_prediction, and its UNet predicts noise" in refusal(model)


def test_a_network_of_noise_whose_scheduler_says_nothing_stays_good(copied, capsys):
    """As Stable Diffusion 1.4's."""
    model = copied()
    configured(model, SCHEDULER, prediction_type=None)
    assert load_pipeline(str(model)).predicts == "epsilon"
    assert not capsys.readouterr().err


@pytest.mark.parametrize("said", [None, "v_prediction"])
def test_a_model_like_2_whose_scheduler_says_nothing(copied, said, capsys):
    """It is refused, and runs when the file says what it predicts."""
    model = with_unet(copied("tiny-v"), **LIKE_2)
    configured(model, SCHEDULER, prediction_type=said)
    text = json.loads((model / "text_encoder" / "config.json").read_text())
    text |= {"hidden_size": 1024, "intermediate_size": 64, "num_hidden_layers": 1}
    encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig(**text))
    shutil.rmtree(model / "text_encoder")
    encoder.save_pretrained(model / "text_encoder")
    if said is None:
        assert 'must say "prediction_type": "v_prediction"' in refusal(model)
        return
    capsys.readouterr()
    assert load_pipeline(str(model)).predicts == "v"
    assert not capsys.readouterr().err


def test_the_command_refuses_with_one_line(copied, tmp_path, capsys):
    model = with_unet(copied(), time_cond_proj_dim=16)
    (tmp_path / "p.txt").write_text("a red square\ntwo cats\n")
    argv = ["--model_id", str(model), "--prompts", str(tmp_path / "p.txt"), "--quiet"]
    assert generate_images.main([*argv, "--output_path", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "its UNet needs the input timestep_cond" in error.splitlines()[-1]
    assert "Traceback" not in error and not list(tmp_path.rglob("*.png"))
