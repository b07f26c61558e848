"""sweep.py: grids, the same bytes as single commands, going on, and what it refuses before a model
is loaded.
"""

import shlex
import sys
from pathlib import Path

import pytest

import memorization_suite.pipelines.loading
import memorization_suite.sweeping.command
from memorization_suite.sweeping.command import main
from memorization_suite.sweeping.plan import plan_sweep, read_sweep
from tests.cli.helpers import images


@pytest.fixture
def file(tmp_path, random_sd_folder, prompt_file):
    """Two prompts; no mitigation and batch-wise at two values."""
    path = tmp_path / "two.toml"
    path.write_text(f'''
[common]
model_id = "{random_sd_folder}"
prompts = "{prompt_file}"
image_length = 32
num_inference_steps = 4
n_samples_per_prompt = 2
end = 2

[[run]]
[[run]]
method = "adj_init_noise"
batch_wise = true
per_sample = false
gamma = [0.7, 1]
apply_cfg_step = 1
''')
    return path


@pytest.fixture
def loads(monkeypatch, loaded):
    """Counts how often a model is asked for."""
    calls = []

    def load(*args, **kwargs):
        calls.append(args)
        return loaded(*args, **kwargs)

    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", load)
    return calls


def swept(file, tmp_path, *more, code=0):
    assert main([str(file), "--output_path", str(tmp_path / "out"), "--quiet", *more]) == code
    return {
        path.parent.name + "/" + path.name: path
        for path in sorted((tmp_path / "out").glob("*/*"))
        if path.is_dir()
    }


def test_a_sweep_equals_its_commands_and_loads_one_model(file, tmp_path, loads, generate, capsys):
    runs = swept(file, tmp_path)
    assert list(runs) == [
        "batch_wise/g7_rho50_gamma0.7_M2_step1_seed2",
        "batch_wise/g7_rho50_gamma1_M2_step1_seed2",
        "no_mitigation/g7_seed2",
    ]
    assert (
        len(loads) == 1
        and (tmp_path / "out" / "report.html").stat().st_size > 10_000
        and (tmp_path / "out" / "report_scores.csv").exists()
    )
    for gamma in ("0.7", "1"):
        single = generate(
            tmp_path / gamma,
            "--method",
            "batch_wise",
            "--gamma",
            gamma,
            "--apply_cfg_step",
            "1",
            "--end",
            "2",
            "-b",
            "1",
        )
        assert (
            images(single) == images(runs[f"batch_wise/g7_rho50_gamma{gamma}_M2_step1_seed2"])
            and len(images(single)) == 4
        )
    error = capsys.readouterr().err
    assert error.count("lpips is not computed") == 1 and all(
        (run / "results.csv").exists() for run in runs.values()
    )


def test_a_sweep_goes_on(file, tmp_path, loads, monkeypatch, capsys):
    runs = swept(file, tmp_path, "--no_scores")
    gone, kept = runs["no_mitigation/g7_seed2"], runs["batch_wise/g7_rho50_gamma1_M2_step1_seed2"]
    whole, stamp = images(gone), (kept / "manifest.json").stat().st_mtime_ns
    (gone / "img_0000_01.png").unlink()
    assert not (tmp_path / "out" / "report.html").exists()
    swept(file, tmp_path)
    assert (
        images(gone) == whole
        and (kept / "manifest.json").stat().st_mtime_ns == stamp
        and len(loads) == 2
    )
    monkeypatch.setattr(
        memorization_suite.sweeping.command, "run_script", lambda *args: pytest.fail("scored again")
    )
    swept(file, tmp_path)
    with pytest.raises(pytest.fail.Exception, match="scored again"):
        swept(file, tmp_path, "--rescore")
    assert len(loads) == 2 and capsys.readouterr().out.count("(nothing to make)") == 2 + 3 + 3


def test_a_dry_run_prints_commands(file, tmp_path, no_model, capsys):
    swept(file, tmp_path, "--dry_run", "--seed", "7")
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [["python", "generate_images.py"]] * 3 and not (
        tmp_path / "out"
    ).exists()
    assert (
        all("--seed" in line for line in lines)
        and "--batch_wise" in lines[1]
        and "--per_sample" not in " ".join(lines[1])
    )


def test_settings_that_no_folder_name_tells_get_folders(file, tmp_path):
    file.write_text(
        file.read_text()
        .replace("num_inference_steps = 4", "num_inference_steps = [4, 5]")
        .replace("[[run]]\n[[run]]", "[[run]]")
    )
    entries = plan_sweep(file, tmp_path / "out", [])
    assert len({entry.plan.folder for entry in entries}) == 4
    assert {entry.plan.folder.parents[1].name for entry in entries} == {
        "num_inference_steps4",
        "num_inference_steps5",
    }


