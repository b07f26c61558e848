"""experiments/cost.py: what it counts, how its tables read, and the architectures that it makes."""

import csv
import sys
from dataclasses import dataclass, field, replace

import pytest
import torch

from memorization_suite import tiny
from memorization_suite.experiments import cost, cost_memory, cost_sides, cost_tables
from memorization_suite.experiments.architectures import ARCHITECTURES, build
from memorization_suite.experiments.cost_sides import Work
from memorization_suite.experiments.cost_tables import Cost, Setting
from memorization_suite.mitigation import METHODS, build_mitigation
from memorization_suite.pipelines.models import load_preset
from memorization_suite.prompts.files import read_prompts
from memorization_suite.sampling.denoiser import Limits
from memorization_suite.sampling.memory import held_bytes, peak_bytes
from memorization_suite.tiny.models import count
from tests.other_device import on_other_device, other_device
from tests.reference.han2025 import NoiseOfVelocity

SETTING = Setting(
    title="a model",
    architecture="sd14",
    reduced=False,
    device="a card",
    cuda=True,
    dtype="bf16",
    pixels=512,
    images=10,
    prompts=1,
    steps=50,
    updates=8,
    repeats=3,
    compiled=False,
    memory_budget=None,
    forward_rows=None,
    backward_rows=None,
)
MIB = 2**20


def run(monkeypatch, *words: str) -> int:
    """The command."""
    monkeypatch.setattr(sys, "argv", ["cost", *words])
    return cost.command("cost", cost.main)


# --- what is counted ---


@pytest.mark.skipif(not tiny.MODELS["tiny"].is_dir(), reason="no weights in this checkout")
@pytest.mark.parametrize(
    ("method", "suite", "official"),
    [("no_mitigation", 12, 12), ("batch_wise", 23, 28), ("per_sample", 16, 16)],
)
def test_nfe_of_both_sides(tiny_work, method, suite, official):
    """6 steps; batch-wise with M = 4 and 5 unguided steps, per-sample with 2 updates."""
    args = cost.flags().parse_args(["--steps", "6", "--updates", "2"])
    chosen = cost.chosen(method, args, load_preset("auto", "tiny")[1])
    sides = cost_sides.sides_of(tiny_work, chosen)
    latents = [torch.cat(list(side.sample())) for side in sides]
    assert [side.nfe for side in sides] == [suite, official]
    assert all(each.isfinite().all() for each in latents)
    assert not any(each.requires_grad for each in tiny_work.model.network.parameters())


@pytest.mark.parametrize(
    ("method", "nfe"),
    [
        ("anisotropy_embedding", 2 * 3 + 2 * 10 + 4),
        ("bright_ending_embedding", 4 * 3 + 10 - 1),
        ("prompt_embedding", 2 * 3 + 10 + 1),
        ("sail", 4 * 10 + 2 * 3 - 2),
    ],
)
def test_no_target_is_reached(pipe, method, nfe):
    """As many updates, or evaluations of a noise, as the method makes at most: 10."""
    args = cost.flags().parse_args(["--steps", "3"])
    work = Work(pipe, read_prompts(tiny.prompts("tiny"))[:1], images=1, steps=3)
    (side,) = cost_sides.sides_of(work, cost.chosen(method, args, {}))
    side.sample()
    assert side.nfe == nfe


@pytest.fixture(scope="module")
def tiny_work() -> Work:
    """One image of one prompt, by the embedded model."""
    model = cost.load_pipeline("tiny")
    return Work(model, read_prompts(tiny.prompts("tiny"))[:1], images=1, steps=6)


