"""Figures, tables and claims of made-up runs: what was planted is what they show."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from memorization_suite import tiny
from memorization_suite.experiments.evidence import ranks, write
from memorization_suite.experiments.evidence.base import CLAIMS, FIGURES, TABLES, TooFew
from memorization_suite.experiments.evidence.runs import Evidence, by_kind, paired
from memorization_suite.experiments.evidence.sections import Section, read_sections
from memorization_suite.experiments.evidence.write import EMBEDDED, write_evidence
from memorization_suite.runs import Key
from memorization_suite.runs.plots import LOOKS, style
from tests.evidence.made_up import TIMESTEPS, MadeRun, falling_at, make_sweep


@pytest.fixture(autouse=True)
def few_seeds(monkeypatch):
    """Three are enough for a rank here."""
    monkeypatch.setattr(ranks, "FEWEST", 3)


def noisy(key, run=0):
    """A number of an image, the same each time."""
    return np.random.default_rng([run, key.prompt, key.sample]).normal()


def drawn_noise(key):
    return np.random.default_rng([1, key.prompt, key.sample]).normal(size=(4, 8, 8))


def escape(key):
    """Seed k leaves at step 2 + k, and the last one never."""
    return None if key.sample == 3 else 2 + key.sample


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Seeds that start higher leave later; a method that copies less, one that does nothing."""
    plain = MadeRun(
        scores={"copy_score": lambda key: 0.8 + 0.01 * noisy(key), "subject_shown": lambda key: 0},
        trace=lambda key: falling_at(escape(key), start=2 + key.sample),
        noise=lambda key: (drawn_noise(key), drawn_noise(key)),
    )
    good = [
        MadeRun(
            "per_sample",
            {"target_loss": target},
            scores={
                "copy_score": lambda key, target=target: (
                    target + 0.01 * noisy(key, int(10 * target))
                ),
                "subject_shown": lambda key: 1,
            },
            trace=lambda key: falling_at(None, start=0.5),
            noise=lambda key: (drawn_noise(key), 0.5 * drawn_noise(key)),
            gray=lambda key: 200,
        )
        for target in (0.3, 0.5)
    ]
    poor = MadeRun(
        "static_transition",
        {"cfg_step": 3},
        scores={
            "copy_score": lambda key: 0.6 + 0.01 * noisy(key, 2),
            "subject_shown": lambda key: key.prompt % 2,
        },
    )
    return make_sweep(tmp_path_factory.mktemp("made") / "out", [plain, *good, poor], samples=4)


@pytest.fixture(scope="module")
def evidence(sweep):
    return Evidence.of(sweep)


def drawn(evidence, kind, **settings):
    with style():
        return FIGURES.build(kind, **settings).draw(evidence)


def listed(evidence, kind, **settings):
    table = TABLES.build(kind, **settings).list(evidence)
    return {next(iter(row.values())).text: row for row in table.rows}


# --- reading


def test_runs_are_chosen_by_method_and_settings(evidence):
    assert [run.method for run in evidence.select("")][::3] == [
        "no_mitigation",
        "static_transition",
    ]
    assert len(evidence.select("per_sample")) == 2
    assert evidence.only("per_sample target_loss=.5").config["target_loss"] == 0.5
    for wanted in ("sail", "per_sample target_loss=0.4"):
        with pytest.raises(ValueError, match="has no run"):
            evidence.select(wanted)
    with pytest.raises(ValueError, match="are 2 runs"):
        evidence.only("per_sample")


def test_values_by_image_and_by_prompt(evidence):
    plain = evidence.only("no_mitigation")
    assert set(plain.values("copies").values()) == {1.0}
    magnitudes = plain.prompt_means("magnitude")
    assert magnitudes == pytest.approx(dict.fromkeys(range(4), 3.5))
    steps = {key.sample: step for key, step in plain.values("transition").items()}
    assert steps == {0: 2, 1: 3, 2: 4}  # the last one has none
    assert plain.prompt_means("unet_evals")[0] == 100
    with pytest.raises(ValueError, match="has no sscd: score it first"):
        plain.values("sscd")
    with pytest.raises(ValueError, match="trace = true"):
        evidence.only("static_transition").values("magnitude")
    assert set(by_kind(plain)["all"]) == {0, 1, 2, 3}
    assert paired(evidence.runs, "copy").values.shape == (4, 4)


