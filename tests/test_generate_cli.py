"""generate_images.py as people call it: what it writes, how it goes on, and what it says when it cannot."""
import argparse
import csv
import functools
import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import generation.plan
import pipelines.models
from generation import main, plan_of
from generation.command import build_parser
from generation.plan import Settings
from generation.run import Run
from mitigation import methods
from mitigation.base import flags, value_type
from mitigation.cli import flag_owners
from results import Key, RunFolder
from sampling.noise import image_seed, initial_noise

ROOT = Path(pipelines.models.ROOT)
CAPTIONS = ["a red square above a blue circle", "the great wave", "two cats, in the style of an old master", "a green ring", "three red stars"]
BATCH_WISE = ("--method", "adj_init_noise", "--batch_wise")
PER_SAMPLE = ("--method", "adj_init_noise", "--per_sample")
FEW_STEPS = ("--apply_cfg_step", "1")                     # the official 4 needs more than the four steps of these tests
KEYS = [Key(prompt, sample) for prompt in range(5) for sample in range(2)]
VARIANTS = {"per_image": (), "official": ("--rng", "official", "--dtype", "fp32"), "batch_wise": (*BATCH_WISE, *FEW_STEPS)}


@pytest.fixture(scope="module")
def prompt_file(tmp_path_factory) -> str:
    """Five prompts: with -b 2 the last batch is incomplete."""
    path = tmp_path_factory.mktemp("prompts") / "five.txt"
    path.write_text("\n".join(CAPTIONS) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def loaded():
    """The loader with a memory: one model for all runs."""
    return functools.cache(pipelines.models.load_pipeline)


@pytest.fixture(scope="module")
def base(random_sd_folder, prompt_file) -> list[str]:
    return ["--model_id", random_sd_folder, "--prompts", prompt_file, "--image_length", "32", "--num_inference_steps", "4", "-b", "2",
            "--n_samples_per_prompt", "2", "--quiet"]


@pytest.fixture(scope="module")
def generate(base, loaded):
    """generate(out, *flags, code=0): the run folder below out, after a run with that exit code."""

    def run(out, *more, code=0) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipelines.models, "load_pipeline", loaded)
            assert main([*base, "--output_path", str(out), *more]) == code
        (folder,) = Path(out).glob("*/*")
        return folder

    return run


@pytest.fixture(scope="module")
def whole(generate, tmp_path_factory):
    """whole(variant): run folder of an uninterrupted run; made once."""
    return functools.cache(lambda variant="per_image": generate(tmp_path_factory.mktemp(variant), *VARIANTS[variant]))


@pytest.fixture
def no_model(monkeypatch):
    """Fails the test when a model is loaded."""

    def load(*args, **kwargs):
        pytest.fail("a model was loaded")

    monkeypatch.setattr(pipelines.models, "load_pipeline", load)


def images(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("img_*.png"))}


def names(keys) -> list[str]:
    return [f"img_{key}.png" for key in keys]


def rows(folder: Path, table: str = "images") -> list[dict[str, str]]:
    with open(folder / f"{table}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def copied(folder: Path, out: Path) -> Path:
    """A copy of a run folder below another output path."""
    return Path(shutil.copytree(folder, out / folder.parent.name / folder.name))


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part") or path.name == ".writable"]


def said(capsys) -> str:
    """The one message of generate_images.py on stderr, among the model library's own lines."""
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("generate_images.py:")]
    assert len(lines) == 1 and "Traceback" not in error
    return lines[0]


# --- names of folders, presets ------------------------------------------------------------------------------------------------


def planned(base, *more):
    return plan_of([*base, *more])


