"""Model folders that lack tensors, or whose tokenizer is none: refused by every command, with the
names of what is wrong. What loads whole under other names stays good.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers

from memorization_suite import detect_memorization, generate_images, tiny
from memorization_suite.mitigation import build_mitigation
from memorization_suite.pipelines import MemorizationPipeline
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.pipelines.stable_diffusion.parts import class_of
from memorization_suite.pipelines.stable_diffusion.tokens import fault_of_tokens, fault_of_words
from memorization_suite.runs.weights import Incomplete, Report
from memorization_suite.sampling.denoiser import Unusable
from tests.tiny_folders import UNET, WEIGHTS, changed, configured, without

PARTS = tuple(WEIGHTS)
LOST = {
    "unet": "conv_out.bias",
    "vae": "decoder.conv_out.bias",
    "text_encoder": "encoder.layers.0.mlp.fc1.weight",
}


@pytest.fixture
def model(tmp_path) -> Path:
    """A copy of the embedded model."""
    return Path(shutil.copytree(tiny.MODELS["tiny"], tmp_path / "model"))


def refusal(model: Path, **more) -> str:
    """What is said of a model that is not loaded."""
    with pytest.raises(ValueError, match="^cannot load --") as error:
        load_pipeline(str(model), **more)
    return str(error.value)


# --- tensors


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_lacks_one(model, part):
    changed(model, part, without(LOST[part]))
    told = refusal(model)
    assert f"its {part} is not complete: {model / part} lacks 1 tensor ({LOST[part]})" in told
    with pytest.raises(Incomplete, match=LOST[part]):
        MemorizationPipeline.from_pretrained(model)


@pytest.mark.parametrize("part", PARTS)
def test_a_prefix_on_every_key(model, part):
    changed(model, part, lambda state: {f"module.x.{name}": state[name] for name in state})
    told = refusal(model)
    assert f"its {part} is not complete" in told
    assert " unexpected tensors (module.x." in told


@pytest.mark.parametrize("part", PARTS)
def test_a_tensor_of_another_shape(model, part):
    name = LOST[part]
    changed(model, part, lambda state: state | {name: state[name][:-1].contiguous()})
    shape = list(load_file(tiny.MODELS["tiny"] / part / WEIGHTS[part])[name].shape)
    told = f"1 tensor of another shape ({name} is {[shape[0] - 1, *shape[1:]]} in place of {shape})"
    assert told in refusal(model)


@pytest.mark.parametrize("part", PARTS)
def test_a_pickle_that_lacks_one(model, part):
    file = model / part / WEIGHTS[part]
    state = without(LOST[part])(load_file(file))
    file.unlink()
    stem = "pytorch_model" if part == "text_encoder" else "diffusion_pytorch_model"
    torch.save(state, model / part / f"{stem}.bin")
    assert f"lacks 1 tensor ({LOST[part]})" in refusal(model)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_piece_that_lacks_what_the_list_of_pieces_promises(model, part):
    kinds = {"unet": UNet2DConditionModel, "text_encoder": transformers.CLIPTextModel}
    network = kinds[part].from_pretrained(model / part)
    shutil.rmtree(model / part)
    network.save_pretrained(model / part, max_shard_size="500KB")
    load_pipeline(str(model))
    piece = next(path for path in (model / part).glob("*-of-*.safetensors"))
    state = load_file(piece)
    lost, _ = state.popitem()
    save_file(state, piece, metadata={"format": "pt"})
    assert f"lacks 1 tensor ({lost})" in refusal(model)


@pytest.mark.parametrize("part", PARTS)
def test_a_tensor_too_many_is_named_once(model, part, capsys):
    changed(model, part, lambda state: state | {"surplus.weight": torch.zeros(3)})
    load_pipeline(str(model))
    line = f"its {part}: {model / part} has 1 unexpected tensor (surplus.weight), not used\n"
    assert capsys.readouterr().err.count(line) == 1


def same(one, other) -> bool:
    """Whether two networks have the same tensors."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("stored", ["as it is", "prefix", "whole CLIP"])