@pytest.mark.parametrize("other", ["sscd", "variant"])
def test_scores_of_other_measurements_are_not_compared(tmp_path, other):
    """Some runs were scored with other checkpoints than the others."""
    runs = [MadeRun(scores={"copy_score": lambda key: 0.5}) for _ in range(2)]
    if other != "variant":
        runs[1] = MadeRun(scores={other: lambda key: 0.5})
    out = make_sweep(tmp_path / "out", runs)
    if other == "variant":
        file = out / "no_mitigation" / "s1" / "results.csv"
        file.write_text(file.read_text().replace("made_up", "made_otherwise"))
    made = Evidence.of(out)
    for quantity in ("copy", "copies"):
        with pytest.raises(ValueError, match="in another: --rescore"):
            paired(made.runs, quantity)
        with pytest.raises(ValueError, match="in another: --rescore"):
            drawn(made, "tradeoff", x=quantity, y=["copy"])


# --- figures


def test_a_circle_marks_every_transition(evidence):
    figure = drawn(evidence, "magnitude", runs="no_mitigation", columns="prompt").figure
    assert len(figure.axes) == 3 and figure.axes[0].xaxis_inverted()
    circles = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in circles] == [TIMESTEPS[i] for i in (2, 3, 4)]


def test_runs_are_lines_with_names(evidence):
    made = drawn(evidence, "magnitude", runs="per_sample", columns="sample", lines="run", prompts=1)
    (legend,) = made.figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["target_loss 0.3", "target_loss 0.5"]
    assert "a color a run" in made.caption


def test_violins_say_how_many_seeds_have_no_transition(evidence):
    figure = drawn(evidence, "transition", runs="no_mitigation").figure
    right = figure.axes[0].child_axes[0]
    assert [label.get_text() for label in right.get_yticklabels()] == ["1/4"] * 4


def test_a_violin_needs_different_transitions(tmp_path):
    run = MadeRun(trace=lambda key: falling_at(2 + key.prompt * (key.sample % 3)))
    made = Evidence.of(make_sweep(tmp_path / "out", [run], prompts=3, samples=5))
    axes = drawn(made, "transition", runs="no_mitigation").figure.axes[0]
    assert len(axes.collections) == 2  # the first prompt's seeds leave at one step
    assert [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "|"] == [
        [TIMESTEPS[2]],
        [TIMESTEPS[3]],
        [TIMESTEPS[4]],
    ]


def test_a_trade_off_has_a_color_a_method_and_the_front(evidence):
    figure = drawn(evidence, "tradeoff", y=["alignment"]).figure
    (axes,) = figure.axes
    colors = {text: box[0].get_color() for box, text in zip(*axes.get_legend_handles_labels())}
    assert colors == {name: LOOKS[name].color for name in colors} and len(colors) == 3
    front = axes.lines[-1]
    assert list(front.get_ydata()) == [1] and front.get_xdata()[0] == pytest.approx(0.3, abs=0.02)


def test_a_grid_shows_the_training_image_and_each_run(evidence):
    figure = drawn(evidence, "image_grid", prompts=2, sample=1).figure
    assert len(figure.axes) == 2 * 5  # rows are spread evenly over four prompts
    second = figure.axes[5:]
    assert second[0].images[0].get_array().shape[:2] == (tiny.pixels(),) * 2  # a training image
    assert (second[1].images[0].get_array() == 80).all()  # row 2 of the prompt file
    assert (second[2].images[0].get_array() == 200).all()
    assert second[4].texts[0].get_text() == f"{0.6 + 0.01 * noisy(Key(2, 1), 2):.2f}"


