"""What a sweep will cost: NFE as they are counted when images are made, seconds and sizes of images
that are there, else the figures of a GPU, said beside.
"""

import pytest

import memorization_suite as suite
from memorization_suite import ROOT, sweep, tiny
from memorization_suite.commands import hints
from memorization_suite.commands.sweeps import nfe
from memorization_suite.commands.sweeps.cost import Total, cost_lines, costs_of
from memorization_suite.commands.sweeps.sweep import Entry, plan_sweep
from memorization_suite.detection import DETECTORS
from memorization_suite.mitigation import METHODS, build_mitigation
from memorization_suite.mitigation.base import Ahead
from memorization_suite.mitigation.composite import Composite
from tests.methods import helpers
from tests.test_methods import QUICK

WITH_WEIGHTS = pytest.mark.skipif(
    not tiny.MODELS["tiny"].is_dir(), reason="the weights of tiny are not in this checkout"
)
PROMPTS = str(ROOT / "tiny" / "prompts" / "tiny_memorized_test.csv")
STEPS = 4
# No image reaches these, so that all make as many updates.
UNREACHED = {
    "per_sample": {"target_loss": 1e-6},
    "sail": {"l_thres": 1e-6},
    **{
        name: {"optim_target_loss": 1e-6}
        for name in ("prompt_embedding", "bright_ending_embedding")
    },
    "anisotropy_embedding": {"optim_target_loss": -1e6},
}
SWEEP = """
common = {{ {common}, num_inference_steps = 4, n_samples_per_prompt = 2 }}
run = [
    {{ method = "no_mitigation" }},
    {{ method = "batch_wise", apply_cfg_step = [0, 1] }},
    {{ method = "per_sample", optim_iters = 2 }},
]
"""


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """planned(model_id="tiny", end=2): the runs of a small sweep, and their lines of cost."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a red square\n" * 6)

    def plan_and_say(devices=1, **common):
        text = ", ".join(f'{name} = "{value}"' for name, value in common.items())
        (tmp_path / "sweep.toml").write_text(SWEEP.format(common=text))
        entries = plan_sweep("sweep.toml", "out", prompts="prompts.txt", end=4, quiet=True)
        return entries, "\n".join(cost_lines(entries, devices, "out"))

    return plan_and_say


# --- NFE ---


@pytest.mark.parametrize(
    ("formula", "value"),
    [("4M + 2N - (k + 1)", 103), ("2N", 100), ("2 + 2N", 102), ("3", 3), ("2N - U", 95)],
)
def test_the_sum_of_a_cost_has_a_value(formula, value):
    assert nfe.value_of(formula, {"N": 50, "M": 2, "k": 4, "U": 5}) == value


@pytest.mark.parametrize("formula", ["2N + Z", "as for guidance", "2N +", "N ** 9", "f(2)"])
def test_another_text_is_no_sum(formula):
    with pytest.raises(ValueError, match="is no sum"):
        nfe.value_of(formula, {"N": 50})


@pytest.mark.parametrize("registry", [METHODS, DETECTORS], ids=["methods", "detectors"])
def test_every_cost_begins_with_a_sum(registry):
    letters = dict.fromkeys("NMkUJARKE", 1)
    for entry in registry.values():
        assert nfe.value_of(nfe.formula_of(entry.cost), letters) > 0, entry.name


@pytest.mark.parametrize("name", METHODS)
def test_nfe_are_as_counted(pipe, prompts, noise, name):
    """Of every method, on the random model; where images decide, when none reaches its target."""
    method = build_mitigation(name, **QUICK.get(name, {}) | UNREACHED.get(name, {}))
    made = helpers.sample(pipe, prompts, noise, method, STEPS)
    ahead = Ahead(tuple(pipe.timesteps.tolist()))
    told = nfe.of_method(method, ahead, trace=False)
    assert made.unet_evals.tolist() == [told.network] * 3


def test_nfe_of_several_methods_are_their_sum(pipe, prompts, noise):
    """One step apart at most: what one evaluated may serve the other."""
    methods = (
        build_mitigation("prompt_embedding", optim_iters=2, optim_target_loss=1e-6),
        build_mitigation("per_sample", optim_iters=3, target_loss=1e-6),
    )
    made = helpers.sample(pipe, prompts, noise, Composite(methods=methods), STEPS)
    ahead = Ahead(tuple(pipe.timesteps.tolist()))
    told = [nfe.of_method(each, ahead, trace=False).network for each in methods]
    assert abs(sum(told) - 2 * STEPS - int(made.unet_evals[0])) <= 2


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"method": "static_transition", "tau": 600},
        {"method": "batch_wise", "tau": 700},
        {"method": "batch_wise", "apply_cfg_step": 1, "trace": True},
        {"method": "batch_wise", "apply_cfg_step": 1, "screen": "noise_norm:0"},
        {"method": "guard", "scheduler": "euler"},
        {"method": "static_transition", "tau": 600, "scheduler": "euler"},
    ],
    ids=str,
)
def test_nfe_of_a_plan_are_those_of_its_run(random_sd_folder, tmp_path, flags):
    """With thresholds on the timesteps, traces, and a detector that flags every image."""
    (tmp_path / "prompts.txt").write_text("two cats\n")
    common = {"n_samples_per_prompt": 1, "num_inference_steps": 5, "quiet": True}
    plan = suite.plan(
        model_id=random_sd_folder,
        prompts=str(tmp_path / "prompts.txt"),
        output_path=str(tmp_path),
        **common | flags,
    )
    told = nfe.evaluations(plan)
    rows = suite.generate(plan).folder.rows("images")
    assert [float(row["unet_evals"]) for row in rows] == [told.network]


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_timesteps_are_those_of_the_sampler(make_pipe, random_sd_folder, scheduler):
    plan = suite.plan(
        model_id=random_sd_folder, scheduler=scheduler, num_inference_steps=7, prompts=PROMPTS
    )
    sampler = make_pipe(scheduler).scheduler
    sampler.set_timesteps(7)
    assert nfe.timesteps_of(plan) == pytest.approx(sampler.timesteps.tolist(), abs=1e-3)


def test_what_images_decide_is_assumed_and_said():
    ahead = Ahead(tuple(range(50)))
    told = nfe.of_method(build_mitigation("per_sample"), ahead, trace=False)
    assert (told.network, told.backward) == (2 * 50 + 2 * 8, 8)
    assert told.notes == ("updates: 8 an image assumed",)
    told = nfe.of_method(build_mitigation("prompt_embedding", optim_iters=5), ahead, trace=False)
    assert (told.network, told.notes) == (106, ("updates: at most 5 an image",))
    searching = Ahead(ahead.timesteps, alternatives=3)
    told = nfe.of_method(build_mitigation("prss", masked=True), searching, trace=False)
    assert told.network == 4 * 50 - 2 + 3 + 49 and len(told.notes) == 2


def test_a_cost_that_is_no_sum_is_said(registries):
    method = type("Odd", (type(build_mitigation("no_mitigation")),), {"cost": "twice as much"})()
    told = nfe.of_method(method, Ahead((1.0,) * 9), trace=False)
    assert told.network == 18 and "'twice as much'" in told.notes[0]


# --- the command ---


@pytest.mark.parametrize(("name", "runs"), [("protocol_sd1", 41), ("protocol_sd2", 32)])
def test_the_papers_protocol_is_planned_for_64_devices(name, runs, tmp_path, capsys, monkeypatch):
    """Without the model and without a network; nothing is written."""
    monkeypatch.chdir(tmp_path)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red lantern\n" * 500)
    file = str(ROOT / "experiments" / "sweeps" / f"{name}.toml")
    flags = ["--prompts", "prompts.txt", "--dry_run", "--devices", "64"]
    assert sweep.main([file, *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("python generate_images.py ") for line in lines) == runs
    (total,) = [line.split() for line in lines if line.startswith("in all")]
    assert total[2:4] == [str(runs), str(runs * 5000)]
    assert any(line.startswith("on 64 devices: ") for line in lines)
    assert list(tmp_path.iterdir()) == [prompts]


# --- seconds and sizes ---


def test_an_h100_is_taken_for_stable_diffusion_and_said(planned):
    entries, said = planned(devices=4, model_id="CompVis/stable-diffusion-v1-4")
    assert "of one NVIDIA H100" in said and "not measured here" in said
    assert "updates: 2 an image assumed" in said and "up to a piece more" in said
    costs = costs_of(entries)
    assert [cost.nfe for cost in costs] == [8, 15, 14, 12]
    assert [cost.images for cost in costs] == [8] * 4
    assert costs[1].seconds / costs[0].seconds == pytest.approx(15 / 8)
    assert costs[3].seconds > costs[0].seconds * 12 / 8  # two backward passes
    assert costs[0].bytes == pytest.approx(3 * 512 * 512, rel=1e-2)


def test_measured_methods_take_what_was_measured():
    """Of the table: 10 images of a prompt, 50 steps."""
    figures = hints.speeds()["seconds"]
    for name, counted in (("no_mitigation", (100, 0)), ("per_sample", (116, 8))):
        seconds = hints.measured_seconds(*counted, rows=20, pixels=512)
        assert seconds == pytest.approx(figures[name] / 10)
    batch_wise = hints.measured_seconds(103, 0, rows=20, pixels=512)
    assert batch_wise == pytest.approx(figures["batch_wise"] / 10, rel=0.03)
    larger = hints.measured_seconds(100, 0, rows=20, pixels=768)
    assert larger / (figures["no_mitigation"] / 10) == pytest.approx(2148 / 803, rel=0.01)
    assert hints.measured_seconds(100, 0, rows=4, pixels=512) > 2 * figures["no_mitigation"] / 10


@WITH_WEIGHTS
def test_an_embedded_model_has_no_speed_until_one_is_measured(planned):
    """Then its own images tell, those of the same method, and of others by NFE."""
    entries, said = planned(model_id="tiny")
    assert "none were measured of tiny" in said and "device hours" not in said
    plain = suite.generate(entries[0].plan)
    suite.generate(entries[1].plan)
    _, said = planned(model_id="tiny", devices=2)
    assert "measured here" in said and "H100" not in said and "device hours" in said
    assert "16 images are there" in said
    costs = costs_of(entries)
    seconds = [float(row["seconds"]) for row in plain.folder.rows("images")]
    assert costs[0].seconds == pytest.approx(sum(seconds) / len(seconds))
    assert costs[2].seconds == pytest.approx(costs[1].seconds * costs[2].nfe / costs[1].nfe)
    assert costs[3].sources[0] == (
        "per_sample, seconds of 16 images of other methods measured here on cpu, scaled by NFE"
    )


@WITH_WEIGHTS
def test_images_tell_how_many_updates_they_take(planned, tmp_path):
    entries, _ = planned(model_id="tiny")
    run = suite.generate(entries[3].plan)
    evals = [int(row["unet_evals"]) for row in run.folder.rows("images")]
    cost = costs_of(entries)[3]
    assert cost.nfe == pytest.approx(sum(evals) / 8) and cost.there == 8
    assert "per_sample, NFE of 8 images measured here" in cost.sources
    more = SWEEP.format(common='model_id = "tiny"').replace("optim_iters = 2", "optim_iters = 3")
    (tmp_path / "more.toml").write_text(more)
    planned_later = plan_sweep("more.toml", "out", prompts="prompts.txt", end=4, quiet=True)
    other = costs_of([entries[3], planned_later[3]])[1]
    assert other.nfe == pytest.approx(cost.nfe) and other.there == 0
    assert other.sources[-2].endswith("measured here, at other settings of the method")


@WITH_WEIGHTS
def test_storage_is_that_of_a_run(planned, tmp_path):
    """With latents, trace and scores, to a fifth."""
    plan = suite.plan(
        model_id="tiny", end=3, n_samples_per_prompt=2, save_latents=True, trace=True, quiet=True,
        output_path=str(tmp_path), num_inference_steps=9,
    )  # fmt: skip
    run = suite.generate(plan)
    suite.score(run, ["copy"], quiet=True)
    (cost,) = costs_of([Entry("a run", plan)])
    there = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    assert Total.of([cost]).bytes == pytest.approx(there, rel=0.2)
