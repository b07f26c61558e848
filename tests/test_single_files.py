"""Checkpoints of one .safetensors file: what each is, by the names of its tensors; the embedded
models as such files make the images that their folders make.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from memorization_suite import detect_memorization, generate_images, tiny
from memorization_suite.commands.sweeps.record import names_file
from memorization_suite.pipelines import single_files
from memorization_suite.pipelines.fingerprints import fingerprint
from memorization_suite.pipelines.kinds import SD1, SD2_BASE, SD2_V, Unknown
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.pipelines.models import kind_of, resolve_model
from memorization_suite.pipelines.single_files import layouts, read_single_file
from memorization_suite.pipelines.stable_diffusion import originals
from memorization_suite.pipelines.stable_diffusion.originals import clip_tokenizer
from tests.stable_diffusion.originals import (
    clip_text,
    open_clip_text,
    original_unet,
    original_vae,
    write_header,
    write_original,
)
from tests.tiny_folders import WEIGHTS

UNET = "model.diffusion_model."
FIRST = f"{UNET}input_blocks.0.0.weight"
PARTS = tuple(WEIGHTS)
CAPTIONS = [
    "A Photo of a cat, sitting on the table!",
    "Mothers influence on her young hippo",
    "Caf\u00e9 \u2014 na\u00efve r\u00e9sum\u00e9, \u6f22\u5b57 and 123,456 $",
    "Living in the Light with Ann Graham Lotz",
    "don't you've we'll it's",
    "",
]


def json_of(model: Path, name: str) -> dict:
    """A JSON file of a model's folder."""
    return json.loads((model / name).read_text())


def layout_of(name: str, text: str, **more) -> dict:
    """An entry of layouts.toml for an embedded model."""
    model = tiny.MODELS[name]
    parts = {part: json_of(model, f"{part}/config.json") for part in PARTS}
    scheduler = json_of(model, "scheduler/scheduler_config.json")
    predicts = scheduler.pop("prediction_type")
    unet = {"sample_size": parts["unet"].pop("sample_size")}
    kinds = {
        kind: {"unet": unet, "scheduler": {"prediction_type": kind}}
        for kind in ("epsilon", "v_prediction")
    }
    first = {predicts: kinds.pop(predicts)}
    return {
        "title": name,
        "text": text,
        "pad": "<|endoftext|>",
        "predicts": first | kinds,
        "scheduler": scheduler,
        **parts,
        **more,
    }


@pytest.fixture
def embedded(monkeypatch):
    """The layouts are those of the embedded models, as 1 and 2."""
    known = {
        "tiny": layout_of("tiny", "cond_stage_model.transformer."),
        "tiny-v": layout_of("tiny-v", "cond_stage_model.model.", same_tensors=True),
    }
    monkeypatch.setattr(single_files, "layouts", lambda: known)


def networks(name: str) -> dict:
    """Part -> its tensors, of an embedded model."""
    return {part: load_file(tiny.MODELS[name] / part / WEIGHTS[part]) for part in PARTS}


def written(path: Path, name: str, **header) -> Path:
    """An embedded model as one file."""
    text = "open_clip" if name == "tiny-v" else "transformers"
    config = json_of(tiny.MODELS[name], "unet/config.json")
    write_original(path, networks(name), config, text=text, **header)
    return path


def flags(model: Path | str, out: Path, *more: str) -> list[str]:
    """Two images of an embedded model's prompts."""
    prompts = ("--prompts", str(tiny.prompts("tiny")))
    few = ("--end", "2", "-n", "1", "--num_inference_steps", "4", "--quiet", "--preset", "none")
    return ["--model_id", str(model), *prompts, *few, "--output_path", str(out), *more]


def pngs(out: Path) -> list[bytes]:
    """The images of a run."""
    found = sorted(out.rglob("img_*.png"))
    assert len(found) == 2
    return [path.read_bytes() for path in found]


def edited(path: Path, change) -> None:
    """Stores a file's tensors anew."""
    save_file(change(load_file(path)), path)


def without(end: str):
    """A change that leaves tensors out."""
    return lambda state: {name: state[name] for name in state if not name.endswith(end)}


# --- end to end