@pytest.mark.parametrize("same", [(), ("--guidance_scale", "7.0"), ("--preset", "none"), ("--seed", "2")])
@pytest.mark.parametrize(("more", "name"), [
    ((), "no_mitigation/g7_seed2"), (BATCH_WISE, "batch_wise/g7_rho50_gamma0.7_M2_step4_seed2"),
    (PER_SAMPLE, "per_sample/g7_lr0.01_tl0.9_oi1000_seed2"), (("--method", "batch_wise"), "batch_wise/g7_rho50_gamma0.7_M2_step4_seed2"),
    ((*BATCH_WISE, "--rho", "50.0", "--gamma", ".70"), "batch_wise/g7_rho50_gamma0.7_M2_step4_seed2"),
    ((*PER_SAMPLE, "--lr", "1e-2", "--target_loss", "0.90"), "per_sample/g7_lr0.01_tl0.9_oi1000_seed2")])
def test_folder_names(base, more, name, same):
    folder = planned(base, "--num_inference_steps", "50", "--output_path", "out", *more, *same).folder
    assert folder == Path("out") / name


@pytest.mark.parametrize(("more", "name"), [
    (("--guidance_scale", "7.5", "--seed", "0"), "no_mitigation/g7.5_seed0"), (("--seed", "1234567890123"), "no_mitigation/g7_seed1234567890123"),
    ((*BATCH_WISE, "--tau", "800"), "batch_wise/g7_rho50_gamma0.7_M2_tau800_seed2")])
def test_folder_names_of_other_settings(base, more, name):
    assert planned(base, "--num_inference_steps", "50", "--output_path", "out", *more).folder == Path("out") / name


def test_the_official_defaults():
    official = {"image_length": 512, "model_id": "CompVis/stable-diffusion-v1-4", "unet_id": None, "output_path": "generated_images", "batch_size": 1,
                "n_samples_per_prompt": 10, "num_inference_steps": 50, "guidance_scale": 7, "seed": 2}
    assert {name: getattr(Settings(), name) for name in official} == official


PRESET = "[generate]\nguidance_scale = 3.5\nn_samples_per_prompt = 1\n[batch_wise]\nrho = 2\ngamma = 0.5\napply_cfg_step = 0\n"


@pytest.fixture(scope="module")
def preset_model(random_sd_folder, tmp_path_factory) -> str:
    """The model with a presets.toml of its own."""
    folder = tmp_path_factory.mktemp("preset") / "model"
    shutil.copytree(random_sd_folder, folder)
    (folder / "presets.toml").write_text(PRESET)
    return str(folder)


@pytest.mark.parametrize(("more", "name"), [
    ((), "g3.5_rho2_gamma0.5_M2_step0_seed2"), (("--guidance_scale", "7", "--rho", "50"), "g7_rho50_gamma0.5_M2_step0_seed2"),
    (("--preset", "none", *FEW_STEPS), "g7_rho50_gamma0.7_M2_step1_seed2")])
def test_what_is_typed_wins_over_the_preset(base, preset_model, more, name):
    assert planned([*base, "--model_id", preset_model], *BATCH_WISE, *more).folder.name == name


def test_the_preset_of_a_method_is_not_used_for_another(base, preset_model):
    assert planned([*base, "--model_id", preset_model], *PER_SAMPLE).folder.name == "g3.5_lr0.01_tl0.9_oi1000_seed2"


def test_a_preset_file(base, tmp_path):
    (tmp_path / "a.toml").write_text(PRESET)
    assert planned(base, *BATCH_WISE, "--preset", str(tmp_path / "a.toml")).mitigation.rho == 2


def test_what_was_used_is_printed_and_stored(generate, preset_model, tmp_path, capsys):
    folder = generate(tmp_path, "--model_id", preset_model, *BATCH_WISE, "--end", "1", "--gamma", "0.6")
    used = {"guidance_scale": 3.5, "rho": 2, "gamma": 0.6, "adj_iters": 2, "apply_cfg_step": 0, "method": "batch_wise", "n_samples_per_prompt": 2}
    config = json.loads((folder / "config.json").read_text())
    assert {name: config[name] for name in used} == used and "own" in config["preset"]
    line = capsys.readouterr().err.splitlines()[0]
    assert "batch_wise" in line and "rho=2" in line and "gamma=0.6" in line and "guidance_scale=3.5" in line


