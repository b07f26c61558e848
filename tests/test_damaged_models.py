"""Model folders as clones, disks and broken downloads leave them: the part, the file and what the
library says are named. Variants of weights, and parts that are never used, are no fault.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel

from memorization_suite import generate_images, tiny
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.pipelines.models import check_unet
from memorization_suite.runs.notices import listening
from tests.tiny_folders import WEIGHTS, configured

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1000\n"
KINDS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
NEVER_LOADED = {
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
}


@pytest.fixture
def model(tmp_path) -> Path:
    """A copy of the embedded model."""
    return Path(shutil.copytree(tiny.MODELS["tiny"], tmp_path / "model"))


def refusal(model: Path, **more) -> str:
    """What is said of a model that is not loaded."""
    with pytest.raises(ValueError) as error:
        load_pipeline(str(model), **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def loads_as_it_was(model: Path) -> None:
    """Every tensor is the embedded model's."""
    pipe = load_pipeline(str(model))
    for part in KINDS:
        stored = load_file(tiny.MODELS["tiny"] / part / WEIGHTS[part])
        there = getattr(pipe, part).state_dict()
        assert all(torch.equal(there[name], stored[name].float()) for name in stored)


def weights(model: Path, part: str) -> Path:
    """The file of a part's tensors."""
    return model / part / WEIGHTS[part]


# --- variants


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
@pytest.mark.parametrize("parts", [tuple(KINDS), ("unet",), ("text_encoder",)])
def test_weights_of_a_variant_alone_are_loaded_and_named_once(model, parts, variant, capsys):
    for part in parts:
        file = weights(model, part)
        file.rename(file.with_suffix(f".{variant}.safetensors"))
    with listening():
        loads_as_it_was(model)
        loads_as_it_was(model)
    told = capsys.readouterr().err
    assert told.count(f"weights of the variant {variant} alone") == 1
    assert all(part in told for part in parts)


def test_weights_without_a_variant_come_first(model, capsys):
    file = weights(model, "unet")
    shutil.copy(weights(model, "vae"), file.with_suffix(".fp16.safetensors"))
    loads_as_it_was(model)
    assert "variant" not in capsys.readouterr().err


@pytest.mark.parametrize("part", KINDS)
def test_pieces_of_a_variant(model, part):
    network = KINDS[part].from_pretrained(model / part)
    shutil.rmtree(model / part)
    network.save_pretrained(model / part, max_shard_size="500KB", variant="fp16")
    assert len(list((model / part).glob("*fp16-0*-of-*.safetensors"))) > 1
    loads_as_it_was(model)


def test_a_pickle_of_a_variant(model):
    file = weights(model, "unet")
    torch.save(load_file(file), file.with_name("diffusion_pytorch_model.fp16.bin"))
    file.unlink()
    loads_as_it_was(model)


def test_of_two_variants_that_are_rounded_one_is_loaded(model, capsys):
    file = weights(model, "unet")
    shutil.copy(file, file.with_suffix(".bf16.safetensors"))
    file.rename(file.with_suffix(".fp16.safetensors"))
    loads_as_it_was(model)
    assert "variant fp16 alone" in capsys.readouterr().err


def test_of_two_variants_that_differ_none_is_chosen(model):
    file = weights(model, "unet")
    shutil.copy(file, file.with_suffix(".non_ema.safetensors"))
    file.rename(file.with_suffix(".ema.safetensors"))
    assert "variants ema, non_ema alone: take .ema or another out of the names" in refusal(model)


@pytest.mark.parametrize("place", ["unet", "."])
def test_a_variant_of_another_unet(model, tmp_path, place, capsys):
    other = Path(shutil.copytree(model / "unet", tmp_path / "other" / place, dirs_exist_ok=True))
    (other / WEIGHTS["unet"]).rename(other / "diffusion_pytorch_model.fp16.safetensors")
    load_pipeline(str(model), unet_id=str(tmp_path / "other"))
    assert "of the UNet there are weights of the variant fp16 alone" in capsys.readouterr().err


# --- parts that are never used


