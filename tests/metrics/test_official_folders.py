"""Output folders of the official script, as people have them: a run without a manifest."""

import csv
import json
import shutil

import pytest

from memorization_suite.commands.distances import main as distances
from memorization_suite.commands.report.gather import find_runs
from memorization_suite.commands.score_scripts import run_script
from memorization_suite.commands.summarize import main as summarize
from memorization_suite.commands.tradeoff import main as plot_tradeoff
from memorization_suite.make_report import main as make_report
from memorization_suite.metrics.comparison import is_unmitigated, titles_of
from memorization_suite.metrics.runs import open_run
from memorization_suite.metrics.scripts import COPIES, Script
from memorization_suite.metrics.tradeoff import series_of
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.foreign import method_of, title_of
from memorization_suite.runs.table import read_results
from tests.metrics.conftest import CAPTIONS, picture

UNKNOWN = "its method, settings, seed, model and cost are not known"
# What the official script writes beside its images.
CONFIG = {
    "image_length": 512,
    "model_id": "CompVis/stable-diffusion-v1-4",
    "unet_id": None,
    "output_path": "generated_images",
    "batch_size": 1,
    "n_samples_per_prompt": 2,
    "num_inference_steps": 50,
    "guidance_scale": 7.0,
    "seed": 2,
    "method": None,
    "command": "generate_images.py",
}


@pytest.fixture
def prompts(run, tmp_path):
    """The prompt file of four captions; training images are in gt/."""
    return tmp_path / "four.csv"


@pytest.fixture
def official(tmp_path):
    """official(name, seed): four prompts of two images in generated_images/NAME, and what else
    lies in such folders.
    """

    def make(name: str, seed: int = 0, *, ending: str = "png", config: dict | None = None):
        folder = tmp_path / "generated_images" / name
        (folder / "wandb").mkdir(parents=True)
        for prompt in range(4):
            for sample in range(2):
                image = picture(1000 * seed + 10 * prompt + sample)
                image.save(folder / f"img_{prompt:04d}_{sample:02d}.{ending}")
        (folder / "log.txt").write_text("50/50")
        (folder / "wandb" / "run.log").write_text("")
        (folder / ".DS_Store").write_text("")
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def scored(folder, prompts, tmp_path, *more) -> int:
    argv = ["--gen_folder", str(folder), "--prompts", str(prompts), "--quiet", *more]
    return run_script(COPIES, [*argv, "--gt_folder", str(tmp_path / "gt")])


def test_its_scores_are_those_of_a_run(run, official, prompts, tmp_path, capsys):
    """The same images in a run folder have the same values; the folder's name is the method."""
    folder = official("no_mitigation_g7")
    for key in [Key(prompt, 2) for prompt in range(4)]:
        run.image_path(key).unlink()
    assert scored(folder, prompts, tmp_path) == 0
    error = capsys.readouterr().err
    assert error.count(f"{folder}: there is no manifest.json") == 1 and UNKNOWN in error
    argv = ["--gen_folder", str(run.path), "--num_samples", "2", "--quiet", "--incomplete"]
    assert run_script(COPIES, [*argv, "--gt_folder", str(tmp_path / "gt")]) == 0
    rows = read_results(folder)
    assert {(row.run, row.method) for row in rows} == {(folder.name, folder.name)}
    assert [row[2:] for row in rows] == [row[2:] for row in read_results(run.path)] and rows


def test_without_its_prompt_file_it_says_what_to_type(official, capsys):
    folder = official("no_mitigation_g7")
    for main, argv in (
        (lambda argv: run_script(COPIES, argv), ["--gen_folder", str(folder)]),
        (make_report, [str(folder), "--out", str(folder.parent / "page.html")]),
    ):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert "does not say which prompt file it was made from: give --prompts" in error


