"""sweep.py: grids, the same bytes as single commands, going on, and what it refuses before a model
is loaded.
"""

import shlex
from pathlib import Path

import pytest

import memorization_suite.commands.sweeps.jobs
import memorization_suite.pipelines.loading
from memorization_suite.commands.sweeps.file import read_sweep
from memorization_suite.commands.sweeps.sweep import plan_sweep
from memorization_suite.sweep import main
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
        if path.is_dir() and path.parent.name != "jobs"
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
    gone = runs["no_mitigation/g7_seed2"]
    kept = runs["batch_wise/g7_rho50_gamma1_M2_step1_seed2"]
    whole = images(gone)
    stamp = (kept / "manifest.json").stat().st_mtime_ns
    (gone / "img_0000_01.png").unlink()
    assert not (tmp_path / "out" / "report.html").exists()
    swept(file, tmp_path)
    assert (
        images(gone) == whole
        and (kept / "manifest.json").stat().st_mtime_ns == stamp
        and len(loads) == 2
    )
    monkeypatch.setattr(
        memorization_suite.commands.sweeps.jobs,
        "score",
        lambda *args, **typed: pytest.fail("scored again"),
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
        all("--seed=7" in line for line in lines)
        and "--batch_wise" in lines[1]
        and "--per_sample" not in " ".join(lines[1])
    )


def test_settings_that_no_folder_name_tells_get_folders(file, tmp_path):
    file.write_text(
        file.read_text()
        .replace("num_inference_steps = 4", "num_inference_steps = [4, 5]")
        .replace("[[run]]\n[[run]]", "[[run]]")
    )
    entries = plan_sweep(file, tmp_path / "out")
    assert len({entry.plan.folder for entry in entries}) == 4
    assert {entry.plan.folder.parents[1].name for entry in entries} == {
        "num_inference_steps4",
        "num_inference_steps5",
    }


def test_a_typed_flag_wins_over_a_list_and_its_folder(file, tmp_path):
    file.write_text(
        file.read_text().replace("num_inference_steps = 4", "num_inference_steps = [4, 5]")
    )
    entries = plan_sweep(file, tmp_path / "out", num_inference_steps=3)
    assert [entry.plan.settings.num_inference_steps for entry in entries] == [3] * 3 and all(
        e.plan.folder.parents[1].name == "out" for e in entries
    )
    assert not any("num_inference_steps" in entry.name for entry in entries)


def test_a_sweep_of_moved_prompts(file, tmp_path, loads, prompt_file, monkeypatch):
    moved = tmp_path / "moved.txt"
    again = tmp_path / "again.txt"
    moved.write_bytes(Path(prompt_file).read_bytes())
    file.write_text(file.read_text().replace(prompt_file, str(moved)))
    swept(file, tmp_path, "--no_scores")
    moved.rename(again)
    swept(file, tmp_path, "--prompts", str(again))
    assert len(loads) == 1 and (tmp_path / "out" / "report.html").exists()


def test_equal_runs_are_one(file, tmp_path):
    file.write_text(file.read_text().replace("[0.7, 1]", "[1, 1.0, 2]"))
    assert len(plan_sweep(file, tmp_path / "out")) == 3


def test_the_last_list_changes_fastest(file):
    file.write_text("[common]\nseed = [1, 2]\n[[run]]\nrho = [5, 6]\ngamma = 1\n")
    runs = read_sweep(file)
    assert [run.label for run in runs] == [
        f"seed={seed} rho={rho} gamma=1" for seed in (1, 2) for rho in (5, 6)
    ]
    assert [run.settings["seed"] for run in runs] == [1, 1, 2, 2]


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
        ("[0.7, 1]", "'x'", "must be of type float, not 'x'"),
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


def test_a_missing_file_and_what_is_no_sweep_file(tmp_path, file, no_model, capsys, monkeypatch):
    assert main([str(tmp_path / "none.toml")]) == 2 and "cannot be read" in capsys.readouterr().err
    assert main(["8", "--quiet"]) == 2 and "FILE.toml comes first" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    swept(file, tmp_path, code=2)
    assert "one process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--gama", "3"], "unrecognized arguments: --gama 3; did you mean --gamma?"),
        (["--list_methods"], "unrecognized arguments: --list_methods"),
        (["--overwrite"], "unrecognized arguments: --overwrite"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
    ],
)
def test_wrong_flags(typed, told, file, tmp_path, no_model, capsys):
    with pytest.raises(SystemExit) as leave:
        swept(file, tmp_path, *typed)
    error = capsys.readouterr().err
    assert leave.value.code == 2 and told in error and error.count("\n") == 1


def test_flags_that_are_the_sweeps_own(file, tmp_path):
    for typed in ({"overwrite": True}, {"output_path": "x"}):
        with pytest.raises(ValueError, match="is no flag of a sweep"):
            plan_sweep(file, tmp_path / "out", **typed)


def test_a_false_switch_of_a_method_is_false(file, tmp_path):
    file.write_text(
        file.read_text()
        .replace("[[run]]\n[[run]]", "[[run]]")
        .replace('"adj_init_noise"', '"cross_attention"')
        .replace("batch_wise = true", "cross_attn_mask = [true, false]")
        .replace("gamma = [0.7, 1]\napply_cfg_step = 1", "bos_scale = 2")
    )
    entries = plan_sweep(file, tmp_path / "out")
    assert [entry.plan.mitigation.cross_attn_mask for entry in entries] == [True, False]
    assert [word in entries[1].command for word in ("--cross_attn_mask=0", "--per_sample")] == [
        True,
        False,
    ]


def test_scores_that_fail_keep_their_words(file, tmp_path, loads, monkeypatch, capsys):
    def fail(*args, **typed):
        raise OSError("no space left")

    monkeypatch.setattr(memorization_suite.commands.sweeps.jobs, "score", fail)
    swept(file, tmp_path, code=1)
    out, error = capsys.readouterr()
    assert "[1/3] scores of common settings alone failed: no space left\n" in error
    assert "0 of 3 runs done, 12 of 12 images there, 4 failed" in out  # three runs and the page


def test_a_run_that_fails_ends_no_other(file, tmp_path, loads, monkeypatch, capsys):
    generate = memorization_suite.commands.sweeps.jobs.generate

    def fail(plan, **options):
        if plan.mitigation.name == "no_mitigation":
            raise OSError("no space left")
        return generate(plan, **options)

    monkeypatch.setattr(memorization_suite.commands.sweeps.jobs, "generate", fail)
    swept(file, tmp_path, code=1)
    out, error = capsys.readouterr()
    assert "[1/3] common settings alone failed: no space left\n" in error
    assert "2 of 3 runs done, 8 of 12 images there, 1 failed" in out
    assert "no space left" in (tmp_path / "out" / "report.html").read_text()