def test_histograms_share_their_axis(evidence):
    figure = drawn(evidence, "reached", runs="per_sample", target=0.9).figure
    assert len(figure.axes) == 2 and figure.axes[0].get_xlim() == figure.axes[1].get_xlim()


def test_ranks_are_drawn_of_those_who_have_a_transition(evidence):
    """A trajectory without one may have left the basin at once, or never."""
    made = drawn(evidence, "association", x_run="no_mitigation", y_run="no_mitigation")
    assert "mean 1.000" in made.caption and "75% have both" in made.caption
    assert not made.figure.axes[0].texts


def test_who_copies_at_every_start_never_escapes(tmp_path):
    runs = [MadeRun(trace=lambda key: falling_at(2, start=2 + key.sample))]
    for step in (1, 5):
        scores = {"copy_score": lambda key, step=step: 0.9 if key.sample * 2 > step else 0.1}
        runs.append(MadeRun("static_transition", {"cfg_step": step}, scores))
    made = Evidence.of(make_sweep(tmp_path / "out", runs, samples=4))
    asked = {"x_run": "no_mitigation", "y": "free_start", "y_run": "static_transition"}
    found = drawn(made, "association", **asked)
    assert "mean 0.949" in found.caption and "100% have both" in found.caption
    assert [text.get_text() for text in found.figure.axes[0].texts] == ["never"]


# --- tables


def test_the_best_is_marked_only_where_the_paired_interval_says_so(evidence):
    rows = listed(evidence, "scores", columns=["copy", "alignment"])
    best = {(name, column) for name, row in rows.items() for column in row if row[column].best}
    assert best == {("per_sample target_loss 0.3", "copy_score")}  # both show every subject
    assert rows["static_transition"]["subject_shown"].text.startswith("0.500 [")
    assert rows["no_mitigation"]["NFE"].text == "100.0"


def test_shorter_noise_diverges(evidence):
    rows = listed(evidence, "divergence", runs="per_sample")
    row = rows["per_sample target_loss 0.3"]
    assert row["norms, bits"].text == "1.0000"
    assert float(row["change of norm"].text) == pytest.approx(-8, abs=0.5)


def test_areas_stand_beside_the_best(evidence):
    rows = listed(evidence, "areas")
    assert list(rows) == ["per_sample", "static_transition"]
    assert rows["per_sample"]["settings"].text == "2"
    change = rows["static_transition"]["difference to per_sample"].numbers
    assert change.high < 0
    with pytest.raises(ValueError, match="there is no series 'sail'"):
        listed(evidence, "areas", against="sail")


def test_areas_by_kind(tmp_path):
    """Twelve prompts of type A and B; the method works on type A alone."""

    def score(key, least):
        return (least if key.prompt < 10 else 0.8) + 0.01 * noisy(key)

    runs = [
        MadeRun(
            method,
            scores={
                "copy_score": lambda key, least=least: score(key, least),
                "subject_shown": lambda key, shown=shown: shown,
            },
        )
        for method, least, shown in (("no_mitigation", 0.8, 0), ("sail", 0.4, 1), ("guard", 0.6, 0))
    ]
    made = Evidence.of(make_sweep(tmp_path / "out", runs, prompts=12))
    row = listed(made, "areas", kinds=True)["sail"]
    assert row["area, VM A"].numbers.value == pytest.approx(0.5, abs=0.02)
    assert row["area, VM B"].numbers.value < 0.1


def test_ranks_by_kind(evidence):
    settings = {"x_run": "no_mitigation", "y": ["transition"], "y_runs": ["no_mitigation"]}
    rows = listed(evidence, "association", **settings)
    assert rows["all"]["magnitude and transition"].text.startswith("1.00")
    with pytest.raises(ValueError, match="y has 1 names and y_runs 0"):
        listed(evidence, "association", x_run="no_mitigation")


def test_images_that_a_method_leaves_alone_are_told(evidence):
    rows = listed(evidence, "changed", columns=["alignment"])
    assert rows["static_transition"]["unchanged"].text == "1.000"
    assert rows["per_sample target_loss 0.3"]["unchanged"].text == "0.000"


