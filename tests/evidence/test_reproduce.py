"""make reproduce: what it runs, how it compares, and the claims' page."""

import json
import sys
from pathlib import Path

import pytest

from memorization_suite import ROOT, tiny
from memorization_suite.experiments import claim_tables, reproduce
from memorization_suite.experiments.evidence.moved import Difference, differences
from memorization_suite.experiments.evidence.sections import read_sections
from memorization_suite.runs.cli import command

STORED = {
    "copies": {"mean": 0.5, "low": 0.4, "high": 0.6},
    "by kind": [{"mean": 0.0, "low": float("nan"), "high": float("nan")}],
    "seconds": 3.0,
    "claim": {"verdict": "holds", "values": {"a": {"value": 1.0, "low": None, "high": None}}},
    "share": 0.2,
    "images": {"2": 7},
    "seconds per prompt": 2.0,
    "detectors": [{"detector": "a", "auc": 0.9, "auc_low": 0.8, "auc_high": 1.0}],
}


def changed(**values):
    return json.loads(json.dumps(STORED)) | values


def test_what_lies_in_the_stored_intervals_is_the_same():
    made = changed(
        copies={"mean": 0.59, "low": 0.5, "high": 0.7}, seconds=9.0, share=0.29, images={"2": 10}
    )
    made["seconds per prompt"] = 9.0
    made["detectors"] = [{"detector": "b", "auc": 0.1}, {"detector": "a", "auc": 0.82}]
    assert list(differences(STORED, made)) == []


@pytest.mark.parametrize(
    ("values", "where", "made"),
    [
        ({"copies": {"mean": 0.61}}, "/copies", "0.61"),
        ({"copies": None}, "/copies", "nothing"),
        ({"by kind": [{"mean": 0.11}]}, "/by kind/0", "0.11"),
        ({"by kind": []}, "/by kind/0", "nothing"),
        ({"share": 0.31}, "/share", "0.31"),
        ({"share": float("nan")}, "/share", "nan"),
        ({"images": {"2": 13}}, "/images/2", "13"),
        ({"share": None}, "/share", "nothing"),
        ({"detectors": [{"detector": "a", "auc": 0.7}]}, "/detectors/a/auc", "0.7"),
        ({"detectors": [{"detector": "b", "auc": 0.9}]}, "/detectors/a", "nothing"),
        ({"claim": STORED["claim"] | {"verdict": "holds in part"}}, "/claim", "holds in part"),
        (
            {"claim": {"verdict": "holds", "values": {"a": {"value": 1.2}}}},
            "/claim/values/a",
            "1.2",
        ),
    ],
)
def test_what_differs_is_named(values, where, made):
    (found,) = differences(STORED, changed(**values))
    assert (found.where, found.made) == (where, made)


def test_nothing_made_is_a_difference_of_everything():
    assert list(differences({"a": {"b": 1}}, None, "x")) == [Difference("x", "a table", "nothing")]


def test_commands_are_of_the_model(tmp_path):
    file = ROOT / "experiments" / "ordinary.toml"
    words = reproduce.sweep_command(file, "tiny-v", tmp_path)
    assert words[:4] == ["sweep.py", "experiments/ordinary.toml", "--model_id", "tiny-v"]
    prompts = words[words.index("--prompts") + 1]
    assert ROOT / prompts == tiny.prompts("tiny-v", "ordinary_test")
    assert str(tmp_path / "tiny-v" / "ordinary") in words


@pytest.fixture
def ran(monkeypatch):
    """Jobs, which are not run."""
    jobs = []
    monkeypatch.setattr(reproduce.Job, "run", lambda job: jobs.append(job) or True)
    return jobs