def test_a_file_makes_the_images_of_its_folder(embedded, tmp_path, capsys):
    file = written(tmp_path / "my_model.safetensors", "tiny")
    tokenizer = ("--tokenizer", str(tiny.MODELS["tiny"] / "tokenizer"))
    assert generate_images.main(flags(file, tmp_path / "file", *tokenizer)) == 0
    assert generate_images.main(flags("tiny", tmp_path / "folder")) == 0
    assert pngs(tmp_path / "file") == pngs(tmp_path / "folder")
    capsys.readouterr()
    assert generate_images.main(flags(file, tmp_path / "file", *tokenizer)) == 0
    assert "nothing to make" in capsys.readouterr().out


def test_a_file_that_does_not_tell_what_it_predicts_is_asked(embedded, tmp_path, capsys):
    file = written(tmp_path / "second.safetensors", "tiny-v")
    tokenizer = ("--tokenizer", str(tiny.MODELS["tiny-v"] / "tokenizer"))
    assert generate_images.main(flags(file, tmp_path / "file", *tokenizer)) == 2
    told = capsys.readouterr().err
    assert "have the same tensors" in told and "--image_length PIXELS" in told
    size = ("--image_length", "32")
    assert generate_images.main(flags(file, tmp_path / "file", *tokenizer, *size)) == 0
    assert "Its network predicts v: of pure noise" in capsys.readouterr().err
    assert generate_images.main(flags("tiny-v", tmp_path / "folder", *size)) == 0
    assert pngs(tmp_path / "file") == pngs(tmp_path / "folder")


def test_the_network_of_a_file_that_predicts_noise_is_asked_too(embedded, tmp_path, capsys):
    """The tensors of the first model in the place of the second's."""
    known = single_files.layouts()
    known["tiny"]["same_tensors"] = True
    file = written(tmp_path / "first.safetensors", "tiny")
    pipe = load_pipeline(str(file), tokenizer=str(tiny.MODELS["tiny"] / "tokenizer"))
    assert pipe.predicts == "epsilon"
    assert "Its network predicts noise" in capsys.readouterr().err


@pytest.mark.parametrize("header", [{"modelspec.prediction_type": "v"}, {"v_pred": "tensor"}])
def test_a_file_that_tells_what_it_predicts_is_not_asked(embedded, tmp_path, header, capsys):
    file = written(tmp_path / "second.safetensors", "tiny-v")
    state = load_file(file)
    if "v_pred" in header:
        save_file(state | {"v_pred": torch.zeros(0)}, file)
    else:
        save_file(state, file, metadata=header)
    assert kind_of(str(file)) == kind_of("tiny-v")
    pipe = load_pipeline(str(file), tokenizer=str(tiny.MODELS["tiny-v"] / "tokenizer"))
    assert pipe.predicts == "v" and "predicts" not in capsys.readouterr().err


def test_a_file_that_tells_something_else_than_its_network_is_refused(embedded, tmp_path):
    file = written(tmp_path / "x.safetensors", "tiny", **{"modelspec.prediction_type": "v"})
    with pytest.raises(ValueError, match="its UNet predicts noise"):
        load_pipeline(str(file), tokenizer=str(tiny.MODELS["tiny"] / "tokenizer"))


def test_detectors_take_a_file(embedded, tmp_path):
    file = written(tmp_path / "my_model.safetensors", "tiny")
    argv = ["--model_id", str(file), "--tokenizer", str(tiny.MODELS["tiny"] / "tokenizer")]
    prompts = ["--prompts", str(tiny.prompts("tiny")), "--output_path", str(tmp_path / "scores")]
    prompts += ["--nonmem_prompts", str(tiny.prompts("tiny", "ordinary_test"))]
    few = ["--end", "1", "-n", "2", "--num_inference_steps", "4", "--nonmem_count", "2"]
    assert detect_memorization.main([*argv, *prompts, *few, "--quiet"]) == 0


# --- what is loaded


