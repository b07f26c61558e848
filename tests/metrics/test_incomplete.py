"""Checkpoints of metrics that are not whole: refused with the names of what they lack."""

import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from memorization_suite.commands.score_scripts import run_script
from memorization_suite.metrics import lpips_diversity
from memorization_suite.metrics.image_reward import ImageReward, check_depth, load_blip, renamed
from memorization_suite.metrics.lpips_diversity import check_heads
from memorization_suite.metrics.scripts import COPIES, PREFERENCE
from memorization_suite.runs.table import read_results
from memorization_suite.runs.weights import Incomplete


def refused(capsys, run, script, *flags) -> str:
    """The last line of a script that scores nothing."""
    assert run_script(script, ["--gen_folder", str(run.path), *map(str, flags)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and not read_results(run.path)
    return error.splitlines()[-1]


def without(state: dict, *names: str) -> dict:
    """The state without the tensors of these names."""
    assert set(names) <= set(state)
    return {name: tensor for name, tensor in state.items() if name not in names}


def prefixed(state: dict) -> dict:
    """The state as a wrapper of the network would have stored it."""
    return {f"module.net.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda state: without(state, "features.3.weight"),
            "lacks 1 tensor (features.3.weight)",
        ),
        (prefixed, "lacks 10 tensors (features.0.weight, features.0.bias, features.3.weight and 7"),
        (
            lambda state: state | {"features.0.bias": torch.zeros(3)},
            "(features.0.bias is [3] in place of [64])",
        ),
    ],
)
def test_alexnet(run, alexnet_file, tmp_path, capsys, change, told):
    file = tmp_path / "alexnet.pth"
    torch.save(change(torch.load(alexnet_file, weights_only=True)), file)
    line = refused(capsys, run, PREFERENCE, "--alexnet", file)
    assert f"AlexNet is not complete: {file} " in line and told in line


def test_the_heads_in_the_package_of_lpips(tmp_path, monkeypatch):
    import lpips

    model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    stored = {name: tensor for name, tensor in model.state_dict().items() if name[:3] == "lin"}
    (tmp_path / "weights" / "v0.1").mkdir(parents=True)
    torch.save(without(stored, "lin2.model.1.weight"), tmp_path / "weights" / "v0.1" / "alex.pth")
    monkeypatch.setattr(lpips_diversity.lpips, "__file__", str(tmp_path / "x.py"), raising=False)
    with pytest.raises(Incomplete, match=r"lacks 1 tensor \(lin2\.model\.1\.weight\)"):
        check_heads(model)


def test_clip(run, clip_file, tmp_path, capsys):
    file = tmp_path / "clip.safetensors"
    save_file(without(load_file(clip_file), "text_projection", "ln_final.bias"), file)
    line = refused(capsys, run, COPIES, "--metrics", "clip", "--clip_checkpoint", file)
    told = "lacks 2 tensors (text_projection, ln_final.bias)"
    assert f"{file} is no whole open_clip's ViT-B-32: it {told}" in line


def test_image_reward(run, reward_file, reward_state, tokenizer_folder, tmp_path, capsys):
    torch.save(without(reward_state, "mlp.layers.7.weight"), tmp_path / "reward.pt")
    flags = ("--image_reward_checkpoint", tmp_path / "reward.pt")
    flags += ("--image_reward_tokenizer", tokenizer_folder, "--metrics", "image_reward")
    line = refused(capsys, run, PREFERENCE, *flags)
    assert "reward.pt lacks 1 tensor (head.7.weight)" in line


@pytest.mark.parametrize("found", [(23, 12), (24, 11), (13, 6), (12, 7), (2, 0), (0, 0)])
def test_image_reward_without_its_last_layers(found, tmp_path):
    """They are no smaller network."""
    with pytest.raises(Incomplete, match=f"has {found[0]} and {found[1]} layers, .* 24 and 12"):
        check_depth(found, tmp_path)


def test_a_small_network_in_place_of_image_reward_is_named(tmp_path, capsys):
    check_depth((2, 2), tmp_path)
    assert "has 2 and 2 layers, ImageReward 24 and 12" in capsys.readouterr().err
    check_depth((24, 12), tmp_path)
    assert not capsys.readouterr().err


def test_a_layer_in_the_middle_of_image_reward(reward_state, tmp_path):
    lost = [name for name in reward_state if "blocks.0." in name]
    with pytest.raises(Incomplete, match=r"lacks 12 tensors \(vision\.encoder\.layers\.0\."):
        load_blip(renamed(without(reward_state, *lost)), tmp_path)


@pytest.mark.parametrize("kept", [5, 1000])
def test_a_vocabulary_of_bert_that_was_cut(tokenizer_folder, reward_file, tmp_path, kept):
    """Its last two tokens would be other rows of the table."""
    folder = tmp_path / "bert"
    shutil.copytree(tokenizer_folder, folder)
    lines = (folder / "vocab.txt").read_text().splitlines()
    lines[5:5] = [f"[unused{i}]" for i in range(995)]
    (folder / "vocab.txt").write_text("\n".join(lines[: kept + 1]))
    with pytest.raises(ValueError, match=f"has {kept + 3} entries, ImageReward's 30524: its"):
        ImageReward(reward_file, folder)


def test_torchscript_of_sscd(run, sscd_file, tmp_path, capsys):
    """It holds its network, so that a lost tensor is a lost piece of the file."""
    file = tmp_path / "sscd.pt"
    with zipfile.ZipFile(sscd_file) as whole, zipfile.ZipFile(file, "w") as part:
        *names, last = whole.namelist()
        lost = next(name for name in names if "/data/" in name)
        for name in {*names, last} - {lost}:
            part.writestr(name, whole.read(name))
    flags = ("--metrics", "sscd", "--sscd_checkpoint", file, "--gt_folder", tmp_path / "gt")
    line = refused(capsys, run, COPIES, *flags)
    assert "cannot be loaded as a TorchScript SSCD model" in line