def test_text_encoders_that_stay_good(model, stored, capsys):
    """A prefix of 2022 with position ids, and a checkpoint that holds the image encoder too."""
    folder = model / "text_encoder"
    ours = transformers.CLIPTextModel.from_pretrained(folder)
    if stored == "prefix":
        ids = {"text_model.embeddings.position_ids": torch.arange(77)[None]}

        def renamed(state):
            return {f"text_model.{name}": state[name] for name in state} | ids

        changed(model, "text_encoder", renamed)
    if stored == "whole CLIP":
        small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        text = ours.config.to_dict()
        clip = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=small | {"image_size": 32})
        )
        clip.text_model.load_state_dict(ours.state_dict())
        shutil.rmtree(folder)
        clip.save_pretrained(folder)
    capsys.readouterr()
    assert same(load_pipeline(str(model)).text_encoder, ours.float())
    assert ("vision_model" in capsys.readouterr().err) == (stored == "whole CLIP")


@pytest.mark.parametrize("place", ["unet", "."])
def test_another_unet_that_lacks_one(model, tmp_path, place):
    unet = Path(shutil.copytree(model / "unet", tmp_path / "other" / place, dirs_exist_ok=True))
    state = without("conv_out.bias")(load_file(unet / UNET))
    save_file(state, unet / UNET, metadata={"format": "pt"})
    told = refusal(model, unet_id=str(tmp_path / "other"))
    assert told.startswith("cannot load --unet_id") and told.endswith("1 tensor (conv_out.bias)")


def test_python_gets_the_network_that_it_gives(model):
    """A network that is given is not loaded; one that is loaded is as diffusers loads it."""
    unet = UNet2DConditionModel.from_pretrained(model / "unet")
    changed(model, "unet", without("conv_out.bias"))
    pipe = MemorizationPipeline.from_pretrained(model, unet=unet, torch_dtype=torch.bfloat16)
    assert pipe.unet is unet and pipe.vae.dtype == torch.bfloat16
    assert pipe.name_or_path == str(model)


def test_a_text_encoder_may_lack_what_no_output_uses(model):
    """BERT's pooler, which other checkpoints have no tensors of."""
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    bert = transformers.BertModel(
        transformers.BertConfig(vocab_size=1166, hidden_size=128, **small), add_pooling_layer=False
    )
    shutil.rmtree(model / "text_encoder")
    bert.save_pretrained(model / "text_encoder")
    configured(model, "model_index.json", text_encoder=["transformers", "BertModel"])
    load_pipeline(str(model))
    changed(model, "text_encoder", without("encoder.layer.0.output.dense.bias"))
    told = refusal(model)
    assert "lacks 1 tensor (encoder.layer.0.output.dense.bias)" in told and "pooler" not in told


def test_a_dtype_that_is_text_is_float32_of_every_part(model):
    """As diffusers takes it, which says so."""
    pipe = MemorizationPipeline.from_pretrained(model, torch_dtype="float16")
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.float32}


def test_a_safety_checker_is_left_to_diffusers():
    """It takes no object in the place of a pipeline's own part without a long remark."""
    assert class_of(("stable_diffusion", "StableDiffusionSafetyChecker")) is None
    assert class_of(("diffusers", "UNet2DConditionModel")) is UNet2DConditionModel


def test_a_part_that_the_pipeline_does_not_take_is_not_read(model):
    shutil.copytree(model / "unet", model / "unet_2")
    (model / "unet_2" / UNET).write_bytes(b"none")
    configured(model, "model_index.json", unet_2=["diffusers", "UNet2DConditionModel"])
    load_pipeline(str(model))


def test_what_is_not_checked_is_said(model, capsys):
    MemorizationPipeline.from_pretrained(model, device_map="cpu")
    line = "its networks are loaded by diffusers, with device_map; whether they are whole is not"
    assert line in capsys.readouterr().err


# --- tokenizers


def tokenizer_json(model: Path) -> dict:
    return json.loads((model / "tokenizer" / "tokenizer.json").read_text())


def with_tokenizer(model: Path, content: dict) -> None:
    (model / "tokenizer" / "tokenizer.json").write_text(json.dumps(content))


def lose_vocabulary(model: Path) -> None:
    (model / "tokenizer" / "tokenizer.json").unlink()


