"""Which files of a part count: those that diffusers and transformers load."""

from pathlib import Path

import pytest

from memorization_suite.pipelines.model_files import every_file, files_of_part
from memorization_suite.runs.elsewhere import free_place

UNET = "diffusion_pytorch_model"
LAYOUTS = {
    "safetensors before bin": (
        [f"{UNET}.safetensors"],
        [f"{UNET}.bin", f"{UNET}.fp16.safetensors", f"{UNET}.non_ema.bin"],
    ),
    "shards and their index": (
        [
            f"{UNET}-00001-of-00002.safetensors",
            f"{UNET}-00002-of-00002.safetensors",
            f"{UNET}.safetensors.index.json",
        ],
        [
            f"{UNET}.fp16-00001-of-00002.safetensors",
            f"{UNET}.safetensors.index.fp16.json",
            f"{UNET}.bin",
        ],
    ),
    "bin alone": (["pytorch_model.bin"], ["pytorch_model.fp16.bin", "flax_model.msgpack"]),
    "bin and safetensors of a variant": ([f"{UNET}.bin"], [f"{UNET}.fp16.safetensors"]),
    "bin in shards": (
        ["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"],
        ["tf_model.h5", "model.onnx", "model.onnx_data"],
    ),
    "nothing but a variant": ([f"{UNET}.fp16.safetensors"], []),
    "a name that nobody knows": (["model.safetensors", "adapter_model.safetensors"], []),
    "what a training left": (
        [f"{UNET}.safetensors", "adapter_model.bin", "generation_config.json", "own_layers.py"],
        [
            "notes.txt",
            "optimizer.bin",
            "optimizer.pt",
            "random_states_0.pkl",
            "training_args.bin",
            "trainer_state.json",
            "train.log",
            "ema.safetensors",
        ],
    ),
    "a tokenizer beside weights": (
        ["model.safetensors", "vocab.json", "merges.txt", "vocab.txt"],
        ["readme.txt"],
    ),
    "a tokenizer": (
        [
            "vocab.json",
            "merges.txt",
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
            "spiece.model",
            "chat_template.jinja",
        ],
        ["README.md", "LICENSE", "license.txt", ".gitattributes", "diagram.png"],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_loaded_counts(tmp_path, layout):
    read, beside = LAYOUTS[layout]
    for name in ["config.json", *read, *beside]:
        (tmp_path / name).touch()
    assert {path.name for path in files_of_part(tmp_path)} == {"config.json", *read}


def test_folders_beside_weights_do_not_count(tmp_path):
    """Nor do the better ones there hide those that are read."""
    for name in (
        "config.json",
        f"{UNET}.bin",
        f"checkpoint-5/{UNET}.safetensors",
        "old/config.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert {path.name for path in files_of_part(tmp_path)} == {"config.json", f"{UNET}.bin"}


def test_links_are_followed_and_circles_end(tmp_path):
    model = tmp_path / "model"
    elsewhere = tmp_path / "elsewhere"
    for folder in (model, elsewhere / "inner"):
        folder.mkdir(parents=True)
    (elsewhere / "inner" / "a.npz").touch()
    (model / "part").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(model)
    (model / "gone.json").symlink_to(tmp_path / "nowhere")
    assert every_file(model) == [model / "part" / "inner" / "a.npz"]


def test_weights_that_a_family_of_its_own_may_load_count(tmp_path):
    (tmp_path / "weights.ckpt").write_bytes(b"x")
    assert every_file(tmp_path) == [tmp_path / "weights.ckpt"]


def test_a_place_beside_a_long_name_can_be_made(tmp_path):
    place = free_place(tmp_path / ("x" * 250), "other", lambda path: path.name.endswith("_3"))
    assert Path(place).name == "x" * 100 + "_other_3"
    assert free_place(tmp_path / "runs", "other", lambda path: False) == f"{tmp_path}/runs_other"
