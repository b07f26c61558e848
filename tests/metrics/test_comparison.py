"""Which runs are compared with which: the reference is named, and what else differs is said."""

import json
from collections import Counter
from pathlib import Path

import pytest

from memorization_suite.commands import summarize, tradeoff
from memorization_suite.make_report import main as make_report
from memorization_suite.metrics.comparison import (
    is_unmitigated,
    problem_of,
    references_of,
    titles_of,
)
from memorization_suite.metrics.runs import made_otherwise
from memorization_suite.metrics.tradeoff import series_of as tradeoff_lines
from memorization_suite.runs import RunFolder
from memorization_suite.runs.files import write_json
from memorization_suite.runs.table import Result, add_results
from tests.metrics.conftest import make_run
from tests.metrics.test_scripts import prompts_of

SHARED = {
    "model_id": "sha256 aaaa",
    "scheduler": "ddim",
    "num_inference_steps": 50,
    "guidance_scale": 7.0,
    "dtype": "fp32",
}


@pytest.fixture
def make(run, tmp_path):
    """A function that makes a scored run: below tmp_path / `above`, with settings of its own."""

    def made(method, value=0.5, above="runs", asked=None, typed=None, **settings):
        identity = SHARED | settings
        name = f"g{identity['guidance_scale']:g}_seed{identity.get('seed', 2)}"
        folder = make_run(tmp_path / above / method / name, prompts_of(run), seed=0).path
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["identity"] |= {"method": method} | identity
        write_json(folder / "manifest.json", manifest | ({"asked": asked} if asked else {}))
        config = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", config | (typed or {}))
        rows = []
        for prompt in range(4):
            score = value + 0.01 * prompt**2
            for quantity, more in (("copy_score", score), ("subject_shown", prompt % 2)):
                rows.append(Result(name, method, prompt, 0, quantity, "v", more))
        add_results(folder, rows)
        return folder

    return made


def summary(capsys, *argv):
    """(stdout, stderr) of summarize.py."""
    argv = [*map(str, argv), "--quantities", "copy_score", "--quiet"]
    assert summarize.main(argv) == 0
    return capsys.readouterr()


def headings(out):
    """What each table of differences is to, and the runs in it."""
    tables = {}
    for line in out.splitlines():
        if line.startswith("difference to "):
            title = line.removeprefix("difference to ").removesuffix(
                " on equal prompts and samples"
            )
        elif "/" in line.split(" ")[0]:
            tables.setdefault(title, []).append(line.split("  ")[0])
    return tables


def test_the_unmitigated_run_wherever_it_is_typed(make, capsys):
    runs = [make("a_method"), make("batch_wise"), make("no_mitigation"), make("sail")]
    out, error = summary(capsys, *runs)
    assert headings(out) == {
        "no_mitigation/g7_seed2": ["a_method/g7_seed2", "batch_wise/g7_seed2", "sail/g7_seed2"]
    }
    assert not error
    assert list(headings(summary(capsys, *runs[:2])[0])) == ["a_method/g7_seed2"]


def test_the_reference_that_is_named(make, capsys):
    plain, other, third = make("no_mitigation"), make("sail", 0.2), make("batch_wise")
    out, _ = summary(capsys, plain, third, "--reference", other)
    assert headings(out) == {"sail/g7_seed2": ["no_mitigation/g7_seed2", "batch_wise/g7_seed2"]}
    assert summarize.main([str(plain), "--reference", str(plain.parent)]) == 2
    assert "has no results.csv" in capsys.readouterr().err


def test_each_run_has_the_unmitigated_one_of_its_kind(make, capsys):
    runs = [
        make(method, guidance_scale=scale)
        for method in ("batch_wise", "no_mitigation")
        for scale in (3.0, 7.0)
    ]
    out, error = summary(capsys, *runs)
    assert headings(out) == {
        "no_mitigation/g3_seed2": ["batch_wise/g3_seed2", "no_mitigation/g7_seed2"],
        "no_mitigation/g7_seed2": ["batch_wise/g7_seed2"],
    }
    assert error.count("\n") == 1 and "beside the method (guidance_scale 7.0 and 3.0)" in error