# --- what a run writes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_image_of_every_prompt(whole, variant):
    folder = whole(variant)
    assert list(images(folder)) == names(KEYS)
    assert {path.name for path in folder.iterdir()} == {*names(KEYS), "images.csv", "config.json", "manifest.json"}
    assert len(set(images(folder).values())) == len(KEYS)
    with Image.open(folder / names(KEYS)[-1]) as image:
        assert image.size == (32, 32) and image.mode == "RGB"


@pytest.mark.parametrize(("variant", "evals", "own"), [
    ("per_image", 8, set()), ("official", 8, set()), ("batch_wise", 8 + 8 - 2, {"first_magnitude", "moved", "failed"})])
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
    config, manifest = (json.loads((folder / name).read_text()) for name in ("config.json", "manifest.json"))
    argv = shlex.split(config["command"])
    assert argv[:2] == ["python", "generate_images.py"] and argv[2:2 + len(base)] == base
    assert set(Settings.__dataclass_fields__) <= set(config) and config["prompts"] == prompt_file and config["method"] == "no_mitigation"
    assert manifest["finished"] >= manifest["started"] and manifest["identity"]["seed"] == 2
    assert manifest["environment"]["packages"]["diffusers"]


def latents_of(folder: Path, name: str) -> torch.Tensor:
    files = sorted((folder / "latents").glob("*.safetensors"))
    return torch.stack([load_file(path)[name] for path in files])


