"""The page of run folders: what it shows, that it says what is missing, and that texts from files
stay texts.
"""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from memorization_suite.commands.report import report as write_page
from memorization_suite.commands.report.figures import tidy
from memorization_suite.commands.report.gallery import settings_of
from memorization_suite.commands.report.gather import comparable, find_runs, gather, order
from memorization_suite.make_report import main
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.table import Result, add_results
from memorization_suite.runs.tables import read_csv
from tests.metrics.conftest import make_run
from tests.report.conftest import HOSTILE, give_scores, scored


def report(tmp_path, *argv) -> str:
    assert (
        main([*argv, "--gt_folder", str(tmp_path / "gt"), "--out", str(tmp_path / "page.html")])
        == 0
    )
    return (tmp_path / "page.html").read_text()


def test_a_page_of_scored_runs(tmp_path, runs):
    scored(tmp_path, runs)
    page = report(tmp_path, str(tmp_path / "runs"))
    copies = [
        row
        for row in read_csv(runs[0].path / "results.csv")
        if row["quantity"] == "copy_score" and float(row["value"]) >= 0.75
    ]
    assert (
        page.count('class="copy"') == len(copies) == 1
        and page.count('class="free"') + 1 == 2 * 2 * 2
    )
    assert (
        page.count('class="unknown"') == 8 + 3
        and page.count(">unreadable<") == 1
        and "not here" in page
    )
    assert "100.0" in page and "150.0" in page and "4 of 8" in page and "prompts of type VM" in page
    assert 'alt="copy similarity against alignment' not in page and "No plot: no alignment" in page
    assert "They are not Stable Diffusion's" not in page and "Models: somewhere/else" in page


def test_the_navigation_has_the_headings_in_their_order(tmp_path, runs):
    for has_scores in (False, True):
        page = report(tmp_path, str(tmp_path / "runs"))
        links = re.findall(r'<a href="#([\w-]+)">([^<]+)</a>', page.partition("</nav>")[0])
        headings = re.findall(r'<section id="([\w-]+)">\s*<h2>([^<]+)</h2>', page)
        assert links == headings and ("runs", "Runs") in links
        assert (("scores", "Scores") in links) is has_scores
        scored(tmp_path, runs)


def test_nothing_is_fetched_and_texts_stay_texts(tmp_path, runs):
    page = report(tmp_path, str(tmp_path / "runs"), "--title", HOSTILE)
    assert (
        page.count("<script") == 4 and "onerror=alert(1)>" not in page and "&lt;script&gt;" in page
    )
    assert (
        not re.search(r"(src|href)=\"(?!data:|#)", page)
        and "http" not in page
        and "url(" not in page
    )
    assert "Not scored yet" in page and "No copy scores yet" in page


def test_runs_that_failed_stand_on_the_page_as_texts(tmp_path, runs):
    folder = tmp_path / "runs"
    write_page([folder], tmp_path / "page.html", failed=[("per_sample_seed3", HOSTILE)])
    page = (tmp_path / "page.html").read_text()
    table = page.partition("Runs that failed")[2].partition("</table>")[0]
    assert "<td>per_sample_seed3</td>" in table and "&lt;script&gt;alert" in table
    write_page([folder], tmp_path / "page.html")
    assert "Runs that failed" not in (tmp_path / "page.html").read_text()


def test_numbers_stand_beside_the_page(tmp_path, runs):
    scored(tmp_path, runs)
    report(tmp_path, str(tmp_path / "runs"))
    rows = read_csv(tmp_path / "page_scores.csv")
    values = [
        float(row["value"])
        for row in read_csv(runs[1].path / "results.csv")
        if row["quantity"] == "copy_score" and row["prompt_index"] == "0"
    ]
    (own,) = (
        row
        for row in rows
        if row["method"] == "per_sample"
        and row["quantity"] == "copy_score"
        and row["split"] == "all"
    )
    assert (
        own["n"] == "4"
        and own["total"] == "8"
        and len(values) == 2
        and float(own["low"]) <= float(own["mean"]) <= float(own["high"])
    )


