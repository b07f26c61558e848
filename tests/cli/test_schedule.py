"""Steps and sizes that a model cannot make are one line, before a folder is changed."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import memorization_suite.pipelines.loading
from memorization_suite import detect_memorization, generate_images
from memorization_suite.commands.schedule import check_image, check_schedule
from memorization_suite.sampling.denoiser import Unusable

TRAINED = 1000


@pytest.mark.parametrize("steps", [1, 2, 4, 50, 300, 333, 500, 999])
def test_steps_that_reach_the_noisiest_timesteps(pipe, steps, capsys):
    check_schedule(pipe, steps, TRAINED)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("steps", "first"), [(128, 890), (170, 846), (256, 766), (400, 799)])
def test_steps_that_begin_a_little_past_them_are_made(pipe, steps, first, capsys):
    """The official script makes them without a word."""
    check_schedule(pipe, steps, TRAINED)
    told = f"{steps} steps begin at timestep {first} of 1000, past the noisiest ones\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (1000, "IndexError.*Possible are, for example, 500, 333"),
        (600, "they begin at timestep 600 of 1000.*Possible are, for example, 500, 333"),
        (350, "they begin at timestep 699 of 1000.*Possible are, for example, 333, 250"),
    ],
)
def test_steps_that_ddim_cannot_make(pipe, steps, told):
    with pytest.raises(Unusable, match=f"--num_inference_steps {steps} is not possible.*{told}"):
        check_schedule(pipe, steps, TRAINED)


@pytest.mark.parametrize("steps", [1, 600, 1000])
def test_eulers_grid_always_begins_at_the_last_timestep(euler_pipe, steps):
    check_schedule(euler_pipe, steps, TRAINED)


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
def test_a_sampler_with_a_limit_of_its_own(make_pipe, name):
    """At most 50 steps, which many of the nearer counts are above."""
    import diffusers

    pipe = make_pipe()
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    check_schedule(pipe, 50, TRAINED)
    with pytest.raises(Unusable, match=f"60 is not possible with {name}.*example, 50, 47$"):
        check_schedule(pipe, 60, TRAINED)


def test_the_model_is_as_before(make_pipe, monkeypatch):
    """Its sampler's state and the global random numbers, also where a step draws some."""
    pipe = make_pipe()
    scheduler = pipe.scheduler
    step = type(scheduler).step

    def drawing(self, output, t, latents, return_dict):
        self.was_here = torch.rand(1)
        return step(self, output, t, latents, return_dict=return_dict)

    monkeypatch.setattr(type(scheduler), "step", drawing)
    pipe.set_timesteps(4)
    timesteps = pipe.timesteps.clone()
    random = torch.get_rng_state()
    check_schedule(pipe, 7, TRAINED)
    check_image(pipe, 32, 7)
    assert pipe.scheduler is scheduler and torch.equal(pipe.timesteps, timesteps)
    assert not hasattr(scheduler, "was_here") and torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    "name",
    [
        "RePaintScheduler",  # its step needs an image
        "CogVideoXDPMScheduler",  # ... the step before
        "FlowMatchEulerDiscreteScheduler",  # of another kind of models
        "DDIMInverseScheduler",  # begins with the least noise
        "IPNDMScheduler",  # timesteps from 1 to 0
        "SCMScheduler",  # wants its timesteps given
    ],
)
def test_schedulers_that_the_loop_cannot_drive(make_pipe, name):
    import diffusers

    pipe = make_pipe()
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    with pytest.raises(Unusable, match=f"{name} of this model cannot be used.*another --scheduler"):
        check_schedule(pipe, 50, TRAINED)


# --- sizes ---


@pytest.mark.parametrize("size", [16, 20, 32, 512])
def test_sizes_that_are_whole_latent_pixels(pipe, size):
    check_image(pipe, size, 50)