@pytest.fixture(scope="module")
def traced(generate, tmp_path_factory):
    """traced(variant): a run with --save_latents and --trace."""
    return functools.cache(lambda variant: generate(tmp_path_factory.mktemp("traced"), *VARIANTS[variant], "--save_latents", "--trace"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_latents_and_trace_do_not_change_the_images(whole, traced, variant):
    assert images(traced(variant)) == images(whole(variant))


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_latents(traced, variant):
    folder = traced(variant)
    assert [path.name for path in sorted((folder / "latents").iterdir())] == [f"img_{key}.safetensors" for key in KEYS]
    assert all(load_file(path).keys() == {"initial", "adjusted", "final"} for path in (folder / "latents").iterdir())
    initial, adjusted, final = (latents_of(folder, name) for name in ("initial", "adjusted", "final"))
    assert all(x.dtype == torch.float32 and x.shape == (10, 4, 8, 8) for x in (initial, adjusted, final))
    assert torch.isfinite(final).all() and not torch.equal(final, adjusted)
    assert torch.equal(initial, adjusted) == (variant != "batch_wise")
    if variant != "official":
        assert torch.equal(initial, initial_noise([int(row["seed"]) for row in rows(folder)], (4, 8, 8)))


def test_the_official_noise_is_one_stream(traced):
    torch.manual_seed(2)
    expected = torch.cat([torch.randn((count * 2, 4, 8, 8)) for count in (2, 2, 1)])
    assert torch.equal(latents_of(traced("official"), "initial"), expected)


@torch.no_grad()
def test_the_final_latents_are_what_is_decoded(traced, loaded, random_sd_folder):
    pipe = loaded(random_sd_folder, unet_id=None, dtype="fp32", device="cpu", scheduler="ddim")
    pictures, _ = pipe.decode(latents_of(traced("per_image"), "final")[8:])
    for key, picture in zip(KEYS[8:], pictures):
        assert np.array_equal(np.array(picture), np.array(Image.open(traced("per_image") / f"img_{key}.png")))


@pytest.mark.parametrize(("variant", "scales"), [("per_image", "7 7 7 7"), ("batch_wise", "0 0 7 7")])
def test_the_trace(traced, variant, scales):
    table = rows(traced(variant), "trace")
    assert [(row["key"], int(row["step"])) for row in table] == [(str(key), step) for key in KEYS for step in range(4)]
    assert [row["guidance_scale"] for row in table] == scales.split() * len(KEYS)
    assert [float(row["timestep"]) for row in table] == [751, 501, 251, 1] * len(KEYS)
    assert all(float(row["magnitude"]) > 0 for row in table)


@torch.no_grad()
def test_the_magnitude_of_the_trace_is_that_of_the_difference(traced, loaded, random_sd_folder):
    pipe = loaded(random_sd_folder, unet_id=None, dtype="fp32", device="cpu", scheduler="ddim")
    x = latents_of(traced("per_image"), "adjusted")
    texts = pipe.encode([CAPTIONS[key.prompt] for key in KEYS])
    e = pipe.unet(x, 751, texts).sample - pipe.unet(x, 751, pipe.encode([""] * len(KEYS))).sample
    found = [float(row["magnitude"]) for row in rows(traced("per_image"), "trace") if row["step"] == "0"]
    assert found == pytest.approx(e.flatten(1).norm(dim=1).tolist(), rel=1e-3)


def test_a_per_sample_run(generate, tmp_path):
    folder = generate(tmp_path, *PER_SAMPLE, "--optim_iters", "2", "--target_loss", "1e-6", "--end", "1", "--save_latents")
    assert folder.name == "g7_lr0.01_tl1e-06_oi2_seed2"
    for row in rows(folder):
        assert (int(float(row["iterations"])), float(row["reached"])) == (2, 0.0)
        assert float(row["last_magnitude"]) < float(row["first_magnitude"]) and int(row["unet_evals"]) == 2 * 4 + 2 * 2
    assert not torch.equal(latents_of(folder, "initial"), latents_of(folder, "adjusted"))


def test_a_run_says_what_it_did(generate, whole, tmp_path, capsys):
    copied(whole(), tmp_path)
    folder = generate(tmp_path)
    out, error = capsys.readouterr()
    assert out == f"10 images in {folder} (nothing to make)\n" and "Traceback" not in error


# --- the same images, however they are asked for ------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "after"), [("per_image", 0), ("per_image", 1), ("per_image", 2), ("official", 1), ("batch_wise", 1)])
def test_a_run_that_was_killed_goes_on(generate, whole, tmp_path, monkeypatch, capsys, variant, after):
    save, saved = Run.save, []

    def save_or_stop(run, number, *args):
        if len(saved) == after:
            run.folder.save_image(Key(number * 2, 0), Image.new("RGB", (32, 32)))        # the batch was begun, and with another picture
            raise KeyboardInterrupt
        saved.append(number)
        save(run, number, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", save_or_stop)
        folder = generate(tmp_path, *VARIANTS[variant], code=130)
    assert "interrupted" in said(capsys) and not leftovers(folder)
    assert json.loads((folder / "manifest.json").read_text())["finished"] is None
    assert generate(tmp_path, *VARIANTS[variant]) == folder
    assert images(folder) == images(whole(variant))
    assert [row["key"] for row in rows(folder)] == [str(key) for key in KEYS]
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole(variant).iterdir()}


@pytest.mark.parametrize("variant", ["per_image", "official"])
@pytest.mark.parametrize("lost", ["image", "row", "table"])
def test_what_was_lost_is_made_again_and_nothing_else(generate, whole, tmp_path, variant, lost):
    folder = copied(whole(variant), tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("img_*.png"))}
    text = (folder / "images.csv").read_text().splitlines(keepends=True)
    if lost == "image":
        (folder / "img_0003_01.png").unlink()
    elif lost == "row":
        (folder / "images.csv").write_text("".join(line for line in text if not line.startswith("0003_01")))
    else:
        (folder / "images.csv").unlink()
    generate(tmp_path, *VARIANTS[variant])
    assert images(folder) == images(whole(variant)) and [row["key"] for row in rows(folder)] == [str(key) for key in KEYS]
    changed = [name for name, time in before.items() if (folder / name).stat().st_mtime_ns != time]
    assert changed == names(KEYS if lost == "table" else KEYS[4:8])                     # whole batches


def test_a_complete_run_makes_nothing(generate, whole, tmp_path, monkeypatch):
    folder = copied(whole(), tmp_path)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.name not in ("manifest.json", "config.json")}
    monkeypatch.setattr(Run, "make", lambda *args: pytest.fail("a batch was made"))
    generate(tmp_path)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("variant", ["per_image", "official"])
