"""`detect_memorization.py calibrate stability`: the file, what it is of, and that a run with it is
accepted or refused.
"""

import json
import re

import pytest

import memorization_suite.pipelines.loading
from memorization_suite.commands.calibrate import stability, use_of_statistics
from memorization_suite.detect_memorization import main
from memorization_suite.detection.stability import NORMS, read_statistics
from memorization_suite.generate_images import build_parser
from memorization_suite.generate_images import main as generate


@pytest.fixture(scope="module")
def flags(random_sd_folder, prompt_file) -> list[str]:
    return [
        "calibrate",
        "stability",
        "--model_id",
        random_sd_folder,
        "--prompts",
        prompt_file,
        "--image_length",
        "32",
        "--num_inference_steps",
        "3",
        "--quiet",
    ]


@pytest.fixture(scope="module")
def made(flags, loaded, tmp_path_factory):
    """Statistics of the random model: 5 prompts, 2 images each."""
    path = tmp_path_factory.mktemp("calibrated") / "stability.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)
        assert main([*flags, "-n", "2", "-b", "2", "--out", str(path)]) == 0
    return path


def test_the_file_says_what_it_is_of(made):
    statistics = read_statistics(made)
    assert statistics.num_steps == 3 and all((statistics.sd[name] > 0).all() for name in NORMS)
    assert statistics.made_with["scheduler"] == "ddim" and statistics.made_with["latent_shape"] == [
        4,
        8,
        8,
    ]
    assert (statistics.made_from["images"], statistics.made_from["prompts"]) == (10, 5)
    assert [path.name for path in made.parent.iterdir()] == ["stability.json"]


def test_batches_change_nothing(flags, made, loaded, tmp_path, monkeypatch, capsys):
    """1e-4; the summary counts the images."""
    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)
    assert main([*flags, "-n", "2", "-b", "3", "--out", str(tmp_path / "a.json")]) == 0
    assert "3 steps, 10 images" in capsys.readouterr().out
    one, other = read_statistics(made), read_statistics(tmp_path / "a.json")
    assert all(
        ((one.mean[name] - other.mean[name]).abs() <= 1e-4 * one.mean[name]).all() for name in NORMS
    )
    assert one.made_with == other.made_with and one.made_from == other.made_from


def test_it_is_a_function(made, random_sd_folder, prompt_file, loaded, tmp_path, monkeypatch):
    """The same file from Python; a name that is no flag is refused."""
    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)
    typed = {
        "model_id": random_sd_folder,
        "prompts": prompt_file,
        "image_length": 32,
        "quiet": True,
    }
    typed |= {"num_inference_steps": 3, "n_samples_per_prompt": 2, "batch_size": 2}
    line = stability(**typed, out=tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes() == made.read_bytes()
    assert line.startswith(f"{tmp_path / 'a.json'}: 3 steps, 10 images; their own largest ")
    assert re.search(r"median \d\.\d\d, at most \d\.\d\d standard deviations$", line)
    with pytest.raises(ValueError, match="there is no flag 'step'"):
        stability(**typed, out=tmp_path / "b.json", step=3)


def test_a_preset_sets_the_sampler_and_nothing_else(tmp_path, random_sd_folder, no_model, capsys):
    """How many images are sampled is no matter of the model."""
    (tmp_path / "one.txt").write_text("a red square\n")
    (tmp_path / "preset.toml").write_text(
        "[generate]\nn_samples_per_prompt = 4\nimage_length = 30\n"
    )
    argv = [
        "calibrate",
        "stability",
        "--model_id",
        random_sd_folder,
        "--prompts",
        str(tmp_path / "one.txt"),
    ]
    argv += ["--out", str(tmp_path / "a.json"), "--preset", str(tmp_path / "preset.toml")]
    assert main(argv) == 2
    assert "--image_length 30 must be a multiple of 4" in capsys.readouterr().err
    assert main([*argv, "--image_length", "32"]) == 2
    assert "--n_samples_per_prompt is 1" in capsys.readouterr().err


def test_a_run_with_the_file(made, base, loaded, tmp_path, monkeypatch, capsys, no_model):
    """The same settings run; others are refused before a model is loaded, exit code 2."""
    argv = [
        *base,
        "--num_inference_steps",
        "3",
        "--method",
        "stability_regions",
        "--statistics",
        str(made),
        "--output_path",
        str(tmp_path),
    ]
    for more, told in (
        (["--guidance_scale", "7.5"], "guidance_scale is 7.0 there, 7.5 here"),
        (["--image_length", "64"], "image_length is 32 there"),
        (["--scheduler", "euler"], "scheduler is ddim there, euler here"),
        (["--num_inference_steps", "4"], "num_inference_steps is 3 there"),
    ):
        assert generate([*argv, *more]) == 2
        assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)
    assert generate([*argv, "--end", "1"]) == 0
    (folder,) = tmp_path.glob("stability_regions/*")
    assert "instability" in (folder / "images.csv").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--prompts", "nowhere.csv"], "cannot read the prompt file nowhere.csv"),
        (["--out", "nowhere/a.json"], "--out nowhere/a.json is no file name"),
        (["--num_inference_steps", "0"], "--num_inference_steps 0 is out of range"),
        (["--image_length", "30"], "--image_length 30"),
        (["--guidance_scale", "nan"], "--guidance_scale nan"),
        (["--model_id", "nonsense"], "there is no model"),
        (["--device", "cuda:99"], "--device cuda:99"),
        (["--preset", "nowhere.toml"], "cannot read the preset"),
        (["--unet_id", "./nowhere"], "--unet_id"),
        (["--dtyp", "fp32"], "did you mean --dtype?"),
    ],
)
def test_wrong_arguments_are_refused(flags, tmp_path, capsys, no_model, more, told):
    try:
        code = main([*flags, "--out", str(tmp_path / "a.json"), *more])
    except SystemExit as leave:
        code = leave.code
    out, error = capsys.readouterr()
    assert code == 2 and not out
    assert error.startswith("detect_memorization.py calibrate: ")
    assert error.count("\n") == 1 and told in error
    assert not list(tmp_path.iterdir())


def test_one_image_is_not_enough(flags, tmp_path, capsys, no_model):
    (tmp_path / "one.txt").write_text("a red square\n")
    assert (
        main([*flags, "--prompts", str(tmp_path / "one.txt"), "--out", str(tmp_path / "a.json")])
        == 2
    )
    assert "at least two images" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [[], ["nonsense"], ["stability"], ["stability", "--nonsense", "1"]]
)
def test_the_parser_leaves_with_2(argv, capsys):
    with pytest.raises(SystemExit) as leave:
        main(["calibrate", *argv])
    assert leave.value.code == 2 and "Traceback" not in capsys.readouterr().err


def test_the_file_is_json_a_line_for_each_entry(made):
    lines = made.read_text().splitlines()
    assert len(lines) == 8 and json.loads(made.read_text())["kind"] == "stability"


def test_what_is_next(tmp_path):
    """Images with the statistics and the sampler that they are of."""
    typed = {"model_id": "tiny", "prompts": "a.csv", "out": tmp_path / "a.json", "quiet": True}
    python, script, *argv = use_of_statistics({**typed, "num_inference_steps": 20})
    assert (python, script) == ("python", "generate_images.py")
    assert build_parser(argv).typed(argv) == {
        "model_id": "tiny",
        "num_inference_steps": 20,
        "method": "stability_regions",
        "statistics": str(tmp_path / "a.json"),
    }