def lose_merges(model: Path) -> None:
    content = tokenizer_json(model)
    merges = content["model"]["merges"]
    content["model"]["merges"] = merges[: int(0.8 * len(merges))]
    with_tokenizer(model, content)


def lose_entries(model: Path) -> None:
    content = tokenizer_json(model)
    kept = {entry: i for entry, i in content["model"]["vocab"].items() if i < 300}
    content["model"] |= {"vocab": kept, "merges": []}
    with_tokenizer(model, content)


def leave_no_room(model: Path) -> None:
    settings(model, model_max_length=2)


def settings(model: Path, **values) -> None:
    """Changes tokenizer_config.json."""
    file = model / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def add_token(model: Path) -> transformers.CLIPTokenizer:
    tokenizer = transformers.CLIPTokenizer.from_pretrained(model / "tokenizer")
    tokenizer.add_tokens("<cat-toy>")
    tokenizer.save_pretrained(model / "tokenizer")
    return tokenizer


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lose_vocabulary, "its tokenizer has no vocabulary: 2 entries, none of them a word"),
        (lose_merges, "words of its own vocabulary to pieces ("),
        (lose_entries, "its tokenizer cannot take a caption apart"),
        (leave_no_room, "its tokenizer does not tell captions apart"),
        (add_token, "its text encoder's table only 1166: '<cat-toy>' has no embedding"),
    ],
)
def test_a_tokenizer_that_is_none(model, damage, told):
    damage(model)
    assert told in refusal(model)


def test_a_tokenizer_of_another_model(tmp_path, capsys):
    """A larger one is refused; of a smaller one is said that it ends captions otherwise."""
    for one, other in (("tiny-v", "tiny"), ("tiny", "tiny-v")):
        shutil.copytree(tiny.MODELS[one], tmp_path / one)
        shutil.rmtree(tmp_path / one / "tokenizer")
        shutil.copytree(tiny.MODELS[other] / "tokenizer", tmp_path / one / "tokenizer")
    assert "has 1166 entries, and its text encoder's table only 1053" in refusal(
        tmp_path / "tiny-v"
    )
    capsys.readouterr()
    load_pipeline(str(tmp_path / "tiny"))
    told = "ends a caption with token 1052, and its text encoder knows 1165: are they of one model?"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("lost", ["", "embeddings.token_embedding.weight"])
def test_a_text_encoder_of_zeros(model, lost):
    """All of it, or the vectors of its entries alone: every caption would be the empty one."""

    def zeros(state):
        return {
            name: torch.zeros_like(tensor) if lost in name else tensor
            for name, tensor in state.items()
        }

    changed(model, "text_encoder", zeros)
    told = refusal(model)
    assert "its text encoder gives every caption the same embedding" in told
    assert "\n" not in told
    with pytest.raises(Incomplete, match="the same embedding"):
        MemorizationPipeline.from_pretrained(model)


@pytest.mark.parametrize("rows", [1167, 1184])
def test_a_text_encoder_that_grew_with_its_tokenizer_stays_good(model, rows, capsys):
    """As textual inversion leaves it, and with rows for whole blocks."""
    tokenizer = add_token(model)
    encoder = transformers.CLIPTextModel.from_pretrained(model / "text_encoder")
    encoder.resize_token_embeddings(rows)
    encoder.save_pretrained(model / "text_encoder")
    capsys.readouterr()
    pipe = load_pipeline(str(model))
    assert pipe.tokenizer("a <cat-toy>").input_ids[-2] == len(tokenizer) - 1
    assert torch.isfinite(pipe.encode(["a <cat-toy>"]).tokens).all()
    assert not capsys.readouterr().err


@pytest.mark.parametrize("values", [{"model_max_length": 10**30}, {"pad_token": "<|endoftext|>"}])
def test_a_tokenizer_that_does_not_know_its_length_stays_good(model, values):
    settings(model, **values)
    assert load_pipeline(str(model)).max_tokens == 77
    assert MemorizationPipeline.from_pretrained(model).tokenizer.model_max_length == 77


@pytest.mark.parametrize("name", tiny.MODELS)
def test_the_words_of_a_whole_vocabulary_come_back(name):
    folder = tiny.MODELS[name] / "tokenizer"
    assert fault_of_words(transformers.CLIPTokenizer.from_pretrained(folder)) == ""