def test_runs_of_two_models_that_are_called_alike(make, capsys):
    """Each stands beside its own model's, and names tell them apart."""
    runs = [
        make(method, above=model, model_id=f"sha256 {model}", typed={"model_id": model})
        for model in ("one", "two")
        for method in ("batch_wise", "no_mitigation")
    ]
    out, error = summary(capsys, *runs)
    assert headings(out) == {
        "no_mitigation/g7_seed2 in one": ["batch_wise/g7_seed2 in one"],
        "no_mitigation/g7_seed2 in two": ["batch_wise/g7_seed2 in two"],
    }
    assert out.count("g7_seed2 in two") == 4
    assert "no differences:" in error and "model_id two and one" in error


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_inference_steps": 20}, "num_inference_steps 50 and 20"),
        ({"model_id": "sha256 bbbb"}, "model_id sha256 aaaa and sha256 bbbb"),
        ({"scheduler": "euler"}, "scheduler ddim and euler"),
        ({"unet_id": "sha256 cccc"}, ""),  # the other does not tell
    ],
)
def test_another_model_or_sampler_is_compared_where_it_was_named(make, capsys, settings, told):
    run, plain = make("batch_wise"), make("no_mitigation", **settings)
    out, error = summary(capsys, run, plain)
    if not told:
        assert headings(out) and not error
        return
    assert not headings(out) and f"({told}); --reference {plain}" in error
    out, error = summary(capsys, run, "--reference", plain)
    assert headings(out) and f"differs from {plain} beside the method ({told})" in error


@pytest.mark.parametrize(
    "settings", [{"seed": 3}, {"image_length": 64}, {"rng": "official"}, {"prompts_sha256": "x"}]
)
def test_images_of_another_origin_are_never_compared(make, capsys, settings):
    first = {"rng": "per_image", "image_length": 32, "seed": 2}
    run, plain = make("batch_wise", **first), make("no_mitigation", **(first | settings))
    for named in ([plain], ["--reference", plain]):
        out, error = summary(capsys, run, *named)
        assert not headings(out) and "no differences: " in error


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"dtype": "bf16"}, "dtype fp32 and bf16"),
        ({"guidance_scale": 3.0}, "guidance_scale 7.0 and 3.0"),
        ({"asked": {"start": 0, "end": 2, "samples": 3}}, "--end 4 and 2"),
        ({"asked": {"start": 0, "end": 4, "samples": 1}}, "--n_samples_per_prompt 3 and 1"),
    ],
)
def test_what_else_differs_is_said(make, capsys, more, told):
    whole = {"start": 0, "end": 4, "samples": 3}
    run, plain = make("batch_wise", asked=whole), make("no_mitigation", **({"asked": whole} | more))
    out, error = summary(capsys, run, plain)
    assert headings(out) and f"beside the method ({told})" in error and error.count("\n") == 1


def test_a_model_in_the_words_of_an_earlier_version(make):
    run = make("batch_wise")
    plain = make("no_mitigation", model_id="folder sd14, sha256 0123")
    assert references_of([run, plain]) == {run: plain}


@pytest.mark.parametrize("there", ["CompVis/sd14@0123abc", "folder sd14, sha256 0123"])
def test_models_that_may_be_the_same_are_said(make, capsys, there):
    run = make("batch_wise", typed={"model_id": "models/mine"})
    plain = make("no_mitigation", model_id=there, typed={"model_id": "CompVis/sd14"})
    out, error = summary(capsys, run, plain)
    told = "(model_id models/mine and CompVis/sd14, which may be the same)"
    assert headings(out) and told in error and error.count("\n") == 1
    same = make("same", typed={"model_id": "CompVis/sd14"})
    assert not summary(capsys, same, plain).err


def test_the_title_of_a_run_below_the_root():
    assert titles_of([Path("/run0"), Path("/run1")]) == {
        Path("/run0"): "run0",
        Path("/run1"): "run1",
    }


def test_scores_that_runs_do_not_share_are_said(make, capsys):
    run, plain = make("batch_wise"), make("no_mitigation")
    (plain / "results.csv").unlink()
    add_results(plain, [Result("g7_seed2", "no_mitigation", 0, 0, "copy_score", "other", 0.5)])
    out, error = summary(capsys, run, plain)
    assert not headings(out) and "share no score" in error


# --- pages and plots


def page(tmp_path, *argv):
    """The text of a page."""
    out = tmp_path / "page.html"
    assert make_report([*map(str, argv), "--out", str(out), "--quiet"]) == 0
    return out.read_text(encoding="utf-8")


def first_column(text):
    """The method of the gallery's first run."""
    return text.replace("<wbr>", "").split("<th>training image</th><th>")[1].split("<")[0]


