"""`score` as a function: what it takes, what it returns, what it refuses."""

import pytest

from memorization_suite.commands.score import score
from memorization_suite.commands.score_scripts import run_script
from memorization_suite.metrics.scripts import COPIES
from memorization_suite.metrics.summary import summarize
from memorization_suite.runs.table import Result, read_results
from tests.metrics.test_scripts import gt_of


def scored(run, metrics=None, **typed):
    return score(run, metrics, gt_folder=gt_of(run), quiet=True, **typed)


def test_everything_that_can_be_computed(run, capsys):
    table = scored(run)
    assert {row.quantity for row in table.results} == {
        "copy_score",
        "feature_similarity",
        "feature_diversity",
    }
    stored = {row.measurement: row.value for row in read_results(run.path)}
    computed = {row.measurement: row.value for row in table.results}
    assert stored == pytest.approx(computed, rel=1e-5)
    assert str(table.lines) == str(summarize(run.path))
    for metric in ("sscd", "clip", "lpips", "image_reward"):
        assert "python download/fetch.py" in table.left_out[metric]
        assert f"{metric} is not computed: {table.left_out[metric]}" in table.notes
    for metric in ("localized", "alignment", "quality"):
        assert f"{metric} has no value for this run" in table.notes
    assert set(table.left_out) & {"copy", "diversity"} == set()
    assert any(note.startswith("references: 3 of 4 prompts") for note in table.notes)
    said = capsys.readouterr()
    assert said.out == said.err == ""


def test_the_text_is_what_the_script_prints(run, capsys):
    table = scored(run, COPIES.metrics)
    argv = ["--gen_folder", str(run.path), "--gt_folder", str(gt_of(run)), "--quiet"]
    assert run_script(COPIES, argv) == 0
    said = capsys.readouterr()
    assert said.out == f"{table}\n"
    assert said.err.splitlines() == "\n".join(table.notes).splitlines()


def test_only_some_metrics(run):
    table = score(str(run.path), ["copy"], gt_folder=gt_of(run), num_samples=1, quiet=True)
    assert [row.quantity for row in table.results].count("copy_score") == 3
    assert set(table.left_out) == set()
    assert scored(run, ["diversity"], num_samples=2).lines[0].quantity == "feature_diversity"


def test_headlines_and_flags_of_one_script(run, patches_file):
    table = scored(run, ["sscd"], sscd_checkpoint=patches_file, sscd_preset="wen224")
    assert table.headlines[0].startswith("Mean SSCD score: ")
    assert all(row.variant.endswith("_wen224") for row in table.results)


def test_clip_alone_says_what_it_lacks(run, clip_file):
    table = scored(run, ["clip"], clip_checkpoint=clip_file)
    assert {row.quantity for row in table.results} == {"clip_gen"}
    assert "SSCD chooses" in table.left_out["the training images' CLIP score"]


@pytest.mark.parametrize(
    ("metrics", "typed", "told"),
    [
        (["copies"], {}, "there is no metric 'copies'; .* Did you mean copy?"),
        (None, {"require": ["fid"]}, "there is no metric 'fid'"),
        (None, {"num_sample": 2}, "there is no flag 'num_sample'; .* Did you mean num_samples?"),
        (None, {"num_samples": 0}, "--num_samples 0 is out of range"),
        (None, {"sscd_preset": "none"}, "--sscd_preset 'none' is not possible"),
        (None, {"require": ("sscd",)}, "sscd cannot be computed: checkpoints/"),
        (["copy"], {"require": ("alignment",)}, "alignment has no value for this run"),
    ],
)
def test_what_is_refused(run, metrics, typed, told):
    with pytest.raises(ValueError, match=told):
        scored(run, metrics, **typed)


def test_the_values_as_a_table_of_pandas(run):
    table = scored(run, ["copy"])
    frame = table.frame()
    assert list(frame.columns) == list(Result._fields)
    assert frame["value"].tolist() == [row.value for row in table.results]