def test_several_side_by_side_on_a_page(official, prompts, tmp_path, capsys):
    names = ["batch_wise_rho50", "no_mitigation_g7", "per_sample"]
    folders = [official(name, seed) for seed, name in enumerate(names)]
    for folder in folders:
        assert scored(folder, prompts, tmp_path) == 0
    page = tmp_path / "page.html"
    argv = [str(tmp_path / "generated_images"), "--prompts", str(prompts), "--out", str(page)]
    assert make_report([*argv, "--gt_folder", str(tmp_path / "gt")]) == 0
    text = page.read_text().replace("<wbr>", "")
    for name in names:
        assert f"<td>{name}<small>(no manifest)</small></td>" in text
        assert f"Not all is known of {name}: there is no manifest.json" in text
    assert text.index("<td>no_mitigation_g7<") < text.index("<td>batch_wise_rho50<")
    assert "Images whose seeds are not all known" in text and "Not scored yet" not in text
    with open(tmp_path / "page_scores.csv", newline="") as file:
        assert {row["method"] for row in csv.DictReader(file)} == set(names)


def test_the_trade_off_and_the_summary_find_their_scores(official, prompts, tmp_path, capsys):
    folders = [official(name, seed) for seed, name in enumerate(["a", "no_mitigation_b"])]
    for folder in folders:
        assert scored(folder, prompts, tmp_path) == 0
    runs = list(map(str, folders))
    argv = ["--x", "copy_score", "--y", "feature_similarity", "--out", str(tmp_path / "plot.png")]
    assert plot_tradeoff([*runs, *argv]) == 0
    with open(tmp_path / "plot_points.csv", newline="") as file:
        points = list(csv.DictReader(file))
    assert [(point["method"], point["series"]) for point in points] == [
        ("a", "a"),
        ("no_mitigation_b", "no_mitigation_b"),
    ]
    capsys.readouterr()
    assert summarize([*runs, "--quiet"]) == 0
    out, error = capsys.readouterr()
    assert "a                copy_score" in out and "a    copy_score" in out
    assert UNKNOWN in error and "of equal seeds is not known" in error


def test_scores_of_an_earlier_version_are_found(official, prompts, tmp_path, capsys):
    """It called the method as the folder above."""
    folder = official("no_mitigation_g7")
    assert scored(folder, prompts, tmp_path) == 0
    table = folder / "results.csv"
    older = table.read_text().replace(",no_mitigation_g7,", ",generated_images,")
    table.write_text(older)
    capsys.readouterr()
    assert summarize([str(folder), "--quiet"]) == 0
    assert "generated_images" not in capsys.readouterr().out


def test_the_scripts_own_folders_and_config(official, prompts, tmp_path, capsys):
    """Method and settings are those of the names, what the config says stands in the table."""
    plain = official("no_mitigation/g7.0_seed2", config=CONFIG)
    other = official("batch_wise/g7.0_rho50_gamma0.7_M2_step4_seed2", 1, config=CONFIG)
    assert method_of(plain) == "no_mitigation" and is_unmitigated(plain)
    assert list(titles_of([plain, other]).values()) == [title_of(plain), title_of(other)]
    assert title_of(other) == "batch_wise/g7.0_rho50_gamma0.7_M2_step4_seed2"
    page = tmp_path / "page.html"
    argv = [str(tmp_path / "generated_images"), "--prompts", str(prompts), "--out", str(page)]
    assert make_report(argv) == 0
    text = page.read_text().replace("<wbr>", "")
    assert "<td>no_mitigation<small>g7.0_seed2 (no manifest)</small></td>" in text
    assert "All: model CompVis/stable-diffusion-v1-4, steps 50, guidance 7.0, seed 2" in text
    assert "its settings are those of its config.json" in text and UNKNOWN not in text
    assert series_of([plain, other]) == {plain: "no_mitigation", other: "batch_wise"}