def test_shares_of_copies_are_means_over_prompts(tmp_path, runs):
    scored(tmp_path, runs)  # so that the types of the prompts are known
    values = {(0, 0): 0.9, (0, 1): 0.2, (1, 0): 0.75, (2, 0): 0.1}  # 1 of 2, 1 of 1, 0 of 1
    add_results(
        runs[0].path,
        [
            Result("g7_seed2", "no_mitigation", p, s, "copy_score", "x", value)
            for (p, s), value in values.items()
        ],
    )
    (one,) = gather(find_runs([runs[0].path]))
    share = one.line("copy_score", "x", "all").copies
    assert share.mean == pytest.approx(0.5) and share.low <= share.mean <= share.high
    assert one.line("copy_score", "x", "TM").copies.mean == 0.0
    assert {line.quantity for line in one.lines if line.copies} == {"copy_score"}


def test_runs_of_other_seeds_are_not_shown_side_by_side(tmp_path, runs):
    manifest = json.loads((runs[1].path / "manifest.json").read_text())
    manifest["identity"]["seed"] = 3
    (runs[1].path / "manifest.json").write_text(json.dumps(manifest))
    page = report(tmp_path, str(tmp_path / "runs"))
    assert (
        "Not in the gallery and the plot:" in page
        and "seed 2 and 3" in page
        and page.count("<figure") == 4 * 2 + 3
    )


def test_limits_of_the_gallery(tmp_path, runs):
    page = report(
        tmp_path, str(tmp_path / "runs"), "--max_prompts", "1", "--samples", "1", "--max_runs", "1"
    )
    assert (
        page.count("<figure") == 2
        and "1 of 2 runs, 1 of 4 prompts, the first 1 image of each" in page
    )


def test_a_missing_or_broken_image_has_its_place(tmp_path, runs):
    runs[0].image_path(Key(0, 0)).unlink()
    runs[0].image_path(Key(0, 1)).write_bytes(b"\x89PNG broken")
    page = report(tmp_path, str(tmp_path / "runs"))
    assert page.count(">no image<") == 1 and page.count(">unreadable<") == 2


def test_the_page_keeps_a_runs_own_tables(tmp_path, runs):
    scored(tmp_path, runs)
    before = (runs[0].path / "results.csv").read_bytes()
    assert main([str(runs[0].path), "--out", str(runs[0].path / "results.html")]) == 0
    assert (runs[0].path / "results.csv").read_bytes() == before and (
        runs[0].path / "results_scores.csv"
    ).exists()


def test_equal_names_are_told_apart(tmp_path, runs):
    shutil.copytree(tmp_path / "runs", tmp_path / "all" / "a" / "runs")
    shutil.copytree(tmp_path / "runs", tmp_path / "all" / "b" / "runs")
    page = report(tmp_path, str(tmp_path / "all"))
    assert "g7_seed2 in a/runs" in page and "g7_seed2 in b/runs" in page


def test_one_image_a_prompt_and_a_score_that_is_no_number(tmp_path, prompts):
    folder = make_run(tmp_path / "runs" / "x" / "g7_seed2", prompts, seed=0, samples=1)
    manifest = json.loads((folder.path / "manifest.json").read_text())
    manifest["identity"]["method"] = "x"
    (folder.path / "manifest.json").write_text(json.dumps(manifest))
    add_results(
        folder.path,
        [
            Result("g7_seed2", "x", 0, 0, "copy_score", "v", float("nan")),
            Result("g7_seed2", "x", 1, 0, "copy_score", "v", 0.9),
        ],
    )
    page = report(tmp_path, str(tmp_path / "runs"))
    assert "no image" not in page and "the first 1 image of each" in page
    assert (
        page.count('class="copy"') == 1
        and page.count('class="free"') == 0
        and page.count(">100.0<") == 1
    )


