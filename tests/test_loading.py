"""Models as people have them: other schedulers, other UNets, and folders that cannot be run."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler

from memorization_suite import tiny
from memorization_suite.commands.image_job import Job
from memorization_suite.generate_images import main
from memorization_suite.mitigation import build_mitigation
from memorization_suite.pipelines import MemorizationPipeline
from memorization_suite.pipelines.family import can_load
from memorization_suite.pipelines.kinds import Kind, Unknown
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.pipelines.models import (
    PRESETS,
    check_unet,
    load_preset,
    preset_of,
)
from tests.tiny_folders import configured

GRID = [981, 961, 941, 921, 901]


def edited(folder: str, out: Path, file: str, **values) -> Path:
    """A copy of a model folder with some values of a config changed; None removes one."""
    shutil.copytree(folder, out)
    config = json.loads((out / file).read_text()) | values
    (out / file).write_text(
        json.dumps({name: value for name, value in config.items() if value is not None})
    )
    return out


def test_ddim_is_stable_diffusions_whatever_the_config_omits(random_v_folder):
    """An Euler folder has no clip_sample and another spacing; diffusers' defaults would clip the
    latents.
    """
    scheduler = load_pipeline(random_v_folder, scheduler="ddim").scheduler
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[:5].tolist() == GRID and scheduler.timesteps[-1] == 1
    assert (
        not scheduler.config.clip_sample
        and not scheduler.config.set_alpha_to_one
        and scheduler.config.prediction_type == "v_prediction"
    )


def test_ddim_of_a_pndm_folder_is_the_official_one(make_pipe, tmp_path):
    pipe = make_pipe()
    pipe.scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    pipe.save_pretrained(tmp_path)
    scheduler = load_pipeline(str(tmp_path), scheduler="ddim").scheduler
    scheduler.set_timesteps(50)
    assert isinstance(scheduler, DDIMScheduler) and scheduler.timesteps[:5].tolist() == GRID


def test_euler_has_its_own_grid(random_sd_folder):
    scheduler = load_pipeline(random_sd_folder, scheduler="euler").scheduler
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[1].item() == pytest.approx(978.612245, abs=1e-3)
    assert float(scheduler.init_noise_sigma) == pytest.approx(14.6146, abs=1e-3)


def test_the_model_is_frozen_and_of_the_dtype_asked_for(random_sd_folder):
    pipe = load_pipeline(random_sd_folder, dtype="bf16")
    assert pipe.unet.dtype == torch.bfloat16 and not any(
        p.requires_grad for p in pipe.unet.parameters()
    )


@pytest.mark.parametrize("place", ["unet", "."])
def test_another_unet(make_pipe, random_sd_folder, tmp_path, place):
    unet = make_pipe(dtype=torch.bfloat16).unet.float()  # a copy, which may be changed
    with torch.no_grad():
        unet.conv_out.weight.zero_()
    unet.save_pretrained(tmp_path / place)
    assert not load_pipeline(random_sd_folder, unet_id=str(tmp_path)).unet.conv_out.weight.any()


@pytest.mark.parametrize("unet", ["nowhere", "./nowhere", "a/b/c"])
def test_a_unet_that_is_none_is_named(unet, tmp_path):
    with pytest.raises(ValueError, match="--unet_id"):
        check_unet(str(tmp_path / unet))


@pytest.mark.parametrize(
    ("file", "values", "told"),
    [
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "sample"},
            "prediction_type is 'sample'",
        ),
        (
            "scheduler/scheduler_config.json",
            {"rescale_betas_zero_snr": True},
            "zero signal-to-noise",
        ),
    ],
)
def test_what_loads_but_cannot_be_run_is_refused(random_sd_folder, tmp_path, file, values, told):
    with pytest.raises(ValueError, match=told):
        load_pipeline(str(edited(random_sd_folder, tmp_path / "model", file, **values)))


def test_an_incomplete_model_is_named(random_sd_folder, tmp_path):
    shutil.copytree(random_sd_folder, tmp_path / "model")
    next((tmp_path / "model" / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(ValueError, match="its unet cannot be loaded: .*has no weights"):
        load_pipeline(str(tmp_path / "model"))


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError, "^CUDA out of memory$"),
        (Unknown("my model has no readable a.json"), ValueError, "^my model has no readable a"),
        (OSError("no file"), ValueError, r"^cannot load --unet_id .*: OSError: no file$"),
    ],
)
def test_what_a_loader_raises(tmp_path, error, kind, told):
    """Another UNet is not to be replaced by the embedded model."""
    with pytest.raises(kind, match=told) as raised, can_load("--unet_id", str(tmp_path)):
        raise error
    assert "--model_id" not in str(raised.value)


def test_a_path_that_is_not_there_is_named_as_diffusers_does():
    with pytest.raises(ValueError, match="neither a valid local path nor a valid repo id"):
        MemorizationPipeline.from_pretrained("a/b/c")


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.name)
def test_our_presets_are_found_by_their_kind_and_build(path):
    kind = Kind(**tomllib.loads(path.read_text())["kind"])
    source, tables = preset_of(kind)
    assert source.endswith(path.name) and load_preset(str(path), "any")[1] == tables
    for method in tables.keys() - {"generate"}:
        build_mitigation(method, **tables[method])


def arguments(folder: str, tmp_path: Path, *more: str) -> list[str]:
    (tmp_path / "p.txt").write_text("two cats\n")
    return [
        "--model_id",
        folder,
        "--prompts",
        str(tmp_path / "p.txt"),
        "--image_length",
        "32",
        "--num_inference_steps",
        "4",
        "--n_samples_per_prompt",
        "2",
        "--output_path",
        str(tmp_path / "out"),
        "--quiet",
        *more,
    ]


@pytest.mark.parametrize(
    "more",
    [
        ("--scheduler", "keep"),
        ("--scheduler", "euler"),
        ("--scheduler", "ddim"),
        ("--dtype", "bf16"),
    ],
)
def test_a_v_model_runs_from_the_command_line(random_v_folder, tmp_path, more):
    assert (
        main(
            arguments(
                random_v_folder,
                tmp_path,
                *more,
                "--method",
                "batch_wise",
                "--rho",
                "2",
                "--apply_cfg_step",
                "1",
            )
        )
        == 0
    )


def test_a_scheduler_that_draws_noise_repeats_itself(make_pipe, tmp_path):
    from diffusers import EulerAncestralDiscreteScheduler

    pipe = make_pipe()
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path / "model")
    pictures = []
    for out in ("a", "b"):
        argv = arguments(
            str(tmp_path / "model"),
            tmp_path,
            "--scheduler",
            "keep",
            "--output_path",
            str(tmp_path / out),
        )
        assert main(argv) == 0
        pictures.append([path.read_bytes() for path in sorted((tmp_path / out).rglob("*.png"))])
    assert pictures[0] == pictures[1] and pictures[0][0] != pictures[0][1]


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_a_model_that_cannot_be_loaded_changes_no_folder(
    random_sd_folder, tmp_path, overwrite, capsys
):
    """Not the run that is there, and not the folder of the next attempt."""
    broken = edited(
        random_sd_folder,
        tmp_path / "broken",
        "scheduler/scheduler_config.json",
        prediction_type="sample",
    )
    assert main(arguments(str(broken), tmp_path)) == 2
    assert main(arguments(random_sd_folder, tmp_path)) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert main(arguments(str(broken), tmp_path, *overwrite)) == 2
    assert {
        path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()
    } == before


def test_out_of_memory_says_what_to_type(random_sd_folder, tmp_path, monkeypatch, capsys):
    def make(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")

    monkeypatch.setattr(Job, "make", make)
    assert main(arguments(random_sd_folder, tmp_path)) == 1
    assert "--batch_size" in capsys.readouterr().err


def test_odd_captions_survive_a_run_and_its_resume(random_sd_folder, tmp_path):
    argv = arguments(random_sd_folder, tmp_path)
    caption = 'a\rb; "quoted", <b>bold</b> =1+1 \u2028 \u00fc'
    (tmp_path / "odd.jsonl").write_text(json.dumps({"caption": caption}) + "\n")
    argv[3] = str(tmp_path / "odd.jsonl")
    assert main(argv) == 0 and main(argv) == 0
    from memorization_suite.runs.tables import read_csv

    assert [row["prompt"] for row in read_csv(next((tmp_path / "out").rglob("images.csv")))] == [
        caption
    ] * 2


def test_a_preset_names_files_beside_it(tmp_path):
    (tmp_path / "preset.toml").write_text(
        '[stability_regions]\nstatistics = "./a.json"\ngamma_sd = 2.0\n[nemo]\nneurons = '
        '"/b.json"\n'
    )
    assert load_preset(str(tmp_path / "preset.toml"), "any")[1] == {
        "stability_regions": {"statistics": str(tmp_path / "a.json"), "gamma_sd": 2.0},
        "nemo": {"neurons": "/b.json"},
    }


@pytest.mark.parametrize(
    ("own", "choice"),
    [
        ({}, "ddim"),
        ({"timestep_spacing": "trailing"}, "keep"),
        ({"_class_name": "PNDMScheduler", "skip_prk_steps": True}, "keep"),
    ],
)
def test_a_sampler_that_is_kept_knows_its_name(tmp_path, own, choice):
    """The embedded models' own sampler is what --scheduler ddim makes."""
    model = Path(shutil.copytree(tiny.MODELS["tiny"], tmp_path / "model"))
    configured(model, "scheduler/scheduler_config.json", **own)
    if "_class_name" in own:
        index = json.loads((model / "model_index.json").read_text())
        configured(model, "model_index.json", scheduler=[index["scheduler"][0], own["_class_name"]])
    assert load_pipeline(str(model), scheduler="keep").scheduler_choice == choice
    if not own:
        for name in ("ddim", "euler"):
            assert load_pipeline(str(model), scheduler=name).scheduler_choice == name