def test_the_official_procedure_reads_noise_from_a_v_model(make_pipe, noise):
    """As the suite does: e = alpha v + sigma x."""
    model = make_pipe("ddim", "v_prediction")
    model.set_timesteps(50)
    told = model.encode(["a cat"] * len(noise))
    t = int(model.timesteps[3])
    with torch.no_grad():
        expected = model.to_noise(model.predict(noise, t, told), noise, t)
        found = NoiseOfVelocity(model.unet)(noise, t, encoder_hidden_states=told.tokens).sample
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_both_sides_stay_on_the_device(make_pipe):
    args = cost.flags().parse_args(["--steps", "3", "--updates", "1"])
    with other_device():
        model = on_other_device(make_pipe())
        work = Work(model, read_prompts(tiny.prompts("tiny"))[:1], images=1, steps=3)
        for side in cost_sides.sides_of(work, cost.chosen("per_sample", args, {})):
            assert side.decode(side.sample())
        assert cost_sides.measure_rows(model, [2], repeats=1)


# --- clocks and tables ---


@dataclass
class Side:
    """A side that takes the seconds that it is told."""

    code: str
    clock: list[float]
    # Of each run: sampling, decoding.
    runs: list[tuple[float, float]]
    method: object = field(default_factory=lambda: build_mitigation("no_mitigation"))
    nfe: float = 100.0

    def sample(self):
        self.clock[0] += self.runs[0][0]

    def decode(self, latents):
        self.clock[0] += self.runs.pop(0)[1]


@pytest.fixture
def measured(pipe, monkeypatch) -> list[Cost]:
    """Two sides in turns; ours has been compiled before."""
    now = [0.0]
    monkeypatch.setattr(cost_sides, "clock", lambda: now[0])
    ours = Side("suite", now, [(2.0, 1.0), (3.0, 1.0), (9.0, 1.0)])
    theirs = Side("official procedure", now, [(4.0, 2.0), (5.0, 3.0), (6.0, 4.0)])
    bytes_of = {ours.code: (300 * MIB, 80 * MIB), theirs.code: (400 * MIB, 500 * MIB)}

    def peaks(side, model):
        return dict(zip(("peak_sampling", "peak_decoding"), bytes_of[side.code]))

    monkeypatch.setattr(cost_sides, "peaks", peaks)
    work = Work(pipe, [None], images=10, steps=50)
    return cost_sides.measure([ours, theirs], work, repeats=3, compiling=65.0)


def test_medians_and_the_ratio_of_turns(measured):
    ours, theirs = measured
    assert (ours.sampling, ours.seconds) == (3.0, 4.0)
    assert (theirs.sampling, theirs.seconds) == (5.0, 8.0)
    # Of 3/6, 4/8 and 10/10.
    assert ours.time_ratio == 0.5 and theirs.time_ratio is None
    assert ours.compiling == 65.0
    assert (ours.peak, theirs.peak, ours.peak_ratio) == (300 * MIB, 500 * MIB, 0.6)


def test_layout(measured, tmp_path):
    """An empty column is left out of the page, and stays in the CSV file."""
    text = cost_tables.write_costs(tmp_path, SETTING, measured[:1], {"nemo": "needs a file"})
    table = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    shown = dict(zip(cells[0], cells[2]))
    assert shown == {
        "method": "no_mitigation",
        "code": "suite",
        "NFE": "100",
        "s an image": "0.4",
        "s sampling": "3",
        "s in all": "4",
        "ratio": "0.500",
        "MiB sampling": "300",
        "MiB decoding": "80.0",
        "MiB in all": "300",
        "ratio of MiB": "0.600",
        "s to compile": "65",
    }
    assert text.startswith("# Costs: a model\n") and "- nemo: needs a file" in text
    assert (tmp_path / "cost.md").read_text() == text
    theirs = cost_tables.cost_text(SETTING, measured[1:], {})
    assert "| ratio |" not in theirs and "s to compile" not in theirs
    cost_tables.write_costs(tmp_path, SETTING, measured, {})
    rows = list(csv.DictReader((tmp_path / "cost.csv").open()))
    assert [row["seconds"] for row in rows] == ["4", "8"]
    assert [row["time_ratio"] for row in rows] == ["0.500", ""]
    assert rows[0]["peak_mib"] == "300" and rows[0]["steps"] == "50"