def test_a_range_makes_the_same_images(generate, whole, tmp_path, variant):
    folder = generate(tmp_path, *VARIANTS[variant], "--start", "1", "--end", "3")
    assert images(folder) == {name: images(whole(variant))[name] for name in names(KEYS[2:6])}
    assert [row["key"] for row in rows(folder)] == [str(key) for key in KEYS[2:6]]
    generate(tmp_path, *VARIANTS[variant], "--start", "2")
    assert generate(tmp_path, *VARIANTS[variant]) == folder
    assert images(folder) == images(whole(variant)) and [row["key"] for row in rows(folder)] == [str(key) for key in KEYS]


@pytest.mark.parametrize("size", ["1", "3"])
def test_another_batch_size_differs_by_rounding_only(generate, whole, tmp_path, size):
    folder = generate(tmp_path, "-b", size)
    assert list(images(folder)) == names(KEYS)
    for name in images(folder):
        first, second = (np.array(Image.open(path / name)).astype(int) for path in (folder, whole()))
        assert np.abs(first - second).max() <= 1


def test_more_samples_keep_the_first_ones(generate, whole, tmp_path):
    folder = generate(tmp_path, "--n_samples_per_prompt", "3", "--end", "1", "--save_latents")
    assert torch.equal(latents_of(folder, "initial")[:2], initial_noise([image_seed(2, 0, k) for k in range(2)], (4, 8, 8)))
    for name in names(KEYS[:2]):
        first, second = (np.array(Image.open(path / name)).astype(int) for path in (folder, whole()))
        assert np.abs(first - second).max() <= 1


def test_overwrite_starts_over(generate, whole, tmp_path):
    folder = copied(whole(), tmp_path)
    (folder / names(KEYS)[0]).write_bytes(b"another picture")
    generate(tmp_path, "--overwrite", "--end", "1", "--num_inference_steps", "2")
    assert list(images(folder)) == names(KEYS[:2]) and b"another picture" not in images(folder).values()
    assert [row["key"] for row in rows(folder)] == [str(key) for key in KEYS[:2]]
    assert json.loads((folder / "manifest.json").read_text())["identity"]["num_inference_steps"] == 2


@pytest.mark.parametrize(("more", "told"), [
    (("--num_inference_steps", "3"), "num_inference_steps: 4 there, 3 now"), (("-b", "1"), "batch_size: 2 there, 1 now"),
    (("--scheduler", "euler"), "scheduler: 'ddim' there, 'euler' now"), (("--rng", "official"), "rng"), (("--image_length", "64"), "image_length"),
    (("--n_samples_per_prompt", "1"), "n_samples_per_prompt"), (("--dtype", "bf16"), "dtype"), (("--prompts", "other.txt"), "prompts_sha256")])
