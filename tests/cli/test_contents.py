"""A run goes on only with the same inputs, by what is in them: not by their names or places."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from memorization_suite.commands.sweeps.sweep import plan_sweep
from memorization_suite.generate_images import main
from memorization_suite.pipelines.fingerprints import fingerprint
from tests.cli.helpers import change_byte, copied, refused

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(random_sd_folder, tmp_path) -> Path:
    """A copy of the model, to be changed."""
    return Path(shutil.copytree(random_sd_folder, tmp_path / "A" / Path(random_sd_folder).name))


@pytest.fixture
def asked(base, whole, model, tmp_path) -> list[str]:
    """The flags of a finished run, below "my runs", whose model is the copy."""
    copied(whole("per_image"), tmp_path / "my runs")
    words = [str(model) if word == base[1] else word for word in base]
    return [*words, "--output_path", str(tmp_path / "my runs")]


def edit(file: Path, **values) -> None:
    """Changes values of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def other_unet(model: Path) -> None:
    """The UNet is a link to a folder elsewhere, whose weights are others."""
    elsewhere = model.parent / "elsewhere"
    (model / "unet").rename(elsewhere)
    (model / "unet").symlink_to(elsewhere)
    change_byte(elsewhere / Path(UNET).name, -1)


def another_shard(model: Path) -> None:
    """Weights in two files and their index, of which the second file is another."""
    whole = model / UNET
    stem = "diffusion_pytorch_model"
    for number in (1, 2):
        shutil.copy(whole, model / "unet" / f"{stem}-0000{number}-of-00002.safetensors")
    whole.unlink()
    (model / "unet" / f"{stem}.safetensors.index.json").write_text("{}")


OTHERS = {
    "the unet's last byte": lambda model: change_byte(model / UNET, -1),
    "behind the first MiB": lambda model: change_byte(model / UNET, 2**20 + 7),
    "the vae": lambda model: change_byte(model / "vae" / "diffusion_pytorch_model.safetensors", -1),
    "the text encoder": lambda model: change_byte(model / "text_encoder/model.safetensors", -1),
    "a linked unet": other_unet,
    "shards": another_shard,
    "a tokenizer's file": lambda model: edit(model / "tokenizer/tokenizer_config.json", x=1),
    "a tokenizer's model": lambda model: (model / "tokenizer/spiece.model").write_bytes(b"x"),
    "the scheduler": lambda model: edit(model / "scheduler/scheduler_config.json", beta_end=0.01),
    "the index": lambda model: edit(model / "model_index.json", requires_safety_checker=True),
}
SAME = {
    "a readme": lambda model: (model / "unet/README.md").write_text("x"),
    "a picture": lambda model: (model / "sample.png").write_bytes(b"x"),
    "statistics beside it": lambda model: (model / "stability.json").write_text("{}"),
    "a variant": lambda model: (
        model / "unet/diffusion_pytorch_model.fp16.safetensors"
    ).write_bytes(b"x"),
    "a sharded variant": lambda model: (
        model / "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors"
    ).write_bytes(b"x"),
    "another format": lambda model: (model / "unet/diffusion_pytorch_model.bin").write_bytes(b"x"),
    "of flax": lambda model: (model / "text_encoder/flax_model.msgpack").write_bytes(b"x"),
    "a safety checker": lambda model: shutil.copytree(model / "vae", model / "safety_checker"),
    "a hidden file": lambda model: (model / "unet/.cache").write_text("x"),
    "a new time": lambda model: os.utime(model / UNET),
}


@pytest.mark.parametrize("change", OTHERS)
def test_another_model_of_the_same_name_is_refused(asked, model, capsys, no_model, change):
    """And what is to be typed instead is free, and good for a shell."""
    OTHERS[change](model)
    refused(capsys, asked, "holds another run (model_id: ")
    main(asked)
    told = re.search(r"--output_path (.*), or --overwrite", capsys.readouterr().err)
    (place,) = shlex.split(told[1])
    assert Path(place).parent == model.parents[1] and not Path(place).exists()
    assert Path(place).name == f"my runs_A-{model.name}"


@pytest.mark.parametrize("change", SAME)
def test_what_is_not_read_makes_no_other_model(asked, model, capsys, no_model, change):
    before = fingerprint(str(model))
    SAME[change](model)
    assert fingerprint(str(model)) == before
    assert main(asked) == 0 and "nothing to make" in capsys.readouterr().out


