"""What a run writes."""

import argparse
import json
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from memorization_suite import ROOT
from memorization_suite.commands.generate_plan import Generation
from memorization_suite.generate_images import build_parser
from memorization_suite.mitigation import METHODS
from memorization_suite.runs.run_folder import RunFolder
from memorization_suite.runs.settings import flag_names, flag_owners, flags
from memorization_suite.sampling.noise import image_seed, initial_noise
from memorization_suite.sampling.sample import to_pictures
from tests.cli.helpers import (
    CAPTIONS,
    KEYS,
    PER_SAMPLE,
    VARIANTS,
    copied,
    images,
    latents_of,
    names,
    rows,
)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_image_of_every_prompt(whole, variant):
    folder = whole(variant)
    assert list(images(folder)) == names(KEYS)
    assert {path.name for path in folder.iterdir()} == {
        *names(KEYS),
        "images.csv",
        "config.json",
        "manifest.json",
    }
    assert len(set(images(folder).values())) == len(KEYS)
    with Image.open(folder / names(KEYS)[-1]) as image:
        assert image.size == (32, 32) and image.mode == "RGB"


@pytest.mark.parametrize(
    ("variant", "evals", "own"),
    [
        ("per_image", 8, set()),
        ("official", 8, set()),
        ("batch_wise", 8 + 8 - 2, {"first_magnitude", "moved", "failed"}),
    ],
)
def test_the_table_of_images(whole, variant, evals, own):
    table = rows(whole(variant))
    assert [row["key"] for row in table] == [str(key) for key in KEYS]
    for row, key in zip(table, KEYS):
        seed = 2 if variant == "official" else image_seed(2, key.prompt, key.sample)
        assert (row["prompt"], int(row["seed"])) == (CAPTIONS[key.prompt], seed)
        assert int(row["unet_evals"]) == evals and float(row["seconds"]) > 0
        assert own <= set(row) and all(np.isfinite(float(row[name])) for name in own)