def test_another_run_in_the_folder(generate, base, whole, tmp_path, monkeypatch, capsys, no_model, more, told):
    folder = copied(whole(), tmp_path)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.chdir(tmp_path)
    Path("other.txt").write_text("another prompt\n" * 5)
    assert main([*base, "--output_path", str(tmp_path), *more]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and told in message and "--overwrite" in message
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


# --- wrong arguments and input files ------------------------------------------------------------------------------------------


def refused(capsys, argv, told="") -> None:
    """argv gives exit code 2 and one line on stderr, and says `told`."""
    try:
        code = main(argv)
    except SystemExit as leave:
        code = leave.code
    out, error = capsys.readouterr()
    assert code == 2, error
    assert error.count("\n") == 1 and error.endswith("\n") and "Traceback" not in error and not out
    assert told in error


def bad_values(option) -> list[str]:
    """What a flag of a method may not be."""
    kind, above, at_least = value_type(option), option.metadata["above"], option.metadata["at_least"]
    values = {float: ["nan", "inf", "-inf", "x", ""], int: ["1.5", "nan", "x", ""], str: []}[kind]
    if above is not None:
        values.append(f"{above:g}")
    return values if at_least is None else [*values, f"{at_least - 1:g}"]


GENERAL = {"image_length": ["0", "-8", "12", "8192", "64.0"], "batch_size": ["0", "-1", "1.5", "x"], "n_samples_per_prompt": ["0", "-1", "inf"],
           "num_inference_steps": ["0", "-4", "1001", "4.0"], "guidance_scale": ["nan", "inf", "-inf", "-1", "x", ""],
           "seed": ["-1", "9223372036854775808", "1.5", "x"], "start": ["-1", "5", "x"], "end": ["0", "-1", "6", "x"],
           "scheduler": ["x"], "dtype": ["fp8"], "rng": ["x"], "device": ["nonsense", "cuda:99"], "preset": ["missing.toml"], "nonsense": ["1"]}
NUMBERS = [((), name, value) for name, values in GENERAL.items() for value in values]
NUMBERS += [(("--method", name), option.name, value) for name, cls in methods().items() for option in flags(cls) for value in bad_values(option)]


@pytest.mark.parametrize(("method", "name", "value"), NUMBERS)
def test_a_bad_value_is_refused(base, tmp_path, capsys, no_model, method, name, value):
    refused(capsys, [*base, "--output_path", str(tmp_path), *method, f"--{name}", value], name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("more", "told"), [
    (("--start", "3", "--end", "3"), "--start 3 --end 3"), (("--start", "3", "--end", "1"), "--start 3 --end 1"),
    (("--method", "nonsense"), "there is no method 'nonsense'"), (("--method", ""), "there is no method ''"),
    (("--method", "adj_init_noise"), "exactly one of --batch_wise and --per_sample"),
    ((*BATCH_WISE, "--per_sample"), "exactly one of --batch_wise and --per_sample"),
    (("--batch_wise",), "--method adj_init_noise"), (("--per_sample",), "--method adj_init_noise"),
    (("--method", "no_mitigation", "--batch_wise"), "--method adj_init_noise"),
    (("--method", "per_sample", "--batch_wise"), "--method adj_init_noise"),
    (("--rho", "50"), "no_mitigation does not take --rho"), ((*PER_SAMPLE, "--rho", "50"), "per_sample does not take --rho"),
    ((*BATCH_WISE, *FEW_STEPS, "--lr", "0.1"), "batch_wise does not take --lr"),
    ((*BATCH_WISE, "--apply_cfg_step", "1", "--tau", "500"), "exclude each other"),
    (BATCH_WISE, "--apply_cfg_step 4 leaves no step with guidance: the run has 4 steps (0..3)"),
    ((*BATCH_WISE, "--apply_cfg_step", "3"), "Use at most 2"), (("--see", "3"), "--see"), (("extra",), "extra"), (("--seed",), "--seed")])
def test_flags_that_do_not_go_together_are_refused(base, tmp_path, capsys, no_model, more, told):
    refused(capsys, [*base, "--output_path", str(tmp_path), *more], told)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "content", "told"), [
    ("missing.csv", None, "cannot read the prompt file"), ("empty.txt", b"", "no prompts"), ("empty.csv", b"", "no column 'Caption'"),
    ("binary.csv", b"\x89PNG\0", "not UTF-8"), ("zeros.txt", bytes(9), "binary"), ("column.csv", b"Text,Index\na,1\n", "its columns are Text, Index"),
    ("caption.csv", b";Caption\n0;\n", "is empty"), ("line.jsonl", b'{"caption": "a"}\n{\n', "line 2"),
    ("a.json", b"[]", ".jsonl"), (".", None, ".jsonl")])
