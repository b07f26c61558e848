"""A metric is one file: the recipe of CONTRIBUTING.md as a file elsewhere. What its numbers mean is
asked of the registry, and a share of copies is one thing everywhere.
"""

import json
import re
import statistics

import numpy as np
import pytest

from memorization_suite import ROOT, make_report
from memorization_suite.commands import summarize, tradeoff
from memorization_suite.commands.score import score
from memorization_suite.commands.score_scripts import run_script
from memorization_suite.metrics.base import (
    METRICS,
    quantities_of,
    quantity_named,
    setting_text,
)
from memorization_suite.metrics.intervals import share_of_copies
from memorization_suite.metrics.scripts import COPIES, PREFERENCE
from memorization_suite.metrics.summary import summarize as lines_of
from memorization_suite.runs.plugins import load_plugin
from memorization_suite.runs.table import Result, add_results, read_results
from memorization_suite.runs.tables import read_csv
from tests.metrics.conftest import make_run
from tests.metrics.test_scripts import common, generated, gt_of, prompts_of, values

RECIPE = re.search(
    r"^## A metric\n.*?```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S | re.M
)[1]


def test_two_settings_are_two_variants():
    """Also where they differ beyond what a folder's name has."""
    values = (50, 50.0, 0.1, 0.1000001, 0.10000001)
    assert [setting_text(value) for value in values] == [
        "50",
        "50",
        "0.1",
        "0.1000001",
        "0.10000001",
    ]


@pytest.fixture
def plugin(registries, tmp_path):
    """plugin(source): a file outside the checkout."""

    def write(source: str):
        file = tmp_path / "elsewhere" / "sharpness.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
        return file

    return write


def sharpness(image, side: int) -> float:
    """Variance of the Laplacian, pixel by pixel."""
    gray = np.asarray(image.resize((side, side)), float).mean(2) / 255
    inside = range(1, side - 1)
    found = [
        gray[y - 1, x] + gray[y + 1, x] + gray[y, x - 1] + gray[y, x + 1] - 4 * gray[y, x]
        for y in inside
        for x in inside
    ]
    return statistics.variance(found)


def as_runs(*folders) -> None:
    """The page asks a manifest for its method."""
    for folder in folders:
        manifest = json.loads((folder.path / "manifest.json").read_text())
        manifest["identity"]["method"] = folder.path.parent.name
        (folder.path / "manifest.json").write_text(json.dumps(manifest))


# --- a file outside the checkout


def test_the_recipe_is_computed_by_a_script(run, plugin, capsys):
    file = plugin(RECIPE)
    more = ["--plugin", str(file), "--metrics", "sharpness", "copy", "--side", "16"]
    assert run_script(PREFERENCE, [*common(run), *more]) == 0
    out = capsys.readouterr().out
    expected = {(p, k): sharpness(generated(p, k), 16) for p in range(4) for k in range(3)}
    assert values(run, "sharpness") == pytest.approx(expected, rel=1e-4)
    assert re.search(r" sharpness +side16 +all .* 12 of 12$", out, re.M) and " copy_score " in out
    assert summarize.main([str(run.path)]) == 0 and " sharpness " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run_script(COPIES, ["--metrics", "sharpness", "--help"])
    assert "--side" in (text := capsys.readouterr().out) and "--sscd" not in text


def test_the_recipe_is_one_of_all_metrics(run, plugin):
    load_plugin(plugin(RECIPE))
    table = score(run, gt_folder=gt_of(run), quiet=True, side=16)
    assert {"sharpness", "copy_score"} <= {row.quantity for row in table.results}
    assert score(run, ["sharpness"], quiet=True).results[0].variant == "side256"
    with pytest.raises(ValueError, match="--side 4 is out of range"):
        score(run, ["sharpness"], quiet=True, side=4)