@pytest.mark.parametrize("state", ["missing", "empty", "damaged"])
@pytest.mark.parametrize("part", NEVER_LOADED)
def test_a_part_that_is_never_used_does_not_matter(model, part, state):
    configured(model, "model_index.json", **{part: NEVER_LOADED[part]})
    if state != "missing":
        (model / part).mkdir()
    if state == "damaged":
        (model / part / "config.json").write_text("{")
        (model / part / "preprocessor_config.json").write_text(POINTER)
        (model / part / "model.safetensors").write_text(POINTER)
    loads_as_it_was(model)


# --- pointers


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
        *(f"{part}/{WEIGHTS[part]}" for part in KINDS),
    ],
)
def test_a_pointer_of_git_lfs_is_found_before_a_model_loads(model, file, capsys):
    (model / file).write_text(POINTER)
    assert generate_images.main(["--model_id", str(model)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"{model / file} is a pointer of Git LFS" in told
    assert "`git lfs pull`" in told


def test_a_pointer_in_another_unet(model, tmp_path):
    other = Path(shutil.copytree(model, tmp_path / "other"))
    weights(other, "unet").write_text(POINTER)
    for unet_id in (other, other / "unet"):
        with pytest.raises(ValueError, match="--unet_id .*unet/diff.* is a pointer of Git LFS"):
            check_unet(str(unet_id))


# --- damage


def cut(path: Path) -> None:
    """Leaves the first half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def emptied(path: Path) -> None:
    """Leaves nothing."""
    path.write_bytes(b"")


def replaced(path: Path) -> None:
    """An answer of a server."""
    path.write_text("<html>not found</html>" * 100)


@pytest.mark.parametrize("part", KINDS)
@pytest.mark.parametrize(
    ("damage", "fault"),
    [(cut, "has .* of .* bytes"), (emptied, "is empty"), (replaced, "is no safetensors file")],
)
def test_damaged_weights(model, part, damage, fault):
    damage(weights(model, part))
    told = refusal(model)
    place = f"its {part} cannot be loaded: {weights(model, part)} "
    assert place in told
    assert re.match(rf"{fault} \((OSError|SafetensorError): ", told.split(place)[1]), told


@pytest.mark.parametrize("part", KINDS)
def test_no_weights_and_no_configuration(model, part):
    (model / part / "config.json").rename(model / "config.json")
    assert f"its {part} cannot be loaded: {model / part} has no config.json" in refusal(model)
    (model / "config.json").rename(model / part / "config.json")
    weights(model, part).unlink()
    assert f"{model / part} has no weights (model.safetensors and the like)" in refusal(model)


def test_a_piece_that_is_lost(model):
    network = UNet2DConditionModel.from_pretrained(model / "unet")
    shutil.rmtree(model / "unet")
    network.save_pretrained(model / "unet", max_shard_size="500KB")
    piece = sorted((model / "unet").glob("*-of-*.safetensors"))[2]
    piece.unlink()
    index = model / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    assert f"{index} lists {piece.name}, which {model / 'unet'} does not have" in refusal(model)


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("vae/config.json", "vae"),
        ("text_encoder/config.json", "text_encoder"),
        ("scheduler/scheduler_config.json", "scheduler"),
        ("tokenizer/tokenizer.json", "tokenizer"),
    ],
)
def test_json_that_is_none(model, file, part):
    (model / file).write_text("{")
    assert f"its {part} cannot be loaded: {model / file} is no JSON: Expecting" in refusal(model)


def test_values_that_a_library_does_not_know(model):
    """The reason is the library's."""
    config = json.loads((model / "unet/config.json").read_text())
    configured(model, "unet/config.json", down_block_types=["Other"] * 3)
    told = refusal(model)
    assert f"its unet cannot be loaded: it lies in {model / 'unet'} (ValueError: Other does" in told
    configured(model, "unet/config.json", **config)
    configured(model, "model_index.json", scheduler=["diffusers", "OtherScheduler"])
    told = refusal(model)
    assert "its scheduler cannot be loaded" in told and "no attribute OtherScheduler" in told