def test_costs_beside_no_mitigation(evidence, tmp_path):
    memory = tmp_path / "cost_tiny.csv"
    memory.write_text("method,code,peak_mib\nper_sample,suite,80.5\nper_sample,official,99\n")
    rows = listed(evidence, "costs", memory=str(tmp_path / "cost_{model}.csv"))
    row = rows["per_sample target_loss 0.3"]
    texts = {name: cell.text for name, cell in row.items()}
    assert (texts["NFE"], texts["s"], texts["times no mitigation"]) == ("100.0", "0.500", "1.00")
    assert (texts["MiB"], rows["static_transition"]["MiB"].text) == ("80.5", "")
    with pytest.raises(ValueError, match="--methods all --model_id tiny --out"):
        listed(evidence, "costs", memory=str(tmp_path / "none.csv"))


# --- claims


def verdict(evidence, kind, **settings):
    return CLAIMS.build(kind, **settings).test(evidence).verdict


def test_verdicts_follow_the_numbers(evidence):
    rank = {"x_run": "no_mitigation", "y_run": "no_mitigation", "seeds": 4, "prompts": 4}
    assert verdict(evidence, "association", **rank, above=0.9) == "holds in part"  # no spread
    with pytest.raises(TooFew, match="0 prompts have ranks of magnitude and copies, fewer than 4"):
        verdict(evidence, "association", **rank, y="copies")
    with pytest.raises(TooFew, match="4 seeds a prompt are fewer than 50"):
        verdict(evidence, "association", **rank | {"seeds": 50})
    ours, late = "per_sample", "static_transition"
    # Its front has no such x: the lowest of all counts there, which has no spread.
    for kind, better in (("area", "holds"), ("front", "holds in part")):
        bound = {"above": 0.0}
        assert verdict(evidence, kind, series=ours, against=[late], **bound) == better
        assert verdict(evidence, kind, series=late, against=[ours], **bound) == "does not hold here"
        with pytest.raises(ValueError, match="name the rivals"):
            verdict(evidence, kind, series=ours, above=0.0)
    with pytest.raises(ValueError, match="a lead needs a bound"):
        verdict(evidence, "front", series=ours, against=[late])
    assert verdict(evidence, "front", series=late, against=[ours], below=0.1) == "holds"
    lower = {"run": "per_sample target_loss=0.3"}
    assert verdict(evidence, "difference", **lower, below=-0.4) == "holds"
    assert verdict(evidence, "difference", **lower, above=0) == "does not hold here"
    with pytest.raises(ValueError, match="needs a bound"):
        verdict(evidence, "difference", **lower)
    every = {"run": "per_sample", "other": "per_sample target_loss=0.5"}
    assert verdict(evidence, "difference", **every, below=0) == "holds"  # without itself
    either = {"run": "per_sample", "below": -0.4}
    assert verdict(evidence, "difference", **either) == "holds in part"  # one of two
    assert verdict(evidence, "spread", run="no_mitigation", steps=1) == "does not hold here"
    with pytest.raises(ValueError, match="no run 'sail'"):
        verdict(evidence, "difference", run="sail", below=0)
    with pytest.raises(ValueError, match="there is no run 'no_mitigation' beside"):
        verdict(evidence, "difference", run="no_mitigation", below=0)
    assert verdict(evidence, "same", run="static_transition") == "holds"
    assert verdict(evidence, "same", run="per_sample target_loss=0.3") == "does not hold here"
    far = {"run": "per_sample target_loss=0.3", "noises": 16}
    assert verdict(evidence, "divergence", **far) == "does not hold here"
    assert verdict(evidence, "divergence", run="no_mitigation", noises=16) == "holds"
    with pytest.raises(TooFew, match="16 noises are fewer than 500"):
        verdict(evidence, "divergence", run="no_mitigation")