def test_a_typed_flag_wins_over_a_list_and_its_folder(file, tmp_path):
    file.write_text(
        file.read_text().replace("num_inference_steps = 4", "num_inference_steps = [4, 5]")
    )
    entries = plan_sweep(file, tmp_path / "out", ["--num_inference_steps", "3"])
    assert [entry.plan.settings.num_inference_steps for entry in entries] == [3] * 3 and all(
        e.plan.folder.parents[1].name == "out" for e in entries
    )
    assert not any("num_inference_steps" in entry.name for entry in entries)


def test_a_sweep_of_moved_prompts(file, tmp_path, loads, prompt_file, monkeypatch):
    moved, again = tmp_path / "moved.txt", tmp_path / "again.txt"
    moved.write_bytes(Path(prompt_file).read_bytes())
    file.write_text(file.read_text().replace(prompt_file, str(moved)))
    swept(file, tmp_path, "--no_scores")
    moved.rename(again)
    swept(file, tmp_path, "--prompts", str(again))
    assert len(loads) == 1 and (tmp_path / "out" / "report.html").exists()


def test_equal_runs_are_one(file, tmp_path):
    file.write_text(file.read_text().replace("[0.7, 1]", "[1, 1.0, 2]"))
    assert len(plan_sweep(file, tmp_path / "out", [])) == 3


def test_the_last_list_changes_fastest(file):
    file.write_text("[common]\nseed = [1, 2]\n[[run]]\nrho = [5, 6]\ngamma = 1\n")
    assert [name for name, _ in read_sweep(file)] == [
        f"seed={seed} rho={rho} gamma=1" for seed in (1, 2) for rho in (5, 6)
    ]
    assert [settings["seed"] for _, settings in read_sweep(file)] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("[common]", "[shared]", "is no sweep"),
        ("[[run]]\n[[run]]", "[run]", "is no sweep"),
        ("end = 2", "end = ", "no TOML"),
        ("gamma = [0.7, 1]", "gamma = []", "sets gamma to []"),
        ("gamma =", "gama =", "sets 'gama'"),
        ("end = 2", "end = {a = 1}", "sets end to"),
        ("end = 2", "output_path = 'x'", "'output_path', which is no flag"),
        ("[0.7, 1]", "'x'", "invalid float"),
        ("end = 2", "end = 99", "run 1 of 3"),
        (
            "[0.7, 1]",
            "[0.7, -1]",
            "run 3 of 3 (method=adj_init_noise batch_wise=True per_sample=False gamma=-1",
        ),
        ("gamma = [0.7, 1]", "gamma = 1\nend = [1, 2]", "would share the folder"),
        ("end = 2", "trace = [true, false]", "would share the folder"),
        ("per_sample = false", "per_sample = true", "run 2 of 3"),
    ],
)
def test_refusals(file, tmp_path, no_model, capsys, before, after, told):
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    swept(file, tmp_path, code=2)
    error = capsys.readouterr().err
    assert (
        told in error
        and error.count("\n") == 1
        and error.startswith("sweep.py: ")
        and not (tmp_path / "out").exists()
    )


def test_a_missing_file_and_a_wrong_flag(tmp_path, file, no_model, capsys, monkeypatch):
    assert main([str(tmp_path / "none.toml")]) == 2 and "cannot be read" in capsys.readouterr().err
    swept(file, tmp_path, "--gama", "3", code=2)
    assert "unrecognized arguments: --gama" in capsys.readouterr().err
    swept(file, tmp_path, "--list_methods", code=2)
    assert main(["--end", "8", str(file)]) == 2
    assert (
        "no flag of a sweep" in (error := capsys.readouterr().err)
        and "FILE.toml comes first" in error
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    swept(file, tmp_path, code=2)
    assert "one process" in capsys.readouterr().err


def test_scores_that_fail_keep_their_code_and_words(file, tmp_path, loads, monkeypatch, capsys):
    def fail(*args):
        print("no space left", file=sys.stderr)
        return 1

    monkeypatch.setattr(memorization_suite.sweeping.command, "run_script", fail)
    swept(file, tmp_path, code=1)
    assert "no space left" in (error := capsys.readouterr().err) and "was not scored" in error


def test_a_run_that_fails_stops_the_sweep(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("generation.main", lambda argv, load: 1)
    swept(file, tmp_path, code=1)
    assert "run 1 of 3" in capsys.readouterr().err