def test_an_alignment_from_elsewhere_is_an_axis_and_stands_on_the_page(run, plugin, tmp_path):
    load_plugin(plugin(RECIPE.replace('role="quality"', 'role="alignment"')))
    other = make_run(tmp_path / "runs" / "batch_wise" / "g7_seed2", prompts_of(run), seed=1)
    as_runs(run, other)
    for folder in (run, other):
        score(folder, ["copy", "sharpness"], gt_folder=gt_of(run), quiet=True)
    said = tradeoff.plot_tradeoff([run.path, other.path], out=tmp_path / "plot.png")
    assert "sharpness against copy_score of 2 runs" in said
    out = tmp_path / "page.html"
    argv = [str(tmp_path / "runs"), "--out", str(out), "--gt_folder", str(gt_of(run))]
    assert make_report.main(argv) == 0
    page = out.read_text()
    assert "; then sharpness." in page and "No plot" not in page
    one = read_results(run.path)
    value = next(row.value for row in one if row.quantity == "sharpness")
    assert f" · {value:.3f}<" in page


def test_a_metric_whose_flag_is_missing(run):
    with pytest.raises(ValueError, match="arguments are required: --unmitigated"):
        score(run, ["feature_change"], quiet=True)
    table = score(run, ["feature_change"], quiet=True, unmitigated=run.path)
    assert table.headlines[0] == "feature_gen (not SSCD): 1 ± 0"


# --- the registry


def test_roles_put_the_official_quantities_first():
    names = {role: [quantity.name for quantity in quantities_of(role)] for role in ("copy", "")}
    assert names["copy"] == ["sscd", "copy_score"]
    alignments = [quantity.name for quantity in quantities_of("alignment")]
    assert alignments == ["clip_gen", "subject_probability", "subject_shown"]


def test_every_quantity_is_declared_once():
    every = [quantity.name for metric in METRICS.values() for quantity in metric.quantities]
    assert len(set(every)) == len(every)
    assert all(quantity_named(name).better in ("lower", "higher") for name in every)
    assert set(COPIES.metrics + PREFERENCE.metrics) <= set(METRICS)


def test_what_is_computed_was_declared(run):
    table = score(run, gt_folder=gt_of(run), masks=gt_of(run), unmitigated=run.path, quiet=True)
    computed = {row.quantity for row in table.results}
    assert {"feature_gen", "copy_score"} <= computed and all(map(quantity_named, computed))


# --- the share of copies


def test_a_share_of_copies_is_a_mean_over_prompts_everywhere(run, tmp_path, capsys):
    """Prompt 0: three copies, one of them at the threshold; prompt 1: one image that is none."""
    as_runs(run)
    scores = {(0, 0): 0.75, (0, 1): 0.9, (0, 2): 1.0, (1, 0): 0.7499}
    for quantity in ("copy_score", "sscd"):
        rows = [Result("r", "m", *key, quantity, "v", value) for key, value in scores.items()]
        add_results(run.path, rows)
    lines = {line.quantity: line for line in lines_of(run.path)}
    assert lines["copy_score"].shares[0.75].mean == 0.5 == lines["copy_score"].copies.mean
    assert {limit: share.mean for limit, share in lines["sscd"].shares.items()} == {0.5: 1, 0.7: 1}
    assert summarize.main([str(run.path), "--quantities", "copy_score"]) == 0
    assert ">=0.75: 50.0%" in capsys.readouterr().out
    assert make_report.main([str(run.path), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text().replace("<wbr>", "")
    assert "copy_score &gt;= 0.75" in page and "<td>50.0<small>" in page
    rows = read_csv(tmp_path / "page_scores.csv")
    (copies,) = {row["copies"] for row in rows if row["quantity"] == "copy_score"}
    assert float(copies) == 0.5


def test_a_score_that_is_no_number_is_no_score():
    nothing = float("nan")
    assert share_of_copies([(0, nothing), (0, 0.8), (1, nothing)], 0.75).mean == 1
    assert share_of_copies([(0, nothing)], 0.75) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("brightnes", "there is no metric 'brightnes'"),
        ("realism", "realism is a number of the metric quality"),
    ],
)
def test_a_name_that_no_metric_has(capsys, name, message):
    """It is said before flags that would be the metric's are called unknown."""
    argv = ["--gen_folder", "x", "--metrics", name, "--side", "16"]
    with pytest.raises(SystemExit) as leave:
        run_script(PREFERENCE, argv)
    assert leave.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(ValueError, match=message):
        score("x", [name])