def test_beside_runs_of_the_suite(run, official, prompts, tmp_path, capsys):
    """A page of runs stays as it was; with the prompt file the others are on it, too."""
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["identity"]["method"] = "no_mitigation"
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    folder = official("theirs", 5)
    together = tmp_path / "runs" / "theirs"
    shutil.copytree(folder, together)
    assert list(find_runs([tmp_path / "runs"])) == [run.path]
    error = capsys.readouterr().err
    assert f"{together}: images without a manifest.json, left out; --prompts FILE" in error
    assert list(find_runs([tmp_path / "runs"], foreign=True)) == [run.path, together]
    series = series_of([run.path, together])
    assert series == {run.path: "no_mitigation", together: "theirs"}


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "JPG", "webp", "PNG"])
def test_other_formats(official, prompts, ending):
    folder = official("theirs", ending=ending)
    files = open_run(folder, prompts).files
    assert len(files) == 8 and files[Key(3, 1)].name == f"img_0003_01.{ending}"


def test_other_pictures_are_left_out_and_told(official, prompts, capsys):
    folder = official("theirs")
    for name in ("grid.png", "loss.jpg"):
        picture(1).save(folder / name)
    assert len(open_run(folder, prompts).files) == 8
    assert "2 pictures are left out, whose names are not" in capsys.readouterr().err


def test_a_folder_of_other_names_is_told(tmp_path, prompts, capsys):
    folder = tmp_path / "theirs"
    folder.mkdir()
    picture(1).save(folder / "00001.png")
    assert scored(folder, prompts, tmp_path) == 2
    assert "has no images img_PPPP_SS.png (it holds 00001.png)" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[1]", "\0"])
def test_a_config_of_another_program_is_its_own(official, prompts, content):
    folder = official("theirs")
    (folder / "config.json").write_text(content)
    assert len(open_run(folder, prompts).files) == 8
    assert RunFolder(folder).command_again() == ""


def test_a_broken_image_and_a_missing_one(official, prompts, tmp_path, capsys):
    folder = official("theirs", config=CONFIG)
    broken = folder / "img_0001_00.png"
    broken.write_bytes(broken.read_bytes()[:200])
    assert scored(folder, prompts, tmp_path) == 2
    error = capsys.readouterr().err
    assert f"{broken} is no whole picture" in error and "put a whole one in its place" in error
    broken.unlink()
    assert scored(folder, prompts, tmp_path) == 2
    assert "lacks 1 images of 2 a prompt, first img_0001_00.png" in capsys.readouterr().err
    assert scored(folder, prompts, tmp_path, "--incomplete") == 0


def test_compared_with_one_that_is_called_unmitigated(official, prompts, tmp_path, capsys):
    plain = official("no_mitigation_g7")
    other = official("per_sample", 1)
    change = Script("compute_diversity.py", "", ("feature_change",), ("",))
    argv = ["--gen_folder", str(other), "--prompts", str(prompts), "--unmitigated", str(plain)]
    assert run_script(change, argv) == 0
    out, error = capsys.readouterr()
    assert "of equal seeds is not known" in error
    assert {row.variant for row in read_results(other) if row.quantity == "feature_gen"} == {
        "efficientnet_lite0_192_to_no_mitigation_g7"
    }
    assert f"make_report.py {other} --prompts {prompts}" in error


def test_distances_to_real_images_stay_beside_them(official, tmp_path, capsys):
    folder = official("theirs")
    argv = ["--gen_folder", str(folder), "--real_folder", str(folder), "--num_samples", "1"]
    assert distances([*argv, "--quiet"]) == 0
    rows = {row.quantity: row for row in read_results(folder)}
    assert rows["frechet_features"].method == "theirs"
    assert "_n4_n8@" in rows["frechet_features"].variant


def test_names_of_folders(tmp_path):
    assert len(CAPTIONS) == 4
    for name, method in {
        "no_mitigation_g7": "no_mitigation_g7",
        "g7.0_seed2": "x",
        "g7_lr0.01_tl0.9_oi1000_seed2": "x",
        "gate_seed2": "gate_seed2",
        "images": "images",
    }.items():
        assert method_of(tmp_path / "x" / name) == method