def clips_test_vocabulary() -> transformers.CLIPTokenizer:
    """Of transformers' own tests: 23 entries, of which merges make few."""
    entries = "l o w e r s t i d n lo l</w> w</w> r</w> t</w> low</w> er</w> lowest</w> newer</w>"
    entries = f"{entries} wider <unk> <|startoftext|> <|endoftext|>".split()
    return transformers.CLIPTokenizer(
        {entry: i for i, entry in enumerate(entries)},
        [("l", "o"), ("lo", "w</w>"), ("e", "r</w>")],
        unk_token="<unk>",
        model_max_length=77,
    )


def bytes_alone() -> transformers.CLIPTokenizer:
    """Every byte, within a word and at its end, and no merges."""
    entries = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries += [f"{entry}</w>" for entry in entries] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {entry: i for i, entry in enumerate(entries)}
    return transformers.CLIPTokenizer(vocabulary, [], model_max_length=77)


def test_tokenizers_of_few_entries_stay_good():
    assert fault_of_tokens(clips_test_vocabulary()) == ""
    assert fault_of_tokens(bytes_alone()) == ""


def test_a_token_may_get_its_row_later(model):
    """As textual inversion begins; what is given is left as it is."""
    tokenizer = transformers.CLIPTokenizer.from_pretrained(model / "tokenizer")
    tokenizer.add_tokens("<cat-toy>")
    tokenizer.model_max_length = 90
    pipe = MemorizationPipeline.from_pretrained(model, tokenizer=tokenizer)
    pipe.text_encoder.resize_token_embeddings(len(tokenizer))
    assert tokenizer.model_max_length == 90


def test_a_tokenizer_without_a_begin_token(model):
    """Without a mitigation the pipeline is diffusers' own, which runs it."""
    pipe = MemorizationPipeline.from_pretrained(model, dtype=torch.float32)
    pipe.tokenizer._tokenizer.post_processor = None  # which the class itself puts in
    options = {"num_inference_steps": 1, "output_type": "latent"}
    assert pipe("a red square", **options).images.shape == (1, 4, 16, 16)
    with pytest.raises(Unusable, match="puts no begin and no end token around a caption"):
        pipe("a red square", mitigation=build_mitigation("no_mitigation"), **options)
    assert fault_of_tokens(pipe.tokenizer) == ""


# --- commands


@pytest.mark.parametrize("command", [generate_images, detect_memorization])
@pytest.mark.parametrize("damage", ["tensor", "vocabulary", "token"])
def test_commands_refuse_with_one_line(model, tmp_path, command, damage, capsys):
    if damage == "tensor":
        changed(model, "text_encoder", without(LOST["text_encoder"]))
    elif damage == "vocabulary":
        lose_vocabulary(model)
    else:
        add_token(model)
    (tmp_path / "p.txt").write_text("a red square\ntwo cats\n")
    argv = ["--model_id", str(model), "--prompts", str(tmp_path / "p.txt"), "--quiet"]
    argv += ["--output_path", str(tmp_path / "out")]
    if command is detect_memorization:
        argv += ["--detector", "noise_norm"]
    capsys.readouterr()
    assert command.main(argv) == 2
    out, error = capsys.readouterr()
    *_, line = error.splitlines()
    assert f"cannot load --model_id {model}: its " in line and "Traceback" not in error
    assert not out and not list(tmp_path.rglob("*.png"))


# --- what torch says


def test_what_load_state_dict_raises_is_read():
    network = torch.nn.Linear(3, 2)
    with pytest.raises(RuntimeError) as error:
        network.load_state_dict({"weight": torch.zeros(4, 3), "other": torch.zeros(1)})
    report = Report.of_error(error.value)
    assert report == Report(("bias",), (("weight", "4, 3", "2, 3"),), ("other",))
    assert report.fault() == (
        "lacks 1 tensor (bias), and has 1 tensor of another shape (weight is [4, 3] in place of "
        "[2, 3]), and has 1 unexpected tensor (other)"
    )
    assert Report.of_error(RuntimeError("out of memory")) is None
