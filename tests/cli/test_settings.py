"""Folder names and presets."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from memorization_suite.commands.generate_plan import plan as generation_plan
from memorization_suite.generate_images import build_parser
from tests.cli import helpers
from tests.cli.helpers import BATCH_WISE, FEW_STEPS, PER_SAMPLE


def planned(base, *more):
    return helpers.planned([*base, *more])


@pytest.mark.parametrize(
    "same", [(), ("--guidance_scale", "7.0"), ("--preset", "none"), ("--seed", "2")]
)
@pytest.mark.parametrize(
    ("more", "name"),
    [
        ((), "no_mitigation/g7_seed2"),
        (BATCH_WISE, "batch_wise/g7_rho50_gamma0.7_M2_step4_seed2"),
        (PER_SAMPLE, "per_sample/g7_lr0.01_tl0.9_oi1000_seed2"),
        (("--method", "batch_wise"), "batch_wise/g7_rho50_gamma0.7_M2_step4_seed2"),
        (
            (*BATCH_WISE, "--rho", "50.0", "--gamma", ".70"),
            "batch_wise/g7_rho50_gamma0.7_M2_step4_seed2",
        ),
        (
            (*PER_SAMPLE, "--lr", "1e-2", "--target_loss", "0.90"),
            "per_sample/g7_lr0.01_tl0.9_oi1000_seed2",
        ),
    ],
)
def test_folder_names(base, more, name, same):
    folder = planned(
        base, "--num_inference_steps", "50", "--output_path", "out", *more, *same
    ).folder
    assert folder == Path("out") / name


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (("--guidance_scale", "7.5", "--seed", "0"), "no_mitigation/g7.5_seed0"),
        (("--seed", "1234567890123"), "no_mitigation/g7_seed1234567890123"),
        ((*BATCH_WISE, "--tau", "800"), "batch_wise/g7_rho50_gamma0.7_M2_tau800_seed2"),
    ],
)
def test_folder_names_of_other_settings(base, more, name):
    assert (
        planned(base, "--num_inference_steps", "50", "--output_path", "out", *more).folder
        == Path("out") / name
    )


def test_the_official_defaults(prompt_file):
    official = {
        "image_length": 512,
        "model_id": "CompVis/stable-diffusion-v1-4",
        "unet_id": None,
        "output_path": "generated_images",
        "batch_size": 1,
        "n_samples_per_prompt": 10,
        "num_inference_steps": 50,
        "guidance_scale": 7,
        "seed": 2,
    }
    settings = generation_plan(prompts=prompt_file).settings
    assert {name: getattr(settings, name) for name in official} == official


PRESET = (
    "[generate]\nguidance_scale = 3.5\nn_samples_per_prompt = 1\n[batch_wise]\nrho = 2\ngamma "
    "= 0.5\napply_cfg_step = 0\n"
)


@pytest.fixture(scope="module")
def preset_model(random_sd_folder, tmp_path_factory) -> str:
    """The model with a presets.toml of its own."""
    folder = tmp_path_factory.mktemp("preset") / "model"
    shutil.copytree(random_sd_folder, folder)
    (folder / "presets.toml").write_text(PRESET)
    return str(folder)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ((), "g3.5_rho2_gamma0.5_M2_step0_seed2"),
        (("--guidance_scale", "7", "--rho", "50"), "g7_rho50_gamma0.5_M2_step0_seed2"),
        (("--preset", "none", *FEW_STEPS), "g7_rho50_gamma0.7_M2_step1_seed2"),
    ],
)
def test_what_is_typed_wins_over_the_preset(base, preset_model, more, name):
    assert planned([*base, "--model_id", preset_model], *BATCH_WISE, *more).folder.name == name


def test_the_preset_of_a_method_is_not_used_for_another(base, preset_model):
    assert (
        planned([*base, "--model_id", preset_model], *PER_SAMPLE).folder.name
        == "g3.5_lr0.01_tl0.9_oi1000_seed2"
    )


def test_a_preset_file(base, tmp_path):
    (tmp_path / "a.toml").write_text(PRESET)
    assert planned(base, *BATCH_WISE, "--preset", str(tmp_path / "a.toml")).mitigation.rho == 2


def test_what_was_used_is_printed_and_stored(generate, preset_model, tmp_path, capsys):
    folder = generate(
        tmp_path, "--model_id", preset_model, *BATCH_WISE, "--end", "1", "--gamma", "0.6"
    )
    used = {
        "guidance_scale": 3.5,
        "rho": 2,
        "gamma": 0.6,
        "adj_iters": 2,
        "apply_cfg_step": 0,
        "method": "batch_wise",
        "n_samples_per_prompt": 2,
    }
    config = json.loads((folder / "config.json").read_text())
    assert {name: config[name] for name in used} == used and "own" in config["preset"]
    line = capsys.readouterr().err.splitlines()[0]
    assert (
        "batch_wise" in line
        and "rho=2" in line
        and "gamma=0.6" in line
        and "guidance_scale=3.5" in line
    )


@pytest.mark.parametrize(
    ("typed", "masked"),
    [
        ((), 0),
        (("--masked",), 1),
        (("--masked", "1"), 1),
        (("--masked=1",), 1),
        (("--masked", "true"), 1),
        (("--masked", "0"), 0),
        (("--masked=False",), 0),
    ],
)
def test_a_switch_of_a_method(base, typed, masked):
    """Typed alone or with 0 or 1; folder names and config.json say 0 and 1."""
    plan = planned(base, "--method", "prss", *typed)
    assert plan.mitigation.masked is bool(masked)
    assert plan.identity["method_settings"].get("masked", 0) == masked
    assert json.dumps(plan.config).count(f'"masked": {masked}') == 1


@pytest.mark.parametrize("typed", [(), ("--masked", "0")])
def test_a_preset_may_set_a_switch(base, tmp_path, typed):
    (tmp_path / "a.toml").write_text("[prss]\nmasked = 1\n")
    plan = planned(base, "--method", "prss", "--preset", str(tmp_path / "a.toml"), *typed)
    assert plan.mitigation.masked is not bool(typed)


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        ((), {}),
        ((*BATCH_WISE, *FEW_STEPS), {"batch_wise": True, "apply_cfg_step": 1}),
        (("--method", "prss", "--masked"), {"method": "prss", "masked": True}),
        (("--method", "prss", "--masked", "0"), {"method": "prss", "masked": 0}),
        (("--guidance_scale", "3"), {"guidance_scale": 3, "quiet": False}),
        (
            ("--method", "batch_wise", "--apply_cfg_step", "-1", "--rho", "1e-2"),
            {"method": "batch_wise", "apply_cfg_step": -1, "rho": 0.01},
        ),
    ],
)
def test_flags_by_name_are_what_would_be_typed(base, argv, typed):
    """The same plan, and the command in config.json asks for it once more."""
    if "batch_wise" in typed and "method" not in typed:
        typed = typed | {"method": "adj_init_noise"}
    known = build_parser([]).typed(base)
    plan = generation_plan(**(known | typed))
    assert (plan.folder, plan.identity) == (
        planned(base, *argv).folder,
        planned(base, *argv).identity,
    )
    words = shlex.split(plan.config["command"])
    assert words[:2] == ["python", "generate_images.py"]
    again = helpers.planned(words[2:])
    assert (again.settings, again.mitigation) == (plan.settings, plan.mitigation)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"methd": "prss"}, "there is no flag 'methd'.*Did you mean method?"),
        ({"targt_loss": 1.0}, "there is no flag 'targt_loss'.*Did you mean target_loss?"),
        ({"rho": 5.0}, "no_mitigation does not take --rho"),
        ({"quiet": 2}, "--quiet 2 is neither 0 nor 1"),
        ({"seed": 2.5}, "--seed must be of type int, not 2.5"),
        ({"scheduler": "pndm"}, "--scheduler 'pndm' is not possible; there are ddim, euler, keep"),
        ({"method": "prss", "masked": "yes"}, "--masked 'yes' is neither 0 nor 1"),
    ],
)
def test_wrong_flags_by_name_are_refused(base, typed, message):
    with pytest.raises(ValueError, match=message):
        generation_plan(**(build_parser([]).typed(base) | typed))