def test_a_bad_prompt_file_is_refused(base, tmp_path, capsys, no_model, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(capsys, [*base, "--output_path", str(tmp_path / "out"), "--prompts", str(tmp_path / name)], told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", [
    "[generate", "[generate]\nnonsense = 1", "[batch_wise]\nnonsense = 1", "[batchwise]\nrho = 1", "nonsense = 1", "generate = 3", "batch_wise = 3",
    "[generate]\nguidance_scale = 'high'", "[generate]\nguidance_scale = nan", "[generate]\nguidance_scale = true", "[generate]\nbatch_size = 2.0",
    "[generate]\nbatch_size = true", "[generate]\nseed = [1]", "[generate]\nscheduler = 'x'", "[generate]\ndtype = 'x'", "[generate]\nrng = 'x'",
    "[generate]\noutput_path = 3", "[generate]\nprompts = 3", "[generate]\nmodel_id = 3", "[generate]\ndevice = 3", "[batch_wise]\nrho = 'x'",
    "[batch_wise]\nrho = nan", "[batch_wise]\nrho = true", "[batch_wise]\nadj_iters = 1.5", "[batch_wise]\nadj_iters = []",
    "[batch_wise]\nrho = {a = 1}", "\udcff"])
def test_a_bad_preset_is_refused(random_sd_folder, prompt_file, tmp_path, capsys, no_model, text):
    (tmp_path / "a.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    argv = ["--model_id", random_sd_folder, *BATCH_WISE, "--preset", str(tmp_path / "a.toml")]
    argv += [] if "prompts" in text else ["--prompts", prompt_file]
    argv += [] if "output_path" in text else ["--output_path", str(tmp_path / "out")]
    refused(capsys, argv)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["empty", "broken", "parts", "a_file", "missing", "./missing/model", "no such model", "a/b/c", "nonsense", ""])
def test_a_bad_model_is_refused(base, tmp_path, monkeypatch, capsys, no_model, model):
    monkeypatch.chdir(tmp_path)
    for name, index in (("empty", None), ("broken", "{"), ("parts", '{"unet": 1, "vae": 1}')):
        Path(name).mkdir()
        if index:
            (Path(name) / "model_index.json").write_text(index)
    Path("a_file").write_text("x")
    refused(capsys, [*base, "--output_path", "out", "--model_id", model])
    assert not Path("out").exists()


@pytest.mark.parametrize(("index", "told"), [("[]", "no "), ("null", "no "), ('{"unet": 1, "vae": 1}', "text_encoder"), ("3", "no ")])
def test_a_model_index_that_is_none_is_refused(base, tmp_path, capsys, no_model, index, told):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text(index)
    refused(capsys, [*base, "--output_path", str(tmp_path / "out"), "--model_id", str(tmp_path / "model")], told)


@pytest.mark.parametrize("place", ["a_file", "a_file/below"])
def test_an_output_path_that_is_a_file_is_refused(base, tmp_path, capsys, no_model, place):
    (tmp_path / "a_file").write_text("x")
    refused(capsys, [*base, "--output_path", str(tmp_path / place)], "Give another --output_path")
    assert (tmp_path / "a_file").read_text() == "x"


def test_a_folder_with_other_files_is_refused(base, tmp_path, capsys, no_model):
    foreign = tmp_path / "no_mitigation" / "g7_seed2" / "notes.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    refused(capsys, [*base, "--output_path", str(tmp_path)], "notes.txt")
    assert list(foreign.parent.iterdir()) == [foreign]


def test_the_official_command_without_the_official_prompts(monkeypatch, tmp_path, capsys, no_model):
    monkeypatch.setattr(generation.plan, "OFFICIAL_PROMPTS", ROOT / "prompts" / "missing.csv")
    refused(capsys, [*BATCH_WISE, "--output_path", str(tmp_path)], "--model_id tiny")
    assert main([*BATCH_WISE, "--output_path", str(tmp_path)]) == 2
    assert "download/" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [(), ("--unet_id", "owner/missing-unet")])
def test_the_official_command_without_the_weights(monkeypatch, base, tmp_path, capsys, more):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = [] if more else ["--model_id", "owner/missing-model"]
    assert main([*base, *model, *more, "--output_path", str(tmp_path)]) == 2
    message = said(capsys)
    assert "--model_id tiny" in message and "download/" in message and "missing-" in message