def test_config_and_manifest(whole, base, prompt_file):
    folder = whole()
    config, manifest = (
        json.loads((folder / name).read_text()) for name in ("config.json", "manifest.json")
    )
    argv = shlex.split(config["command"])
    assert argv[:2] == ["python", "generate_images.py"]
    typed = build_parser(argv).typed(argv[2:])
    assert Path(typed.pop("output_path")) == folder.parents[1]
    assert typed == build_parser(base).typed(base)
    assert (
        set(flag_names(Generation)) <= set(config)
        and config["prompts"] == prompt_file
        and config["method"] == "no_mitigation"
    )
    assert manifest["finished"] >= manifest["started"] and manifest["identity"]["seed"] == 2
    assert manifest["environments"][0]["packages"]["diffusers"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_latents_and_trace_do_not_change_the_images(whole, traced, variant):
    assert images(traced(variant)) == images(whole(variant))


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_latents(traced, variant):
    folder = traced(variant)
    assert [path.name for path in sorted((folder / "latents").iterdir())] == [
        f"img_{key}.safetensors" for key in KEYS
    ]
    assert all(
        load_file(path).keys() == {"initial", "adjusted", "final"}
        for path in (folder / "latents").iterdir()
    )
    initial, adjusted, final = (
        latents_of(folder, name) for name in ("initial", "adjusted", "final")
    )
    assert all(
        x.dtype == torch.float32 and x.shape == (10, 4, 8, 8) for x in (initial, adjusted, final)
    )
    assert torch.isfinite(final).all() and not torch.equal(final, adjusted)
    assert torch.equal(initial, adjusted) == (variant != "batch_wise")
    if variant != "official":
        assert torch.equal(
            initial, initial_noise([int(row["seed"]) for row in rows(folder)], (4, 8, 8))
        )


def test_the_official_noise_is_one_stream(traced):
    torch.manual_seed(2)
    expected = torch.cat([torch.randn((count * 2, 4, 8, 8)) for count in (2, 2, 1)])
    assert torch.equal(latents_of(traced("official"), "initial"), expected)


@torch.no_grad()
def test_the_final_latents_are_what_is_decoded(traced, loaded, random_sd_folder):
    pipe = loaded(random_sd_folder, unet_id=None, dtype="fp32", device="cpu", scheduler="ddim")
    pictures = to_pictures(pipe.decode(latents_of(traced("per_image"), "final")[8:]))
    for key, picture in zip(KEYS[8:], pictures):
        assert np.array_equal(
            np.array(picture), np.array(Image.open(traced("per_image") / f"img_{key}.png"))
        )


@pytest.mark.parametrize(
    ("variant", "scales"), [("per_image", "7 7 7 7"), ("batch_wise", "0 0 7 7")]
)
def test_the_trace(traced, variant, scales):
    table = rows(traced(variant), "trace")
    assert [(row["key"], int(row["step"])) for row in table] == [
        (str(key), step) for key in KEYS for step in range(4)
    ]
    assert [float(row["guidance_scale"]) for row in table] == [
        float(scale) for scale in scales.split()
    ] * len(KEYS)
    assert [float(row["timestep"]) for row in table] == [751, 501, 251, 1] * len(KEYS)
    assert all(float(row["magnitude"]) > 0 for row in table)


@torch.no_grad()
def test_the_magnitude_of_the_trace_is_that_of_the_difference(traced, loaded, random_sd_folder):
    pipe = loaded(random_sd_folder, unet_id=None, dtype="fp32", device="cpu", scheduler="ddim")
    x = latents_of(traced("per_image"), "adjusted")
    texts = pipe.encode([CAPTIONS[key.prompt] for key in KEYS]).tokens
    empty = pipe.encode([""] * len(KEYS)).tokens
    e = pipe.unet(x, 751, texts).sample - pipe.unet(x, 751, empty).sample
    found = [
        float(row["magnitude"]) for row in rows(traced("per_image"), "trace") if row["step"] == "0"
    ]
    assert found == pytest.approx(e.flatten(1).norm(dim=1).tolist(), rel=1e-3)


def test_a_per_sample_run(generate, tmp_path):
    folder = generate(
        tmp_path,
        *PER_SAMPLE,
        "--optim_iters",
        "2",
        "--target_loss",
        "1e-6",
        "--end",
        "1",
        "--save_latents",
    )
    assert folder.name == "g7_lr0.01_tl1e-06_oi2_seed2"
    for row in rows(folder):
        assert (int(float(row["iterations"])), float(row["reached"])) == (2, 0.0)
        assert (
            float(row["last_magnitude"]) < float(row["first_magnitude"])
            and int(row["unet_evals"]) == 2 * 4 + 2 * 2
        )
    assert not torch.equal(latents_of(folder, "initial"), latents_of(folder, "adjusted"))


def test_a_run_says_what_it_did(generate, whole, tmp_path, capsys):
    copied(whole(), tmp_path)
    folder = generate(tmp_path)
    out, error = capsys.readouterr()
    assert out == f"10 images in {folder} (nothing to make)\n" and "Traceback" not in error


def test_list_methods_and_help_are_light_and_complete():
    code = (
        "import sys\n"
        "from memorization_suite import generate_images\n"
        "assert generate_images.main(['--list_methods']) == 0\n"
        "for argv in (['--help'], ['--method', 'all', '--help']):\n"
        "    print('=' * 9)\n"
        "    try:\n        generate_images.main(argv)\n"
        "    except SystemExit as leave:\n        assert leave.code == 0\n"
        "assert not {'diffusers', 'transformers', 'accelerate'} & set(sys.modules), 'slow "
        "imports'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and not done.stderr, done.stderr
    listed, plain, whole = done.stdout.split("=" * 9)
    for name, cls in METHODS.items():
        assert f"{name}\n    paper: {cls.paper}" in listed
        assert name in whole or not flags(cls)
    assert all(f"--{flag} " in listed and f"--{flag}" in whole for flag in flag_owners(METHODS))
    assert not any(f"--{flag} " in plain for flag in flag_owners(METHODS))
    assert all(f"--{name}" in plain for name in flag_names(Generation))


def test_help_says_every_flag_of_the_interface():
    known = {option for action in build_parser([])._actions for option in action.option_strings}
    assert {
        "-b",
        "--batch_size",
        "--image_length",
        "--model_id",
        "--unet_id",
        "--output_path",
        "--n_samples_per_prompt",
        "--num_inference_steps",
        "--guidance_scale",
        "--seed",
        "--method",
        "--per_sample",
        "--target_loss",
        "--lr",
        "--optim_iters",
        "--batch_wise",
        "--rho",
        "--gamma",
        "--adj_iters",
        "--apply_cfg_step",
        "--preset",
        "--list_methods",
        "--prompts",
        "--start",
        "--end",
        "--scheduler",
        "--dtype",
        "--device",
        "--rng",
        "--save_latents",
        "--trace",
        "--quiet",
        "--overwrite",
    } <= known
    assert all(
        action.help not in (None, "", argparse.SUPPRESS)
        for action in build_parser(["--method", "all"])._actions
        if not isinstance(action, argparse._HelpAction)
    )


def test_the_folder_of_a_run_is_complete(whole, traced):
    assert (
        RunFolder(whole()).complete(latents=False, trace=False)
        == RunFolder(traced("per_image")).complete(latents=True, trace=True)
        == set(KEYS)
    )
    assert (
        RunFolder(whole()).complete(latents=True, trace=False)
        == RunFolder(whole()).complete(latents=False, trace=True)
        == set()
    )


def test_the_script_is_the_same_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["generate_images.py", "--seed", "x"])
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / "generate_images.py"), run_name="__main__")
    error = capsys.readouterr().err
    assert (
        leave.value.code == 2
        and error.startswith("generate_images.py: ")
        and error.count("\n") == 1
    )