def test_a_page_shows_others_beside_the_reference(make, tmp_path, capsys):
    runs = [make("a_method"), make("no_mitigation"), make("sail")]
    assert first_column(page(tmp_path, *runs)) == "no_mitigation"
    assert first_column(page(tmp_path, *runs, "--reference", runs[2])) == "sail"
    assert first_column(page(tmp_path, runs[0], runs[2])) == "a_method"
    argv = [str(runs[0]), "--reference", str(tmp_path / "runs")]
    assert make_report([*argv, "--out", str(tmp_path / "page.html")]) == 2
    assert "is a folder of runs: name one of them" in capsys.readouterr().err


def test_a_page_says_what_differs_beside_the_method(make, tmp_path):
    runs = [
        make("batch_wise", guidance_scale=3.0),
        make("sail", num_inference_steps=20),
        make("no_mitigation"),
    ]
    text = page(tmp_path, *runs)
    assert "batch_wise g3_seed2 beside no_mitigation g7_seed2: guidance_scale 3.0 and 7.0" in text
    assert "sail g7_seed2 beside no_mitigation g7_seed2: num_inference_steps 20 and 50" in text
    both = page(tmp_path, *runs[:1], make("no_mitigation", guidance_scale=3.0))
    assert "Not the method alone differs" not in both


def test_a_trade_off_has_a_line_for_each_prompt_file_and_size(make, tmp_path):
    runs = [
        make(
            "sail",
            above=name,
            prompts_sha256=name,
            typed={"prompts": f"/there/{name}.csv", "image_length": size},
        )
        for name, size in (("a", 32), ("b", 64))
    ]
    out = tmp_path / "plot.png"
    argv = [*map(str, runs), "--out", str(out), "--quiet"]
    assert tradeoff.main([*argv, "--x", "copy_score", "--y", "subject_shown"]) == 0
    points = (tmp_path / "plot_points.csv").read_text()
    for told in ("image_length 32, prompts a.csv", "image_length 64, prompts b.csv"):
        assert f"sail, {told}" in points


def test_settings_that_were_typed_otherwise_are_one_line(make):
    """A relative path and an absolute one; no --end, and that of all rows."""
    whole = {"start": 0, "end": 4, "samples": 3}
    prompts = ("/there/a.csv", "a.csv")
    runs = [
        make("sail", above=str(i), asked=whole, typed={"prompts": prompts[i], "end": (None, 4)[i]})
        for i in range(2)
    ]
    assert set(tradeoff_lines(runs).values()) == {"sail"}


def test_zero_is_not_the_default(make):
    runs = [make("sail", above=str(seed), typed={"seed": seed}) for seed in (None, 0)]
    assert list(tradeoff_lines(runs).values()) == ["sail, seed default", "sail, seed 0"]


def test_a_kept_sampler_that_is_ddim_is_ddim(make):
    """Also beside a run of an earlier version, which says what was typed; another kept one not."""
    runs = [make("no_mitigation"), make("sail", scheduler="keep")]
    assert made_otherwise(*runs) == {"scheduler": "keep"}
    manifest = json.loads((runs[1] / "manifest.json").read_text())
    for name, otherwise in (("ddim", {}), ("keep", {"scheduler": "keep"})):
        write_json(runs[1] / "manifest.json", {**manifest, "scheduler": name})
        assert made_otherwise(*runs) == otherwise
        assert bool(problem_of(runs[1], runs[0], named=False)) == bool(otherwise)
    first = json.loads((runs[0] / "manifest.json").read_text())
    write_json(runs[0] / "manifest.json", {**first, "scheduler": "ddim"})
    for name, told in (("ddim", ""), ("keep", ", scheduler keep")):
        write_json(runs[1] / "manifest.json", {**manifest, "scheduler": name})
        assert tradeoff_lines(runs)[runs[1]] == f"sail{told}"


def test_the_files_of_each_run_are_read_once(make, monkeypatch):
    """Of many pairs; a file that is written anew is read anew."""
    runs = [make("no_mitigation", above=name, scheduler=name) for name in ("ddim", "euler")]
    runs += [make(f"method_{k}", scheduler="euler") for k in range(4)]
    reads = Counter()
    for kind in ("manifest", "config"):
        monkeypatch.setattr(RunFolder, kind, counting(reads, kind, getattr(RunFolder, kind)))
    chosen = references_of(runs)
    assert {chosen[run] for run in runs[2:]} == {runs[1]}
    assert all(reads[run, "manifest"] == 1 for run in runs) and set(reads.values()) == {1}
    manifest = json.loads((runs[2] / "manifest.json").read_text())
    manifest["identity"]["method"] = "no_mitigation"
    write_json(runs[2] / "manifest.json", manifest)
    assert is_unmitigated(runs[2])


def counting(reads, kind, read):
    def counted(store):
        reads[store.path, kind] += 1
        return read(store)

    return counted
