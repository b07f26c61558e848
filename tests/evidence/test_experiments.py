"""The experiments' files: each is planned without a model or a network, names what exists, and
states its claims.
"""

import csv

import pytest

from memorization_suite import ROOT, sweep, tiny
from memorization_suite.commands.sweeps.file import read_sweep, tables_of
from memorization_suite.commands.sweeps.sweep import plan_sweep
from memorization_suite.experiments import paper_prompts
from memorization_suite.experiments.claim_tables import OFFICIAL, PROMPTS
from memorization_suite.experiments.claims.spread import SpreadClaim
from memorization_suite.experiments.evidence.base import CLAIMS, FIGURES, TABLES
from memorization_suite.experiments.evidence.sections import read_sections
from memorization_suite.runs.spread import exact_interval

FILES = sorted((ROOT / "experiments").glob("*.toml"))
OF_STABLE_DIFFUSION = [path for path in FILES if path.stem.endswith(("_sd1", "_sd2"))]
EMBEDDED = [path for path in FILES if path not in OF_STABLE_DIFFUSION]
WITH_WEIGHTS = pytest.mark.skipif(
    not all(folder.is_dir() for folder in tiny.MODELS.values()), reason="no weights here"
)


def by_name(path):
    return path.stem


def test_every_kind_is_in_use():
    """A kind of figure, table or claim that no file asks for is not needed."""
    used = {type(section.made) for path in FILES for section in read_sections(path)}
    assert used == {*FIGURES.values(), *TABLES.values(), *CLAIMS.values()}


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_every_file_asks_for_something_of_its_runs(path):
    sections = read_sections(path)
    assert sections and all(section.says.endswith(".") for section in sections)
    settings = [run.settings for run in read_sweep(path)]
    methods = {one.get("method") for one in settings}
    for section in sections:
        wanted = [getattr(section.made, name, "") for name in ("runs", "run", "x_run", "series")]
        for text in wanted:
            named = text if isinstance(text, str) else " ".join(text)
            assert not named or named.split()[0] in methods, (section.name, named)


@pytest.mark.parametrize("path", OF_STABLE_DIFFUSION, ids=by_name)
def test_files_of_stable_diffusion_are_planned(path, tmp_path, monkeypatch, capsys):
    """Their prompts are not in the repository: made-up ones stand for them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a red lantern\n" * 500)
    flags = ["--prompts", "prompts.txt", "--dry_run", "--devices", "8", "--device", "cpu"]
    assert sweep.main([str(path), *flags]) == 0
    said = capsys.readouterr().out
    assert said.count("python generate_images.py ") == len(read_sweep(path))
    assert "device hours" in said and "GB" in said or "MB" in said


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_a_share_of_prompts_can_hold(path):
    """Where all of a few prompts agree, the exact interval of so few may still reach the bound."""
    common = tables_of(path)[0]
    there = PROMPTS.get(common.get("prompts"), OFFICIAL)
    prompts = min(common.get("end", there), there) - common.get("start", 0)
    for section in read_sections(path):
        if isinstance(section.made, SpreadClaim):
            assert exact_interval(1.0, prompts)[0] > section.made.above


@WITH_WEIGHTS
@pytest.mark.parametrize("path", EMBEDDED, ids=by_name)
def test_files_of_the_embedded_models_are_planned(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for model in tiny.MODELS:
        assert len(plan_sweep(path, tmp_path / model, model_id=model)) == len(read_sweep(path))


def test_the_papers_settings_are_those_of_its_appendix():
    """What it states of Stable Diffusion."""
    values = {}
    for run in read_sweep(ROOT / "experiments" / "figure5_sd1.toml"):
        for name, value in run.settings.items():
            values.setdefault((run.settings["method"], name), []).append(value)
    assert values["per_sample", "target_loss"] == [0.7, 0.9, 1.1, 1.3, 1.5]
    assert values["random_tokens", "repeat_num"] == [1, 2, 4, 6, 8]
    assert values["cross_attention", "bos_scale"] == [1.15, 1.2, 1.25, 1.3, 1.35]
    assert values["opposite_guidance", "opposite_scale"] == [1, 3, 5, 7, 9]
    joint = [value * 10**0.5 for value in values["prompt_embedding", "optim_target_loss"]]
    assert joint == pytest.approx([3, 4, 5, 6, 7], abs=0.05)
    raw = [
        run.settings["target_loss"] / 0.0683
        for run in read_sweep(ROOT / "experiments" / "figure5_sd2.toml")
        if run.settings["method"] == "per_sample"
    ]
    assert raw == pytest.approx([5, 8, 10, 15, 20], abs=0.1)


def test_captions_of_the_figures_are_found_by_their_beginnings(tmp_path, monkeypatch, capsys):
    rows = [
        {"Caption": f"{begin} and more; more", "type": "VM", "Index": str(place)}
        for place, begin in enumerate(
            ["A lantern", *sum(paper_prompts.CAPTIONS.values(), ()), "A tent"]
        )
    ]
    official = tmp_path / "list.csv"
    with open(official, "w", newline="") as file:
        writer = csv.DictWriter(file, ["Caption", "type", "Index"], delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    argv = ["paper_prompts", "--prompts", str(official), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", argv)
    assert paper_prompts.main() == 0
    found = paper_prompts.read_prompts(tmp_path / "paper_figure11.csv")
    assert [prompt.index for prompt in found] == [str(i) for i in range(7, 13)]
    assert found[0].caption == "Daniel Radcliffe Dons and more; more" and found[0].type == "VM"
    with pytest.raises(ValueError, match="no caption begins with As Punisher Joins"):
        paper_prompts.chosen(found, ["Director Danny", "As Punisher Joins"])
