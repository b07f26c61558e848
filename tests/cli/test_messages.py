"""What commands say ahead, when they are stopped, and at the end; what gets a missing file."""

import re
import shlex
from pathlib import Path

import pytest

import memorization_suite.pipelines.loading
from memorization_suite import detect_memorization, generate_images, make_report, sweep
from memorization_suite.commands import image_job, score_scripts
from memorization_suite.commands.settings import prompt_sets, what_fetches
from memorization_suite.commands.sweeps.status import Status
from memorization_suite.commands.sweeps.sweep import Outcome
from memorization_suite.metrics.base import Scoring
from memorization_suite.metrics.scripts import COPIES
from memorization_suite.pipelines.family import Unusable

SCORES = ["set,prompt_index,prompt,sample_index,score"]
SCORES += [f"nonmem,{k},x,0,{k / 10}" for k in range(100)]


@pytest.fixture
def spoken(base, loaded, monkeypatch) -> list[str]:
    """The arguments of a run that is not quiet."""
    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)
    return [word for word in base if word != "--quiet"]


def following(error: str) -> list[str]:
    """The words of the last line, which says what is next."""
    last = error.splitlines()[-1]
    assert last.startswith("next: python ")
    return shlex.split(last)[2:]


def test_a_run_says_what_it_does_and_what_is_next(spoken, tmp_path, capsys):
    assert generate_images.main([*spoken, "--output_path", str(tmp_path / "a b")]) == 0
    error = capsys.readouterr().err
    assert "\n10 images of 5 prompts: no_mitigation, " in error and " on cpu\n" in error
    assert re.search(r"\nabout \d+ s \(\d", error) and "\r" not in error
    script, *argv = following(error)
    assert script.endswith("metrics/compute_sscd_orig_clip_score.py")
    assert score_scripts.run_script(COPIES, argv) == 0
    script, *argv = following(capsys.readouterr().err)
    assert script.endswith("make_report.py")
    page = tmp_path / "page.html"
    assert make_report.main([*argv, "--out", str(page)]) == 0
    assert following(capsys.readouterr().err) == ["-m", "webbrowser", page.as_uri()]


def test_a_stopped_run_says_what_is_kept(spoken, tmp_path, capsys, monkeypatch):
    make = image_job.Job.make
    batches = []

    def make_two(self, prompts, samples, noise):
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(prompts)
        return make(self, prompts, samples, noise)

    with monkeypatch.context() as patch:
        patch.setattr(image_job.Job, "make", make_two)
        assert generate_images.main([*spoken, "--output_path", str(tmp_path)]) == 1
    (folder,) = tmp_path.glob("*/*")
    kept = f"interrupted: 8 of 10 images are kept in {folder}. Rerun the command to resume.\n"
    assert capsys.readouterr().err.endswith(kept) and len(list(folder.glob("*.png"))) == 8
    assert generate_images.main([*spoken, "--output_path", str(tmp_path)]) == 0
    assert "10 images of 5 prompts" in (error := capsys.readouterr().err)
    assert "; 8 are there already\n" in error


def test_a_page_begins_with_the_unmitigated_run(whole, tmp_path, monkeypatch):
    """If that was scored, and its images stand on equal seeds."""
    runs = [tmp_path / name for name in ("no_mitigation/g7_seed2", "per_sample/g7_seed2")]
    for run in runs:
        run.mkdir(parents=True)
        (run / "manifest.json").write_text((whole() / "manifest.json").read_text())
    assert score_scripts.following(Scoring(gen_folder=runs[1])) == [
        "python",
        "make_report.py",
        str(runs[1]),
    ]
    (runs[0] / "results.csv").touch()
    assert score_scripts.following(Scoring(gen_folder=runs[1])) == [
        "python",
        "make_report.py",
        *map(str, runs),
    ]
    assert score_scripts.following(Scoring(gen_folder=runs[0])) == [
        "python",
        "make_report.py",
        str(runs[0]),
    ]


def test_a_threshold_is_followed_by_a_screened_run(tmp_path, capsys):
    folder = tmp_path / "noise_norm"
    folder.mkdir()
    (folder / "scores.csv").write_text("\n".join(SCORES) + "\n")
    (folder / "config.json").write_text('{"model_id": "tiny", "prompts": "my prompts.csv"}')
    assert detect_memorization.main(["calibrate", "threshold", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("\n--screen noise_norm:9.805\n")
    script, *argv = following(said.err)
    assert script.endswith("generate_images.py")
    typed = generate_images.build_parser(argv).typed(argv)
    assert typed["screen"] == "noise_norm:9.805" and typed["method"] == "per_sample"
    assert (typed["model_id"], typed["prompts"]) == ("tiny", "my prompts.csv")


def test_a_sweep_without_scores_is_followed_by_one_with(tmp_path, capsys, monkeypatch):
    made = Outcome(Status(rows=[{"run": "one"}], summary="", failed=0), summary=None, page=None)
    monkeypatch.setattr(sweep, "plan_sweep", lambda *args, **typed: [])
    monkeypatch.setattr(sweep, "sweep", lambda *args, **typed: made)
    file = tmp_path / "a file.toml"
    file.write_text('[[run]]\nmethod = "no_mitigation"\n')
    assert sweep.main([str(file), "--no_scores", "--output_path", str(tmp_path)]) == 0
    script, *argv = following(capsys.readouterr().err)
    assert script.endswith("sweep.py")
    assert argv == [str(file), "--output_path", str(tmp_path)]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("prompts/sd1_mem.txt", "python download/fetch.py sd1_mem gets it."),
        ("models/sd14", "python download/fetch.py sd14 gets it."),
        (
            "CompVis/stable-diffusion-v1-4",
            "python download/fetch.py sd14 gets it, for --model_id models/sd14.",
        ),
        ("nowhere.csv", ""),
    ],
)
def test_what_fetches_a_file_is_named(wanted, told, monkeypatch):
    monkeypatch.chdir(Path(generate_images.__file__).parent)
    assert what_fetches(wanted) == told


def test_a_model_that_cannot_be_loaded_names_what_fetches_it(tmp_path, capsys, monkeypatch):
    def fail(*args, **more):
        raise Unusable("cannot load it.")

    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", fail)
    (tmp_path / "one.txt").write_text("a red square\n")
    argv = ["--prompts", str(tmp_path / "one.txt"), "--output_path", str(tmp_path / "out")]
    assert generate_images.main(argv) == 2
    assert "cannot load it. python download/fetch.py sd14 gets it" in capsys.readouterr().err


def test_prompts_that_are_not_given_name_what_fetches_some():
    with pytest.raises(ValueError, match="fetch.py prompts gets those of the papers"):
        prompt_sets("CompVis/stable-diffusion-v1-4", "")


def test_quiet_says_neither(base, loaded, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)
    assert generate_images.main([*base, "--output_path", str(tmp_path)]) == 0
    error = capsys.readouterr().err
    assert "images of" not in error and "next:" not in error and "about" not in error