def test_figures_are_told_apart_and_have_one_minus(tmp_path, runs):
    scored(tmp_path, runs)
    values = {"sscd": [0.6991, 0.7007, 0.6996, -0.0001, 0.75, 0.1, 0.1, 0.1]}
    give_scores(runs[0], "no_mitigation", **values, subject_logit=[-0.1 * i for i in range(1, 9)])
    page = report(tmp_path, str(tmp_path / "runs"))
    notes = [float(text) for text in re.findall(r"<figcaption>(0\.\d+)", page)]
    assert notes[:5] == [0.699, 0.701, 0.6996, 0.0, 0.75]
    captions = re.findall(r'<figure class="(\w+)" data-at="0[^<]*<.*?<figcaption>([^<]*)', page)
    assert captions[:2] == [("free", "0.699"), ("copy", "0.701")]
    assert '"sscd":"0.6996"' in page and '"subject_logit":"−0.100"' in page
    assert "<td>−0.450<small>[−" in page
    told = re.sub(r"(?s)<(style|script)>.*?</\1>", "", page)
    assert not re.search(r'[>\[ "]-\d+\.\d', told)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-0.000", "0.000"),
        ("-0.010", "−0.010"),
        ("[-0.00, -1.50]", "[0.00, −1.50]"),
        ("-1e-05", "−1e−05"),
        ("g-7 -1.0", "g-7 -1.0"),
        ("2026-11-30", "2026-11-30"),
    ],
)
def test_texts_of_numbers(text, shown):
    assert tidy(text) == shown


def test_a_setting_of_zero_is_told(tmp_path, runs):
    config = {"seed": 0, "start": 0, "trace": False, "model_id": "", "unet_id": None, "rho": 0.0}
    (one,) = gather(find_runs([runs[0].path]))
    assert settings_of(replace(one, config=config)) == {"seed": "0", "start": "0", "rho": "0.0"}


def test_noise_of_one_stream_depends_on_the_batch(runs):
    for run, samples in zip(runs, (2, 3)):
        manifest = json.loads((run.path / "manifest.json").read_text())
        manifest["identity"] |= {
            "rng": "official",
            "batch_size": 1,
            "n_samples_per_prompt": samples,
        }
        (run.path / "manifest.json").write_text(json.dumps(manifest))
    assert (
        "n_samples_per_prompt 2 and 3"
        in comparable(gather(find_runs(run.path for run in runs)))[1][0]
    )


def test_unmitigated_runs_come_first_and_numbers_count():
    paths = [
        Path(f"runs/{name}/manifest.json")
        for name in (
            "batch_wise/g7_rho10_seed2",
            "batch_wise/g7_rho5_seed2",
            "no_mitigation/g7_seed2",
        )
    ]
    assert [path.parent.name for path in sorted(paths, key=order)] == [
        "g7_seed2",
        "g7_rho5_seed2",
        "g7_rho10_seed2",
    ]


def test_runs_are_found_below_a_folder_and_once(tmp_path, runs):
    (tmp_path / "runs" / "scores").mkdir()
    (tmp_path / "runs" / "scores" / "manifest.json").write_text(
        '{"identity": {"detector": "noise_norm"}}'
    )
    assert list(find_runs([runs[1].path, tmp_path / "runs"])) == [
        runs[1].path.resolve(),
        runs[0].path.resolve(),
    ]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["EMPTY"], "no run folder"),
        (["RUNS", "--out", "missing/page.html"], "no folder missing"),
        (["RUNS", "--out", "page.png"], "ends in .html"),
        (["RUNS", "--gt_folder", "nowhere"], "--gt_folder nowhere is not there"),
        (["RUNS", "--prompts", "nowhere.csv"], "--prompts nowhere.csv is not there"),
        (["RUNS", "--samples", "0"], "at least 1"),
    ],
)
def test_refusals(tmp_path, runs, capsys, monkeypatch, argv, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    try:
        code = main([{"EMPTY": "empty", "RUNS": "runs"}.get(arg, arg) for arg in argv])
    except SystemExit as leave:
        code = leave.code
    error = capsys.readouterr().err
    assert (
        code == 2 and told in error and error.count("\n") == 1 and not list(tmp_path.glob("*.html"))
    )


def test_a_run_folder_keeps_nothing_of_the_page(tmp_path, runs):
    before = sorted(path.name for path in runs[0].path.iterdir())
    report(tmp_path, str(runs[0].path))
    assert sorted(path.name for path in runs[0].path.iterdir()) == before and isinstance(
        runs[0], RunFolder
    )