def test_one_odd_trajectory_is_no_spread(tmp_path):
    """Of 20 seeds two leave far later, at each side one is left out of 10."""
    odd = MadeRun(trace=lambda key: falling_at(8 if key.sample < 2 else 2))
    made = Evidence.of(make_sweep(tmp_path / "odd", [odd], samples=20))
    assert verdict(made, "spread", run="no_mitigation", steps=1) == "does not hold here"
    many = MadeRun(trace=lambda key: falling_at(2 + key.sample % 4))
    made = Evidence.of(make_sweep(tmp_path / "many", [many], samples=20))
    few = verdict(made, "spread", run="no_mitigation", steps=3)
    assert few == "holds in part"  # 4 of 4 prompts may be 40 % of many
    assert verdict(made, "spread", run="no_mitigation", steps=3, above=0.3) == "holds"
    assert verdict(made, "spread", run="no_mitigation", steps=4) == "does not hold here"


# --- files


def section(what, name, kind, **settings):
    registry = {"figure": FIGURES, "table": TABLES, "claim": CLAIMS}[what]
    return Section(what, name, f"About {name}.", registry.build(kind, **settings))


def test_files_of_sections_that_are_gone_go(sweep):
    folder = sweep / "evidence"
    grid = section("figure", "grid", "reached", runs="per_sample")
    write_evidence([grid, section("claim", "equal", "same", run="static_transition")], sweep, "x")
    write_evidence([section("table", "scores", "scores", columns=["copy"])], sweep, "x")
    assert {file.name for file in folder.iterdir()} == {
        *("scores.md", "scores.csv", "scores.tex", "claims.json", "files.json")
    }
    assert json.loads((folder / "claims.json").read_text()) == {}


def test_captions_name_the_commits_of_their_images(tmp_path, monkeypatch):
    out = make_sweep(tmp_path / "out", [MadeRun(scores={"copy_score": lambda key: 0.5})])
    file = next(out.glob("*/*/manifest.json"))
    manifest = json.loads(file.read_text())
    manifest["environments"] = [{"commit": "a" * 40}, {"commit": None}, {"commit": "b" * 40}]
    file.write_text(json.dumps(manifest))
    monkeypatch.setattr(write, "commit_text", lambda: "commit bbbbbbbbbbbb")
    write_evidence([section("table", "scores", "scores", columns=["copy"])], out, "x")
    made = "Made by `x`, commit bbbbbbbbbbbb; images of commit aaaaaaaaaaaa."
    assert made in (out / "evidence" / "scores.md").read_text()


