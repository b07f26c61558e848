"""A plugin's method in a sweep: its grid on the tuning prompts, then once beside the others."""

import tomllib
from dataclasses import replace

import pytest

from memorization_suite import sweep, tiny
from memorization_suite.commands.sweeps.file import read_sweep
from memorization_suite.experiments.evidence.base import TABLES
from memorization_suite.experiments.evidence.new_methods import (
    Tuning,
    best_of,
    new_lines,
    tuning_file,
    with_new_methods,
)
from memorization_suite.experiments.evidence.runs import Evidence
from memorization_suite.mitigation.base import Adjustment, Mitigation, flag, register
from tests.evidence.made_up import MadeRun, make_sweep

TEXT = """
[common]
model_id = "tiny"
start = 5
n_samples_per_prompt = 2

[new]
more = "subject_shown"
less = "copies"
end = 100

[[run]]
method = "no_mitigation"

[[table]]
name = "differences"
kind = "differences"
says = "Beside the others."
columns = ["copy"]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "compare.toml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def mine(registries):
    """Somebody's method, and its grid."""

    @register("mine", paper="ours: a test")
    class Mine(Mitigation):
        strength: float = flag(0.5, "how much")
        grid = {"strength": [0.1, 0.2, 0.4]}

        def adjust_initial_noise(self, predictor, x, t, batch):
            return Adjustment(x * (1 - self.strength))

    return Mine


def scored(strength, copies, shown):
    """A run of a made-up sweep."""
    values = {"copy_score": lambda key: copies, "subject_shown": lambda key: shown}
    return MadeRun("mine", {"strength": strength}, scores=values)


def tune_with(runs):
    """Makes the runs of a tuning file by writing their numbers; notes what was asked for."""
    asked = []

    def tune(path, out, flags):
        asked.append((path, out, flags, [run.settings for run in read_sweep(path)]))
        make_sweep(out, runs)
        return True

    return tune, asked


def test_the_best_of_its_grid_is_run_once(file, mine, tmp_path):
    runs = [scored(0.1, 0.9, 0.5), scored(0.2, 0.1, 0.5), scored(0.4, 0.1, 0.3)]
    tune, asked = tune_with(runs)
    out = tmp_path / "out"
    whole = with_new_methods(file, out, {"end": 9, "batch_size": 4}, tune)
    ((path, folder, flags, settings),) = asked
    assert (path.name, folder) == ("mine.toml", out / "tuning" / "mine")
    assert flags == {"end": 9, "batch_size": 4}
    assert [one["strength"] for one in settings] == [0.1, 0.2, 0.4]
    assert {one["prompts"] for one in settings} == {str(tiny.prompts("tiny", "memorized_tuning"))}
    assert not any("start" in one or "end" in one for one in settings)
    made = read_sweep(whole)
    assert [run.label for run in made] == ["method=no_mitigation", "method=mine strength=0.2"]
    assert made[-1].settings["start"] == 5
    assert tomllib.loads(whole.read_text())["table"]


def test_of_another_model_the_file_says_the_tuning_prompts(file, mine, tmp_path):
    tuning = Tuning.of(file)
    prompts = tuning.prompts_of("owner/model")
    assert prompts == {"end": 100}
    (first, *_) = read_sweep(tuning_file(file, tmp_path, "mine", prompts))
    assert first.settings["end"] == 100 and "start" not in first.settings


def test_typed_rows_of_the_comparison_are_not_those_of_a_stated_tuning(file, mine, tmp_path):
    tune, asked = tune_with([scored(0.1, 0.9, 0.5), scored(0.2, 0.1, 0.5), scored(0.4, 0.1, 0.3)])
    typed = {"model_id": "owner/model", "start": 200, "end": 300, "seed": 3}
    with_new_methods(file, tmp_path / "out", typed, tune)
    assert asked[0][2] == {"model_id": "owner/model", "seed": 3}


def test_without_a_new_method_the_file_stays(file, tmp_path):
    assert with_new_methods(file, tmp_path / "out", {}, lambda *asked: pytest.fail("tuned")) == file
    assert new_lines(file) == []