def test_the_averaged_copy_makes_the_images(embedded, tmp_path, capsys):
    file = written(tmp_path / "x.safetensors", "tiny")
    state = load_file(file)
    for name in [name for name in state if name.startswith(UNET)]:
        flat = name.removeprefix("model.").replace(".", "")
        state[f"model_ema.{flat}"] = state[name].clone()
        state[name] = torch.zeros_like(state[name])
    save_file(state, file)
    pipe = load_pipeline(str(file), tokenizer=str(tiny.MODELS["tiny"] / "tokenizer"))
    assert torch.equal(pipe.unet.conv_in.weight, networks("tiny")["unet"]["conv_in.weight"].float())
    assert capsys.readouterr().err.count("the averaged one (model_ema) is used") == 1


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("output_blocks.0.0.in_layers.0.bias", "its unet is not complete: .* lacks 1 tensor"),
        ("decoder.conv_out.bias", "its vae is not complete: .* lacks 1 tensor"),
        ("layers.0.mlp.fc1.weight", "its text_encoder is not complete: .* lacks 1 tensor"),
    ],
)
def test_a_file_that_lacks_a_tensor_is_refused(embedded, tmp_path, end, told):
    file = written(tmp_path / "x.safetensors", "tiny")
    edited(file, without(end))
    with pytest.raises(ValueError, match=told):
        load_pipeline(str(file), tokenizer=str(tiny.MODELS["tiny"] / "tokenizer"))


def test_a_tensor_too_many_is_named(embedded, tmp_path, capsys):
    file = written(tmp_path / "x.safetensors", "tiny")
    edited(file, lambda state: state | {f"{UNET}surplus.weight": torch.zeros(1)})
    load_pipeline(str(file), tokenizer=str(tiny.MODELS["tiny"] / "tokenizer"))
    assert "1 unexpected tensor (model.diffusion_model.surplus.weight)" in capsys.readouterr().err


# --- the tokenizer


def test_a_tokenizer_is_asked_for_where_none_can_be_found(embedded, tmp_path, capsys):
    file = written(tmp_path / "x.safetensors", "tiny")
    assert generate_images.main(flags(file, tmp_path / "out")) == 2
    assert "give its folder with --tokenizer DIR" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["nowhere", "empty", "broken", "pointer"])
def test_a_tokenizer_that_is_none_is_named_before_a_model_loads(embedded, tmp_path, given, capsys):
    file = written(tmp_path / "x.safetensors", "tiny")
    folder = tmp_path / given
    contents = {"broken": "{", "pointer": "version https://git-lfs.github.com/spec/v1\n"}
    if given != "nowhere":
        folder.mkdir()
    if given in contents:
        (folder / "tokenizer.json").write_text(contents[given])
    argv = flags(file, tmp_path / "out", "--tokenizer", str(folder))
    assert generate_images.main(argv) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"--tokenizer {folder}" in told


def test_a_folder_has_its_own_tokenizer(tmp_path, capsys):
    argv = flags("tiny", tmp_path, "--tokenizer", str(tiny.MODELS["tiny"] / "tokenizer"))
    assert generate_images.main(argv) == 2
    assert "is for a checkpoint of one file: tiny has its own" in capsys.readouterr().err