def test_files_name_what_made_them_and_one_fault_ends_no_other(sweep):
    sections = [
        section("figure", "broken", "magnitude", runs="sail"),
        section("figure", "grid", "reached", runs="per_sample"),
        section("table", "scores", "scores", columns=["copy"]),
        section("claim", "noises", "divergence", run="no_mitigation"),
        section("claim", "excess", "divergence", run="no_mitigation", noises=16),
        section("claim", "fewer", "difference", run="per_sample target_loss=0.5", below=0.0),
    ]
    outcome = write_evidence(sections, sweep, "python sweep.py x.toml")
    assert outcome.problems == ["figure broken: the sweep has no run 'sail'"]
    assert outcome.lines[-3] == "About noises. not tested: 16 noises are fewer than 500"
    tested = json.loads((sweep / "evidence" / "claims.json").read_text())
    assert tested["excess"]["values"]["excess"]["low"] is None
    assert tested["fewer"]["values"]["per_sample"]["low"] < -0.2
    assert outcome.lines[-1].startswith("About fewer. holds: ")
    folder = sweep / "evidence"
    made = "Made by `python sweep.py x.toml`, commit"
    for name in ("grid.txt", "scores.md", "scores.csv", "scores.tex", "claims.json"):
        assert made in (folder / name).read_text()
    assert made in Image.open(folder / "grid.png").text["Keywords"]
    assert (folder / "grid.pdf").read_bytes().startswith(b"%PDF")
    assert "4 prompts (4 VM A), 4 images of each; tiny" in (folder / "grid.txt").read_text()
    claims = json.loads((folder / "claims.json").read_text())
    assert claims["fewer"]["verdict"] == "holds" and claims["fewer"]["models"] == ["tiny"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_evidence(sections, sweep, "python sweep.py x.toml")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_cannot_be_made_again_does_not_stay(sweep, tmp_path):
    """Files of earlier runs would pass for those of the runs that are there."""
    bound = {"other": "no_mitigation", "below": 0.0}
    good = [
        section("figure", "f", "reached", runs="per_sample"),
        section("table", "t", "scores", columns=["copy"]),
        section("claim", "c", "difference", run="per_sample target_loss=0.5", **bound),
    ]
    broken = [
        section("figure", "f", "reached", runs="sail"),
        section("table", "t", "scores", runs="sail"),
        section("claim", "c", "difference", run="sail", **bound),
    ]
    out = tmp_path / "out"
    shutil.copytree(sweep, out)
    shutil.rmtree(out / "evidence", ignore_errors=True)
    assert not write_evidence(good, out, "x").problems
    (out / "evidence" / "notes.txt").write_text("somebody's")
    assert len(write_evidence(broken, out, "x").problems) == 3
    assert {path.name for path in (out / "evidence").iterdir()} == {
        *("claims.json", "files.json", "notes.txt")
    }
    assert json.loads((out / "evidence" / "claims.json").read_text()) == {}


def test_pictures_of_an_embedded_model_say_so(sweep, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "memorization_suite.experiments.evidence.write.picture",
        lambda figure, kind, facts: seen.append([text.get_text() for text in figure.texts]) or b"",
    )
    write_evidence([section("figure", "a", "reached", runs="per_sample")], sweep, "x")
    assert all(EMBEDDED in texts for texts in seen) and len(seen) == 2


def test_tables_escape_what_their_formats_read(sweep):
    write_evidence([section("table", "s", "scores", columns=["copy"])], sweep, "x")
    latex = (sweep / "evidence" / "s.tex").read_text()
    assert r"per\_sample target\_loss 0.3 & \textbf{0." in latex and r"95 \% interval" in latex
    assert r"\toprule" in latex and latex.count("\\\\\n") == 5
    assert "**0." in (sweep / "evidence" / "s.md").read_text()
    header, first, *_ = (sweep / "evidence" / "s.csv").read_text().splitlines()
    assert header.startswith("run,copy_score,copy_score low,copy_score high,NFE")
    assert 0.75 < float(first.split(",")[2]) < float(first.split(",")[1])


# --- sections


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[figure]]\nname = "a"\nsays = "A."', "figure 'a' has no kind"),
        ('[[figure]]\nkind = "magnitude"\nsays = "A."', "figure 1 has no name"),
        ('[[figure]]\nname = "a"\nkind = "magnitud"\nsays = "A."', "Did you mean magnitude"),
        ('[[table]]\nname = "a"\nkind = "scores"\nsays = "A."\nbist = 1', "not take 'bist'"),
        ('[[figure]]\nname = "a"\nkind = "magnitude"\nsays = "A."\nrows = "x"', "not possible"),
        ('[[figure]]\nname = "../a"\nkind = "magnitude"\nsays = "A."', "small letters"),
        ('figure = "a"', "write \\[\\[figure\\]\\]"),
    ],
)
def test_a_wrong_section_is_told_before_anything_runs(tmp_path, text, message):
    file = tmp_path / "x.toml"
    runs = '[[run]]\nmethod = "no_mitigation"\n'
    file.write_text(f"{text}\n{runs}" if text.startswith("figure") else f"{runs}{text}\n")
    with pytest.raises(ValueError, match=message):
        read_sections(file)


def test_two_sections_of_one_name_would_share_their_files(tmp_path):
    file = tmp_path / "x.toml"
    same = 'name = "a"\nkind = "association"\nsays = "A."\n'
    file.write_text(f'[[run]]\nmethod = "no_mitigation"\n[[figure]]\n{same}[[table]]\n{same}')
    with pytest.raises(ValueError, match="has the name of another one"):
        read_sections(file)