def test_a_model_that_moved_and_is_called_otherwise_is_the_same(
    asked, model, tmp_path, capsys, no_model
):
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    shutil.move(model, moved)
    words = [str(moved) if word == str(model) else word for word in asked]
    assert main(words) == 0 and "nothing to make" in capsys.readouterr().out
    link = tmp_path / "link"
    link.symlink_to(moved)
    words = [str(link) if word == str(moved) else word for word in words]
    assert main(words) == 0 and "nothing to make" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "told", "place"),
    [
        (("--num_inference_steps", "5"), "num_inference_steps: 4 there, 5 now", "my runs_steps5"),
        (("-b", "1"), "batch_size: 2 there, 1 now", "my runs_batch1"),
        (("--scheduler", "euler"), "scheduler: 'ddim' there", "my runs_euler"),
        (
            ("--num_inference_steps", "5", "--dtype", "bf16", "-b", "1"),
            "dtype: 'fp32' there, 'bf16' now",
            "my runs_steps5_batch1",
        ),
    ],
)
def test_other_settings_are_refused_with_a_place_of_their_own(
    asked, tmp_path, capsys, no_model, typed, told, place
):
    wanted = f"--output_path {shlex.quote(str(tmp_path / place))}, or --overwrite to start over."
    refused(capsys, [*asked, *typed], told)
    assert main([*asked, *typed]) == 2 and wanted in capsys.readouterr().err
    (tmp_path / place / "no_mitigation" / "g7_seed2").mkdir(parents=True)
    assert main([*asked, *typed]) == 2 and wanted in capsys.readouterr().err  # it is empty
    (tmp_path / place / "no_mitigation" / "g7_seed2" / "mine").touch()
    assert main([*asked, *typed]) == 2 and f"{place}_2'," in capsys.readouterr().err


def test_a_place_that_holds_this_very_run_fits(asked, generate, tmp_path, capsys, loaded):
    place = tmp_path / "my runs_batch1"
    generate(place, "-b", "1")
    capsys.readouterr()
    words = [*asked, "-b", "1"]
    assert main(words) == 2 and f"--output_path '{place}', or" in capsys.readouterr().err
    assert main([*words, "--output_path", str(place)]) == 0
    assert "nothing to make" in capsys.readouterr().out


def test_below_the_folder_where_one_is(asked, tmp_path, capsys, no_model, monkeypatch):
    monkeypatch.chdir(tmp_path / "my runs")
    words = [*asked, "--num_inference_steps", "5", "--output_path"]
    for typed, told in ((".", "steps5,"), ("../my runs", "'../my runs_steps5',")):
        assert main([*words, typed]) == 2 and f"--output_path {told}" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["", "unet"])
def test_another_unet_of_the_same_name_is_refused(asked, base, tmp_path, capsys, no_model, place):
    """The folder of --unet_id, itself or in its subfolder, is in the run's identity."""
    unet = tmp_path / "unet_id"
    shutil.copytree(Path(base[1]) / "unet", unet / place)
    run = next((tmp_path / "my runs").glob("*/*")) / "manifest.json"
    words = [*asked, "--unet_id", str(unet)]
    refused(capsys, words, "unet_id: None there, ")
    manifest = json.loads(run.read_text())
    manifest["identity"]["unet_id"] = str(unet)  # as earlier versions wrote it
    run.write_text(json.dumps(manifest))
    assert (
        main(words) == 0
        and "looked at other files or other parts of unet_id" in capsys.readouterr().err
    )
    assert json.loads(run.read_text())["identity"]["unet_id"].startswith("sha256 ")
    moved = shutil.copytree(unet, tmp_path / "moved")
    assert main([*asked, "--unet_id", str(moved)]) == 0
    (unet / place / "README.md").write_text("x")
    assert main(words) == 0
    change_byte(unet / place / "diffusion_pytorch_model.safetensors", -1)
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "holds another run (unet_id: " in error and "my runs_unet_id'" in error


def test_a_prompt_file_that_changed_names_both(asked, prompt_file, tmp_path, capsys, no_model):
    other = tmp_path / "six.txt"
    other.write_text("another\n" * 5)
    words = [str(other) if word == prompt_file else word for word in asked]
    refused(capsys, words, f"{other} (")
    assert main(words) == 2 and "my runs_six.txt'" in capsys.readouterr().err


def test_a_sweep_over_two_models_of_one_name_has_a_folder_for_each(model, asked, tmp_path):
    """Their content tells them apart, and so do the folders' names; of one model they stay."""
    other = shutil.copytree(model, tmp_path / "B" / model.name)
    change_byte(other / UNET, -1)
    prompts = asked[asked.index("--prompts") + 1]
    file = tmp_path / "sweep.toml"
    common = f'prompts = "{prompts}"\nimage_length = 32\nnum_inference_steps = 4\n'
    names = {}
    for value in (f'["{model}", "{other}"]', f'["{model}", "tiny"]'):
        file.write_text(f'[common]\nmodel_id = {value}\n{common}[[run]]\nmethod = "no_mitigation"')
        entries = plan_sweep(file, tmp_path / "out")
        names[value] = [
            entry.plan.folder.relative_to(tmp_path / "out").parts[0] for entry in entries
        ]
    apart, usual = names.values()
    assert apart == [f"model_idA-{model.name}", f"model_idB-{model.name}"]
    assert usual == [f"model_id{model.name}", "model_idtiny"]