@pytest.fixture
def typed(monkeypatch):
    """Runs it with these flags."""

    def run(*words) -> int:
        monkeypatch.setattr(sys, "argv", ["reproduce", *map(str, words)])
        return reproduce.main()

    return run


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Folder of stored numbers, empty."""
    folder = tmp_path / "kept"
    folder.mkdir()
    monkeypatch.setattr(tiny, "EVALUATION", folder)
    monkeypatch.setattr(reproduce, "FIGURES", tmp_path / "figures")
    return folder


def test_everything_is_made_on_both_models(ran, typed, kept, tmp_path):
    assert typed("--out", tmp_path) == 0
    sweeps = [job for job in ran if job.words[1] == "sweep.py"]
    assert len(sweeps) == len(tiny.MODELS) * len(claim_tables.embedded_files())
    assert not any("_sd1" in job.words[2] for job in sweeps)
    assert len(ran) - len(sweeps) == len(tiny.MODELS) * (len(reproduce.MEASUREMENTS) + 1)


def test_some_of_it(ran, typed, kept, tmp_path, capsys):
    assert typed("--out", tmp_path, "--model_id", "tiny-v", "--only", "table1", "figure4") == 0
    assert [str(job) for job in ran] == ["figure4 on tiny-v", "table1 on tiny-v"]
    with pytest.raises(SystemExit):
        typed("--only", "figure44")
    assert "figure44" in capsys.readouterr().err


def test_a_models_memory_is_measured_before_its_table_reads_it(tmp_path):
    sections = read_sections(ROOT / "experiments" / "table3.toml")
    (table,) = [section.made for section in sections if section.name == "table3"]
    for model in tiny.MODELS:
        first, *_ = reproduce.jobs_of(model, tmp_path, reproduce.names())
        assert first.words[1:3] == ["-m", "experiments.cost"]
        written = Path(first.words[first.words.index("--out") + 1]) / "cost.csv"
        assert Path(table.memory.format(model=model)) == written


def test_quick_is_a_subset_of_one_model(ran, typed, tmp_path, capsys):
    assert {f"{name}.toml" for name in reproduce.QUICK} <= {
        path.name for path in claim_tables.embedded_files()
    }
    assert typed("--quick", "--out", tmp_path) == 0 and len(ran) == len(reproduce.QUICK)
    assert {job.model for job in ran} == {"tiny"}
    (figure4,) = [job for job in ran if job.name == "figure4"]
    assert figure4.words[-4:] == reproduce.QUICK["figure4"]
    assert "too few images to be compared" in capsys.readouterr().out


@pytest.mark.parametrize("further", [["--store"], ["--only", "figure4"], ["--model_id", "tiny"]])
def test_the_quick_subset_is_fixed(further, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reproduce", "--quick", *further])
    assert command("reproduce", reproduce.main) == 2


def make_verdicts(out, model, **of_files):
    """What sweeps left: file -> claim -> verdict."""
    for file, verdicts in of_files.items():
        folder = out / model / file / "evidence"
        folder.mkdir(parents=True, exist_ok=True)
        made = {name: {"verdict": verdict} for name, verdict in verdicts.items()}
        (folder / "claims.json").write_text(json.dumps(made))


# Claims of two files.
FREE, LATE = "small_magnitudes_escape_early", "adjusted_noise_helps_late_guidance"


def test_it_fails_where_a_verdict_changed(ran, typed, kept, tmp_path, capsys):
    """--store keeps the new ones."""
    old = {LATE: {"verdict": "holds"}}
    (kept / "tiny_claims.json").write_text(json.dumps(old))
    out = tmp_path / "out"
    for model in tiny.MODELS:
        make_verdicts(out, model, figure4={LATE: "does not hold here"})
        (out / model / "figure4" / "evidence" / "figure4.png").write_bytes(b"a picture")
    assert typed("--out", out, "--store") == 1
    said = capsys.readouterr().out
    assert f"tiny_claims/{LATE}" in said and "1 number beyond the stored interval" in said
    assert typed("--out", out, "--store") == 0
    assert json.loads((kept / "tiny-v_claims.json").read_text()) == {
        LATE: {"verdict": "does not hold here"}
    }
    pictures = [path.name for path in (tmp_path / "figures" / "tiny").iterdir()]
    assert pictures == ["figure4.png"]


def test_of_a_part_the_rest_is_neither_compared_nor_lost(ran, typed, kept, tmp_path):
    old = {FREE: {"verdict": "holds"}, LATE: {"verdict": "holds"}, "removed": {}}
    (kept / "tiny_claims.json").write_text(json.dumps(old))
    out = tmp_path / "out"
    make_verdicts(out, "tiny", figure4={LATE: "holds"})
    part = ["--out", out, "--model_id", "tiny", "--only", "figure4", "--store"]
    assert typed(*part) == 0
    stored = json.loads((kept / "tiny_claims.json").read_text())
    assert stored == {FREE: {"verdict": "holds"}, LATE: {"verdict": "holds"}}


def test_verdicts_of_earlier_are_not_those_of_a_sweep_that_failed(
    typed, kept, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    verdicts = {name: {name: "holds"} for name in ("figure4", "figure5", "of_an_older_version")}
    make_verdicts(out, "tiny", **verdicts)
    monkeypatch.setattr(reproduce.Job, "run", lambda job: job.name != "figure5")
    assert typed("--out", out, "--store") == 1
    assert set(json.loads((out / "tiny" / "claims.json").read_text())) == {"figure4"}
    assert not list(kept.iterdir())


# --- the page


def test_every_claim_stands_with_its_test_and_what_would_decide(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "EVALUATION", tmp_path)
    monkeypatch.setattr(claim_tables, "FIGURES", tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "figure4.png").write_bytes(b"a picture")
    verdict = {"verdict": "holds in part", "numbers": "3 [1, 5]"}
    (tmp_path / "tiny_claims.json").write_text(
        json.dumps({"adjusted_noise_helps_late_guidance": verdict})
    )
    rows = claim_tables.summary().splitlines()[2:]
    claims = [one for file in claim_tables.embedded_files() for one in claim_tables.claims_of(file)]
    assert len(rows) == len(claims) > 10
    (row,) = [row for row in rows if "holds in part" in row]
    assert "(#adjusted-noise-helps-late-guidance)" in row and "not tested yet" in row  # on tiny-v
    parts = claim_tables.one_by_one().split("### ")[1:]
    assert len(parts) == len(claims)
    (part,) = [part for part in parts if part.startswith("Adjusted noise helps late guidance\n")]
    assert "`figure4.toml`: area of alignment over copy: batch_wise less static_transition" in part
    assert "- `tiny`: holds in part; 3 [1, 5]." in part and "- `tiny-v`: not tested yet." in part
    assert "`python sweep.py experiments/figure4_sd1.toml`, " in part
    assert "![figure4 of tiny](figures/tiny/figure4.png)" in part


def test_every_claim_of_a_paper_has_a_file_of_stable_diffusion():
    for file in claim_tables.embedded_files():
        if claim_tables.claims_of(file):
            assert claim_tables.on_stable_diffusion(file) != "-"