def cost_of(method: str, seconds: float, peak: int) -> Cost:
    """Of the suite. peak: MiB, of sampling."""
    return Cost(method, "suite", 10, 100, seconds, seconds, peak * MIB, MIB)


def test_goals_stand_beside_the_official_figures():
    """Of the figures that the suite had before: all but the two peaks."""
    costs = [
        cost_of("no_mitigation", 3.52, 7244),
        cost_of("batch_wise", 3.69, 7244),
        cost_of("per_sample", 4.89, 17469),
    ]
    rows = cost_tables.goal_rows(SETTING, costs)
    assert [row["kept"] for row in rows] == ["yes", "no", "no", "yes", "no"]
    assert rows[1]["times"] == "0.814" and "8904" in rows[1]["at most"]
    assert rows[2]["at most"] == "1.045 times the suite's s with no mitigation (3.52)"
    compiled = replace(SETTING, compiled=True)
    assert [row["kept"] for row in cost_tables.goal_rows(compiled, costs)] == ["no"]
    assert "one NVIDIA H100" in cost_tables.cost_text(SETTING, costs, {})


@pytest.mark.parametrize(
    "other",
    [
        {"cuda": False},
        {"reduced": True},
        {"architecture": "sd2"},
        {"images": 4},
        {"dtype": "fp32"},
        {"prompts": 2},
        {"updates": 9},
    ],
)
def test_no_goals_for_anything_else(other):
    assert SETTING.is_the_officials()
    assert not replace(SETTING, **other).is_the_officials()


# --- architectures ---


@pytest.mark.parametrize(
    ("name", "unet", "text_encoder"),
    [("sd14", 859_520_964, 123_060_480), ("sd2", 865_910_724, 340_387_840)],
)
def test_sizes_of_the_networks(name, unet, text_encoder):
    """Parameters of the published models."""
    with torch.device("meta"):
        networks = ARCHITECTURES[name].networks()
    sizes = {part: count(network) for part, network in networks.items()}
    assert sizes == {"unet": unet, "vae": 83_653_863, "text_encoder": text_encoder}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_random_weights_hear_the_prompt(name, dtype):
    """Predictions and pictures are finite, magnitudes are those of a model."""
    model = build(ARCHITECTURES[name].reduced(), device="cpu", dtype=dtype)
    assert {each.dtype for each in model.network.parameters()} == {dtype}
    assert model.native_size == 64 and model.downsampling == 8
    model.set_timesteps(50)
    told = model.encode(["a cat", ""])
    x = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        text, empty = model.predict(x.expand(2, -1, -1, -1), model.timesteps[0], told).float()
    assert 0.1 < (text - empty).norm() < 10 and 0.1 < text.std() < 10
    assert model.decode(15 * x).isfinite().all()


def test_from_nothing_to_the_table(monkeypatch, tmp_path, capsys):
    """Stable Diffusion 1.4's, reduced as it is on a CPU."""
    words = ["--architecture", "sd14", "--device", "cpu", "--steps", "2", "--images", "1"]
    words += ["--updates", "1", "--repeats", "1", "--out", str(tmp_path / "made" / "here")]
    assert run(monkeypatch, *words) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "# Costs: Stable Diffusion 1.4's architecture with random weights, reduced\n"
    )
    assert "Goals" not in text
    rows = list(csv.DictReader((tmp_path / "made" / "here" / "cost.csv").open()))
    assert [row["nfe"] for row in rows] == ["4", "4", "11", "12", "6", "6"]
    for ratio in ("time_ratio", "peak_ratio"):
        assert [bool(row[ratio]) for row in rows] == [True, False] * 3
    # More than the weights, less than twice as much.
    assert all(22 < float(row["peak_mib_sampling"]) < 44 for row in rows)


@pytest.fixture
def unmeasured(monkeypatch) -> None:
    """Every method takes a second."""

    def measure(sides, work, **_):
        return [cost_of(side.method.name, 1.0, 1) for side in sides[:1]]

    monkeypatch.setattr(cost, "measure", measure)