def test_a_method_without_a_grid_is_run_at_its_defaults(file, mine, tmp_path):
    mine.grid = {}
    never = lambda *asked: pytest.fail("tuned")  # noqa: E731
    whole = with_new_methods(file, tmp_path / "out", {}, never)
    assert read_sweep(whole)[-1].settings["method"] == "mine"
    assert new_lines(file) == [
        "# mine: 1 setting on the tuning prompts, then the best one once here"
    ]


def test_an_unfinished_tuning_waits(file, mine, tmp_path):
    assert with_new_methods(file, tmp_path / "out", {}, lambda *asked: False) is None


def test_the_first_of_equals_is_best(file, mine, tmp_path):
    out = make_sweep(tmp_path / "out", [scored(0.1, 0.2, 0.5), scored(0.2, 0.2, 0.5)])
    assert best_of(out, "mine", Tuning.of(file)) == {"strength": 0.1}


def test_the_weight_says_what_copies_are_worth(file, mine, tmp_path):
    out = make_sweep(tmp_path / "out", [scored(0.1, 0.9, 0.5), scored(0.2, 0.1, 0.3)])
    tuning = Tuning.of(file)
    assert best_of(out, "mine", tuning) == {"strength": 0.2}
    assert best_of(out, "mine", replace(tuning, weight=0.2)) == {"strength": 0.1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[new]\nmore = "a"\nless = "b"\nweight = 0', "a number above 0"),
        ('[new]\nmore = "a"', "takes more and less"),
        ('[new]\nmore = "a"\nless = "b"\nprompt = "c"', "did you mean prompts"),
        ("new = 1", "write \\[new\\]"),
    ],
)
def test_a_wrong_table_is_told(tmp_path, text, message):
    file = tmp_path / "x.toml"
    run = '[[run]]\nmethod = "no_mitigation"\n'
    file.write_text(f"{text}\n{run}" if text.startswith("new") else f"{run}{text}\n")
    with pytest.raises(ValueError, match=message):
        Tuning.of(file)


def test_the_new_method_stands_beside_every_rival(tmp_path):
    plain = MadeRun(scores={"copy_score": lambda key: 0.8})
    rival = MadeRun("per_sample", scores={"copy_score": lambda key: 0.1 * key.prompt})
    new = MadeRun("mine", {"strength": 0.2}, scores={"copy_score": lambda key: 0.05})
    evidence = Evidence.of(make_sweep(tmp_path / "out", [plain, rival, new]))
    table = TABLES.build("differences", columns=["copies", "copy"]).list(evidence)
    cells = {row["less"].text: row["copy_score"].text for row in table.rows}
    assert cells["no_mitigation"] == "-0.750" and cells["per_sample"].startswith("-0.100 [")
    assert table.caption.startswith("mine less each other run")


@pytest.mark.slow
def test_a_plugin_goes_through_the_command(file, tmp_path, capsys):
    """Its grid and its best setting on the embedded model, few images; a second command makes
    nothing anew.
    """
    plugin = tmp_path / "shrink.py"
    plugin.write_text(  # as people write it
        '"""Shrinks the noise: a test."""\n'
        "from memorization_suite.mitigation.base import *\n\n\n"
        '@register("shrink", paper="ours: a test")\n'
        "class Shrink(Mitigation):\n"
        '    """x (1 - s)."""\n\n'
        '    s: float = flag(0.1, "how much")\n'
        '    grid = {"s": [0.0, 0.1]}\n\n'
        "    def adjust_initial_noise(self, predictor, x, t, batch):\n"
        "        return Adjustment(x * (1 - self.s))\n"
    )
    out = tmp_path / "out"
    flags = [str(file), "--plugin", str(plugin), "--output_path", str(out), "--end", "6", "--quiet"]
    flags += ["--num_inference_steps", "2", "-n", "1"]
    assert sweep.main([*flags, "--dry_run"]) == 0 and not out.exists()
    assert "# shrink: 2 settings on the tuning prompts" in capsys.readouterr().out
    assert sweep.main(flags) == 0
    assert (out / "evidence" / "differences.md").exists()
    capsys.readouterr()
    assert sweep.main(flags) == 0
    assert "(1 image made" not in capsys.readouterr().out