def test_an_embedded_model_whose_weights_are_not_here(monkeypatch, base, tmp_path, capsys, no_model):
    monkeypatch.setitem(pipelines.models.EMBEDDED, "tiny", tmp_path / "nowhere")
    refused(capsys, [*base, "--model_id", "tiny", "--output_path", str(tmp_path)], "tiny")


# --- faults while running -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "img_0001_00.png", "img_0000_01.safetensors", "images_000000.csv", "images.csv"])
def test_a_full_disk(generate, whole, tmp_path, monkeypatch, capsys, name):
    replace = os.replace

    def replace_or_fail(part, path):
        if Path(path).name == name:
            raise OSError(28, "No space left on device")
        replace(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_or_fail)
        folder = generate(tmp_path, "--save_latents", code=1)
    assert "No space left on device" in said(capsys)
    assert not list(folder.rglob(name)) and not leftovers(folder)
    assert json.loads(generate(tmp_path, "--save_latents").joinpath("manifest.json").read_text())["finished"]
    assert images(folder) == images(whole()) and len(rows(folder)) == len(KEYS)


def test_a_disk_that_was_full_before(generate, tmp_path, monkeypatch, capsys):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        folder = generate(tmp_path, code=2)
    assert "No space left on device" in said(capsys) and not list(folder.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_stop_while_the_model_is_loaded(base, tmp_path, monkeypatch, capsys, error):
    def load(*args, **kwargs):
        raise error

    monkeypatch.setattr(pipelines.models, "load_pipeline", load)
    try:
        code = main([*base, "--output_path", str(tmp_path)])
    except (KeyboardInterrupt, OSError):
        pytest.fail("a traceback")
    assert code == (130 if error is KeyboardInterrupt else 1) and said(capsys)


# --- texts --------------------------------------------------------------------------------------------------------------------


def test_list_methods_and_help_are_light_and_complete():
    code = ("import sys, generate_images\n"
            "assert generate_images.main(['--list_methods']) == 0\n"
            "print('=' * 9)\n"
            "try:\n    generate_images.main(['--help'])\n"
            "except SystemExit as leave:\n    assert leave.code == 0\n"
            "assert not {'diffusers', 'transformers', 'accelerate'} & set(sys.modules), 'slow imports'\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and not done.stderr, done.stderr
    listed, helped = done.stdout.split("=" * 9)
    for name, cls in methods().items():
        assert f"{name}\n    paper: {cls.paper}" in listed and name in helped
    assert all(f"--{flag} " in listed and f"--{flag}" in helped for flag in flag_owners())
    assert all(f"--{name}" in helped for name in Settings.__dataclass_fields__)


def test_help_says_every_flag_of_the_interface():
    known = {option for action in build_parser()._actions for option in action.option_strings}
    assert {"-b", "--batch_size", "--image_length", "--model_id", "--unet_id", "--output_path", "--n_samples_per_prompt", "--num_inference_steps",
            "--guidance_scale", "--seed", "--method", "--per_sample", "--target_loss", "--lr", "--optim_iters", "--batch_wise", "--rho", "--gamma",
            "--adj_iters", "--apply_cfg_step", "--preset", "--list_methods", "--prompts", "--start", "--end", "--scheduler", "--dtype", "--device",
            "--rng", "--save_latents", "--trace", "--quiet", "--overwrite"} <= known
    assert all(action.help for action in build_parser()._actions if not isinstance(action, argparse._HelpAction))


def test_the_folder_of_a_run_is_complete(whole, traced):
    assert RunFolder(whole()).complete(latents=False, trace=False) == RunFolder(traced("per_image")).complete(latents=True, trace=True) == set(KEYS)
    assert RunFolder(whole()).complete(latents=True, trace=False) == RunFolder(whole()).complete(latents=False, trace=True) == set()


def test_the_script_is_the_same_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["generate_images.py", "--seed", "x"])
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / "generate_images.py"), run_name="__main__")
    error = capsys.readouterr().err
    assert leave.value.code == 2 and error.startswith("generate_images.py: ") and error.count("\n") == 1