def test_a_budget_limits_the_passes(unmeasured, monkeypatch, tmp_path, capsys):
    words = ["--architecture", "sd2", "--device", "cpu", "--memory_budget", "0.03"]
    assert run(monkeypatch, *words, "--out", str(tmp_path)) == 0
    text = capsys.readouterr().out
    assert "with gradients. It may take 0.03 GiB." in text
    row = next(csv.DictReader((tmp_path / "cost.csv").open()))
    assert row["memory_budget"] == "0.03"
    assert 2 <= int(row["backward_rows"]) <= int(row["forward_rows"]) < 40


def test_all_methods_but_those_that_need_a_file(unmeasured, monkeypatch, capsys):
    """They are named with what they need."""
    assert run(monkeypatch, "--architecture", "sd2", "--device", "cpu", "--methods", "all") == 0
    table, left_out = capsys.readouterr().out.split("Left out:")
    for name in METHODS:
        needs_file = name in ("captain_noise", "nemo", "stability_regions")
        assert (f"| {name} " in table) is not needs_file
        assert (f"- {name}: " in left_out) is needs_file


# --- memory from shapes ---


def test_shapes_take_what_numbers_take():
    """Of the reduced size: sampling of three images."""
    architecture = ARCHITECTURES["sd14"].reduced()
    shapes = cost_memory.Shapes(architecture, torch.float32)
    found = shapes.held("", lambda: cost_memory.evaluate(shapes.model, 3, Limits()))
    model = build(architecture, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        there = peak_bytes("cpu", lambda: cost_memory.evaluate(model, 3, Limits()))
    assert there > MIB
    assert found.bytes == pytest.approx(held_bytes(model) + there, rel=0.002)


def test_what_counting_needs(monkeypatch, capsys):
    assert run(monkeypatch, "--count") == 2
    assert "--count needs --architecture, any of sd14, sd2" in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_of_counted_memory(monkeypatch, capsys):
    words = ["--architecture", "sd2", "--reduced", "--count", "--memory_budget", "0.05"]
    assert run(monkeypatch, *words, "--images", "2") == 0
    text = capsys.readouterr().out
    assert "| gradients, saving memory" in text and "--memory_budget 0.05: " in text


@pytest.mark.slow
def test_the_goals_of_memory():
    """As counted at full size: half and 0.65 of the official code's peak; all within 8 GiB."""
    architecture = ARCHITECTURES["sd14"]
    counted = cost_memory.count(architecture, torch.bfloat16, images=10)
    found = {each.what: each.bytes / MIB for each in counted}
    official = 8904
    assert max(found["sampling"], found["decoding"]) < 0.5 * official
    assert found["gradients, saving memory"] < 0.65 * official
    # What was measured on a GPU without saving.
    assert found["gradients"] == pytest.approx(17469, rel=0.02)
    assert cost_memory.limits_of(architecture, torch.bfloat16, 8.0).backward >= 2


# --- what cannot be measured, and rows ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "sial"), "Did you mean sail?"),
        (("--methods", "nemo", "--architecture", "sd14"), "nemo needs --neurons FILE"),
        (("--model_id", "nowhere"), "there is no model 'nowhere'"),
        (("--device", "cuda:77"), "cuda:77 is not here"),
    ],
)
def test_what_cannot_be_measured(monkeypatch, capsys, words, message):
    assert run(monkeypatch, *words) == 2
    assert message in capsys.readouterr().err


def test_rows_a_second(monkeypatch, capsys, tmp_path):
    words = ["--architecture", "sd14", "--device", "cpu", "--rows", "1", "4", "--repeats", "1"]
    assert run(monkeypatch, *words, "--out", str(tmp_path)) == 0
    assert "| rows in flight | rows a second |" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert [row["rows"] for row in rows] == ["1", "4"]
    assert all(float(row["rows_a_second"]) > 0 for row in rows)