def test_the_tokenizer_of_another_model_is_refused(embedded, tmp_path):
    other = Path(shutil.copytree(tiny.MODELS["tiny"] / "tokenizer", tmp_path / "tokenizer"))
    content = json_of(other, "tokenizer.json")
    content["model"]["vocab"] = {k: i + 9000 for k, i in content["model"]["vocab"].items()}
    for token in content["added_tokens"]:
        token["id"] += 9000
    (other / "tokenizer.json").write_text(json.dumps(content))
    file = written(tmp_path / "x.safetensors", "tiny")
    with pytest.raises(ValueError, match="its tokenizer "):
        load_pipeline(str(file), tokenizer=str(other))


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
def test_clips_own_tokenizer_is_built_from_what_open_clip_has(pad):
    """Captions have the tokens that open_clip gives them; behind them stands what the model knows:
    the end in Stable Diffusion 1, `!`, entry 0, in 2.
    """
    tokenizer = clip_tokenizer(pad)
    assert len(tokenizer) == 49408 and tokenizer.model_max_length == 77
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (49406, 49407)
    assert tokenizer.pad_token_id == {"!": 0, "<|endoftext|>": 49407}[pad]
    published = SimpleTokenizer()
    for caption in CAPTIONS:
        if pad in caption:
            continue  # see below
        ids = tokenizer(caption, padding="max_length", max_length=77).input_ids
        theirs = published([caption])[0].tolist()
        end = theirs.index(49407)
        assert ids[: end + 1] == theirs[: end + 1], caption
        assert set(ids[end + 1 :]) == {tokenizer.pad_token_id}


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
def test_clips_own_tokenizer_is_that_of_a_folder(pad, tmp_path):
    """Files as of 2022. There a `!` of a caption is the same entry as the one that pads, in 2."""
    tokenizer = clip_tokenizer(pad)
    content = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(content["vocab"]))
    pairs = (" ".join(pair) for pair in content["merges"])
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special = ends | {"unk_token": "<|endoftext|>", "pad_token": pad}
    config = special | {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    folder = CLIPTokenizer.from_pretrained(tmp_path)
    for caption in CAPTIONS:
        options = {"padding": "max_length", "max_length": 77}
        assert tokenizer(caption, **options).input_ids == folder(caption, **options).input_ids
    assert tokenizer("a table!").input_ids[-2] == {"!": 0, "<|endoftext|>": 256}[pad]


# --- the real names and shapes


def real_shapes(name: str) -> dict[str, list[int]]:
    """Of a checkpoint of Stable Diffusion 1 or 2 as it was published, without its tensors."""
    layout = layouts()[name]
    file = single_files.SingleFile(Path("none"), {}, layout, None)
    made = {part: originals.empty_network(file, part).state_dict() for part in PARTS}
    text = clip_text if name == "sd1" else open_clip_text
    state = original_unet(made["unet"], 2) | original_vae(made["vae"]) | text(made["text_encoder"])
    return {name: list(tensor.shape) for name, tensor in state.items()}


@pytest.fixture(scope="module")
def real() -> dict[str, dict[str, list[int]]]:
    return {name: real_shapes(name) for name in ("sd1", "sd2")}


def test_the_published_files_have_these_tensors(real):
    """Facts of sd-v1-4 and of v2-1_768: names as anyone may read them in their headers."""
    first, second = real["sd1"], real["sd2"]
    assert len(first) == 1131  # 686 of the UNet, 248 of the VAE, 197 of the text encoder
    assert first[FIRST] == second[FIRST] == [320, 4, 3, 3]
    place = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    assert (first[place], second[place]) == ([320, 768], [320, 1024])
    assert first[f"{UNET}output_blocks.11.0.skip_connection.weight"] == [320, 640, 1, 1]
    assert first[f"{UNET}output_blocks.8.2.conv.weight"] == [640, 640, 3, 3]
    assert first[f"{UNET}output_blocks.2.1.conv.weight"] == [1280, 1280, 3, 3]
    assert first[f"{UNET}input_blocks.3.0.op.weight"] == [320, 320, 3, 3]
    assert first[f"{UNET}middle_block.1.proj_in.weight"] == [1280, 1280, 1, 1]
    assert second[f"{UNET}middle_block.1.proj_in.weight"] == [1280, 1280]
    assert first["first_stage_model.encoder.mid.attn_1.q.weight"] == [512, 512, 1, 1]
    assert first["first_stage_model.decoder.up.0.block.0.nin_shortcut.weight"] == [128, 256, 1, 1]
    embedding = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    assert first[embedding] == [49408, 768]
    block = "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_weight"
    assert second[block] == [3072, 1024]


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_every_tensor_of_the_real_networks_is_found(real, name):
    """diffusers' translation of the names, without content: nothing is missing, of another shape or
    left over.
    """
    shapes = {key: tuple(shape) for key, shape in real[name].items()}
    file = single_files.SingleFile(Path("none"), shapes, layouts()[name], None)
    begins = {"unet": UNET, "vae": "first_stage_model.", "text_encoder": file.layout["text"]}
    for part, begin in begins.items():
        tensors = {
            key: torch.empty(shape, device="meta")
            for key, shape in shapes.items()
            if key.startswith(begin)
        }
        network = originals.empty_network(file, part)
        wanted = network.state_dict()
        state = originals.converted(file, part, network, tensors)
        assert state.keys() == wanted.keys()
        assert not list(originals.misfits(wanted, state))


@pytest.mark.parametrize(
    ("name", "header", "kind"),
    [
        ("sd1", {}, SD1),
        ("sd2", {"modelspec.prediction_type": "v"}, SD2_V),
        ("sd2", {"modelspec.prediction_type": "epsilon"}, SD2_BASE),
        ("sd2", {"modelspec.architecture": "stable-diffusion-v2-768-v"}, SD2_V),
        ("sd2", {"modelspec.architecture": "stable-diffusion-v2-512"}, SD2_BASE),
        ("sd2", {}, None),
    ],
)
def test_what_a_real_file_is(real, tmp_path, name, header, kind):
    """By its header: the file has the length of one in float16, and takes no room."""
    path = tmp_path / "model.safetensors"
    write_header(path, real[name], **header)
    assert resolve_model(str(path)) == str(path)
    if kind is None:
        with pytest.raises(Unknown, match="512 and of 768 pixels have the same tensors"):
            kind_of(str(path))
    else:
        assert kind_of(str(path)) == kind


# --- what is refused, by name, before weights load


def replaced(shapes: dict, **changes) -> dict:
    """With other shapes; None takes a tensor out."""
    made = shapes | changes
    return {name: shape for name, shape in made.items() if shape is not None}


def only(shapes: dict, begin: str, prefix: str = "") -> dict:
    """The tensors whose names begin so, with another beginning."""
    kept = {name: shapes[name] for name in shapes if name.startswith(begin)}
    return {prefix + name.removeprefix(begin): shape for name, shape in kept.items()}


def others(first: dict, second: dict) -> dict[str, tuple[dict, str]]:
    """What a file holds that is refused -> (its tensors, what is said)."""
    one = [4, 4]
    lora = "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"
    peft = "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"
    xl = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
    text = "text_model.encoder.layers.0.mlp.fc1.weight"
    label = f"{UNET}label_emb.0.0.weight"
    return {
        "inpainting 1": (replaced(first, **{FIRST: [320, 9, 3, 3]}), "an inpainting model"),
        "inpainting 2": (replaced(second, **{FIRST: [320, 9, 3, 3]}), "an inpainting model"),
        "depth": (replaced(second, **{FIRST: [320, 5, 3, 3]}), "reads a depth map"),
        "editing": (replaced(first, **{FIRST: [320, 8, 3, 3]}), "InstructPix2Pix"),
        "unclip": (replaced(second, **{label: one}), "class labels, sizes or an image"),
        "XL": (first | {xl: [1280]}, "Stable Diffusion XL"),
        "3": ({"model.diffusion_model.joint_blocks.0.x": one}, "Stable Diffusion 3"),
        "Flux": ({"double_blocks.0.img_attn.norm.key_norm.scale": [128]}, "Flux"),
        "LoRA": ({lora: one}, "a LoRA"),
        "LoRA of peft": ({peft: one}, "a LoRA"),
        "LyCORIS": ({"lora_unet_x.hada_w1_a": one}, "a LoRA"),
        "ControlNet": ({"control_model.time_embed.0.weight": one}, "a ControlNet"),
        "ControlNet 2": ({"controlnet_cond_embedding.conv_in.weight": one}, "a ControlNet"),
        "VAE": (only(first, "first_stage_model."), "a VAE alone"),
        "VAE 2": (only(first, "first_stage_model.", "first_stage_model."), "a VAE alone"),
        "text": ({text: one}, "a text encoder alone"),
        "UNet of diffusers": ({"time_embedding.linear_1.weight": one}, "--unet_id"),
        "UNet": (only(first, UNET, UNET), "without its VAE (first_stage_model.*) and its text"),
        "no VAE": (
            {name: first[name] for name in first if "first_stage" not in name},
            "without its VAE (first_stage_model.*)",
        ),
        "embedding": ({"emb_params": [1, 768]}, "textual inversion"),
        "motion": ({"down_blocks.0.motion_modules.0.x": one}, "a model of moving pictures"),
        "narrow": (replaced(first, **{FIRST: [32, 4, 3, 3]}), "of a width that is not known"),
        "nothing": ({}, "it has no tensors"),
        "something": ({"a": [1], "b": [1]}, "of a kind that is not known; its tensors are a, b"),
    }


NAMES = tuple(others({FIRST: [320, 4, 3, 3]}, {FIRST: [320, 4, 3, 3]}))


@pytest.mark.parametrize("what", NAMES)
def test_other_files_are_refused_by_name(real, tmp_path, what, capsys):
    shapes, told = others(real["sd1"], real["sd2"])[what]
    path = tmp_path / "model.safetensors"
    write_header(path, shapes)
    assert generate_images.main(["--model_id", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{path} is " in said and told in said
    assert "one file of Stable Diffusion 1 or 2" in said


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin", "model"])
def test_a_pickle_is_refused_with_what_to_type(tmp_path, name, capsys):
    path = tmp_path / name
    torch.save({"state_dict": {"a": torch.arange(3)}}, path)
    assert generate_images.main(["--model_id", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "is a pickle, which can run programs" in said
    code = said.split('python -c "')[1].rsplit('"', 1)[0]
    exec(code)
    assert load_file(path.with_suffix(".safetensors"))["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"<html>" * 100, "is no safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "`git lfs pull`"),
        (b"\x0a\x00\x00\x00\x00\x00\x00\x00", "is no safetensors file"),
        (b'\x11\x00\x00\x00\x00\x00\x00\x00{"a": {"dtype":1}}', "is no safetensors file"),
    ],
)
def test_a_file_that_is_damaged(tmp_path, content, told, capsys):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert generate_images.main(["--model_id", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(path) in said and told in said


def test_a_file_that_was_cut(embedded, tmp_path, capsys):
    file = written(tmp_path / "x.safetensors", "tiny")
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[: size // 2])
    assert generate_images.main(["--model_id", str(file)]) == 2
    assert f"{file} has {size // 2} of {size} bytes" in capsys.readouterr().err


def test_a_file_of_another_kind(tmp_path, capsys):
    path = tmp_path / "prompts.csv"
    path.write_text("Caption\na\n")
    assert generate_images.main(["--model_id", str(path)]) == 2
    assert f"{path} is a file and no .safetensors checkpoint" in capsys.readouterr().err


def test_a_folder_around_a_file(tmp_path, capsys):
    """As a repository without diffusers' layout is downloaded."""
    (tmp_path / "v1-5.safetensors").touch()
    assert generate_images.main(["--model_id", str(tmp_path)]) == 2
    assert "no model_index.json. It has v1-5.safetensors: give one file" in capsys.readouterr().err


# --- identity


def test_a_sweep_in_another_folder_finds_the_file_and_its_tokenizer(embedded, tmp_path):
    file = written(tmp_path / "a.safetensors", "tiny")
    assert names_file("model_id", str(file)) and not names_file("model_id", "owner/name")
    assert names_file("tokenizer", "folder") and not names_file("tokenizer", "")


def test_a_file_is_known_by_its_content_and_its_tokenizer(embedded, tmp_path):
    file = written(tmp_path / "a.safetensors", "tiny")
    moved = Path(shutil.copy(file, tmp_path / "b.safetensors"))
    assert fingerprint(str(file)) == fingerprint(str(moved))
    tokenizer = Path(shutil.copytree(tiny.MODELS["tiny"] / "tokenizer", tmp_path / "tokenizer"))
    with_tokenizer = fingerprint(str(file), str(tokenizer))
    assert with_tokenizer != fingerprint(str(file))
    config = tokenizer / "tokenizer_config.json"
    config.write_text(config.read_text() + " ")
    assert fingerprint(str(file), str(tokenizer)) != with_tokenizer
    edited(moved, lambda state: {name: tensor + 1 for name, tensor in state.items()})
    assert fingerprint(str(moved)) != fingerprint(str(file))


def test_the_layouts_of_a_file_are_read(real, tmp_path):
    path = tmp_path / "model.safetensors"
    write_header(path, real["sd1"])
    file = read_single_file(path)
    assert file.layout["title"] == "Stable Diffusion 1" and file.predicts == "epsilon"
    with pytest.raises(ValueError, match="has no tokenizer"):
        file.read("tokenizer/vocab.json")