def test_an_image_is_tried_with_the_steps_of_the_run(make_pipe):
    """PNDM as in Stable Diffusion's first version makes 4 steps, and fails at 1."""
    from diffusers import PNDMScheduler

    pipe = make_pipe()
    pipe.scheduler = PNDMScheduler.from_config(pipe.scheduler.config, skip_prk_steps=False)
    check_schedule(pipe, 4, TRAINED)
    check_image(pipe, 32, 4)


def test_a_size_that_is_no_whole_number_of_latent_pixels(pipe):
    with pytest.raises(ValueError, match="--image_length 30 must be a multiple of 4"):
        check_image(pipe, 30, 50)


@pytest.mark.parametrize(("size", "tried"), [(8, 2), (512, 8)])
def test_what_a_layer_refuses(pipe, monkeypatch, size, tried):
    """It is tried on a small latent."""

    def forward(latents, *args, **kwargs):
        raise ValueError(f"class_labels should be provided, {latents.shape[-1]}")

    monkeypatch.setattr(pipe.unet, "forward", forward)
    told = f"no images of {size} pixels here: class_labels should be provided, {tried} .*for 64"
    with pytest.raises(Unusable, match=told):
        check_image(pipe, size, 50)


def test_a_device_without_memory_is_another_fault(pipe, monkeypatch):
    def forward(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(pipe.unet, "forward", forward)
    with pytest.raises(torch.OutOfMemoryError):
        check_image(pipe, 32, 50)


# --- commands ---


@pytest.mark.parametrize("command", ["generate", "detect", "spectrum", "tokens", "stability"])
def test_every_command_says_it_before_a_folder_is_changed(
    monkeypatch, random_sd_folder, loaded, prompt_file, tmp_path, capsys, command
):
    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)
    argv = ["--model_id", random_sd_folder, "--prompts", prompt_file]
    argv += ["--image_length", "32", "--num_inference_steps", "600", "--quiet"]
    main = generate_images.main if command == "generate" else detect_memorization.main
    if command == "stability":
        argv = ["calibrate", "stability", *argv, "--out", str(tmp_path / "s.json")]
    else:
        argv += ["--output_path", str(tmp_path / "out")]
        argv = [*([command] if command in ("spectrum", "tokens") else []), *argv]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "--num_inference_steps 600 is not possible with DDIMScheduler" in error.splitlines()[-1]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_folder_whose_scheduler_cannot_be_kept(random_sd_folder, prompt_file, tmp_path, capsys):
    folder = shutil.copytree(random_sd_folder, tmp_path / "model")
    file = Path(folder) / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text()) | {"_class_name": "RePaintScheduler"}
    file.write_text(json.dumps(config))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "RePaintScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    argv = ["--model_id", str(folder), "--prompts", prompt_file, "--image_length", "32"]
    argv += ["--num_inference_steps", "4", "--output_path", str(tmp_path / "out"), "--quiet"]
    assert generate_images.main([*argv, "--scheduler", "keep"]) == 2
    assert "another --scheduler" in capsys.readouterr().err.splitlines()[-1]
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_the_preset_is_said_by_every_command(
    monkeypatch, random_sd_folder, loaded, prompt_file, tmp_path, capsys
):
    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)
    argv = ["--model_id", random_sd_folder, "--prompts", prompt_file, "--quiet", "-n", "2"]
    argv += ["--image_length", "32", "--num_inference_steps", "2"]
    out = ["--output_path", str(tmp_path), "--end", "1"]
    assert detect_memorization.main([*argv, *out]) == 0
    assert detect_memorization.main(["tokens", *argv, *out]) == 0
    stability = ["calibrate", "stability", *argv, "--out", str(tmp_path / "s.json")]
    assert detect_memorization.main(stability) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if ", preset " in line]
    assert [line.partition(",")[0] for line in told] == [
        "detector noise_norm",
        "study tokens",
        "calibrate stability",
    ]
    assert all("preset none: scheduler=ddim image_length=32" in line for line in told)
