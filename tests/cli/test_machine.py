"""How a run uses the machine: limits of memory, compilation, precision."""

import json

import pytest
import torch

from memorization_suite.commands import calibrate, machine
from memorization_suite.commands.detect import detect
from memorization_suite.commands.detect_plan import plan_detection
from memorization_suite.commands.generate import generate
from memorization_suite.commands.generate_plan import plan
from memorization_suite.commands.tokens import Tokens
from memorization_suite.detection import build_detector
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.pipelines.stable_diffusion.denoiser import StableDiffusionDenoiser
from memorization_suite.sampling.denoiser import Limits, Unusable

SMALL = {"model_id": "tiny", "num_inference_steps": 2, "n_samples_per_prompt": 2, "quiet": True}
# The model takes 7 MiB, an image far less than the rest.
BUDGET = 0.05


def planned(folder, **more):
    return plan(output_path=str(folder), end=1, **(SMALL | more))


def manifest(folder) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def images(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_without_a_budget_a_run_on_the_cpu_has_no_limits(tmp_path):
    run = generate(planned(tmp_path))
    nothing = {"budget_gib": None, "forward": None, "backward": None}
    assert manifest(run.path)["memory"] == nothing


def test_a_budget_gives_rows_and_a_run_that_goes_on_keeps_them(tmp_path, monkeypatch):
    method = {"method": "per_sample", "optim_iters": 0}
    run = generate(planned(tmp_path, memory_budget=BUDGET, **method))
    memory = manifest(run.path)["memory"]
    assert memory["budget_gib"] == BUDGET and memory["forward"] > 2 and memory["backward"] >= 2
    whole = images(run.path)

    def never(*args, **more):
        raise AssertionError("the memory is measured once")

    monkeypatch.setattr(machine, "choose_limits", never)
    for typed in (None, BUDGET):
        (run.path / "img_0000_01.png").unlink()
        assert generate(planned(tmp_path, memory_budget=typed, **method)).made
        assert manifest(run.path)["memory"] == memory and images(run.path) == whole


def test_a_run_without_gradients_plans_for_none(tmp_path):
    run = generate(planned(tmp_path, memory_budget=BUDGET))
    memory = manifest(run.path)["memory"]
    assert memory["forward"] > 2 and memory["backward"] is None


def test_another_budget_is_measured_anew(tmp_path):
    run = generate(planned(tmp_path, memory_budget=BUDGET))
    (run.path / "img_0000_01.png").unlink()
    generate(planned(tmp_path, memory_budget=2 * BUDGET))
    assert manifest(run.path)["memory"]["budget_gib"] == 2 * BUDGET


def test_limits_change_no_count(tmp_path, monkeypatch):
    more = {"method": "per_sample", "optim_iters": 2, "target_loss": 1e-6}
    plain = generate(planned(tmp_path / "plain", **more))
    monkeypatch.setattr(
        machine, "choose_limits", lambda *args, **more: Limits(forward=2, backward=2)
    )
    limited = generate(planned(tmp_path / "limited", **more))
    assert manifest(limited.path)["memory"]["backward"] == 2
    counted = [
        [row["unet_evals"] for row in run.folder.costs().values()] for run in (plain, limited)
    ]
    assert counted[0] == counted[1]


def test_a_budget_that_is_too_small_is_refused_before_the_folder_is_begun(tmp_path):
    with pytest.raises(ValueError, match="--memory_budget 0.001 is too little for one image"):
        generate(planned(tmp_path, memory_budget=0.001))
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_detection_keeps_within_the_memory_too(tmp_path):
    settings = {"detector": "noise_norm", "memory_budget": BUDGET, "end": 1}
    made = detect(plan_detection(output_path=str(tmp_path), **(SMALL | settings)))
    assert manifest(made.folders["noise_norm"].path)["memory"]["budget_gib"] == BUDGET


def test_a_smaller_pass_after_an_error_of_memory_is_noted_with_the_images(tmp_path):
    model = load_pipeline("tiny", scheduler="keep")
    predict = type(model).predict

    def short_of_memory(self, x, *args):
        if torch.is_grad_enabled() and len(x) > 2:
            raise torch.OutOfMemoryError("too large")
        return predict(self, x, *args)

    short = type("Short", (type(model),), {"predict": short_of_memory})
    model.__class__ = short
    more = {"method": "per_sample", "optim_iters": 1, "target_loss": 1e-6}
    run = generate(planned(tmp_path, **more), load=lambda *args, **options: model)
    assert [row["grad_rows"] for row in run.folder.costs().values()] == ["1.0", "1.0"]


def test_a_sweep_that_shares_a_model_does_not_compile_the_next_run(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: network)
    model = load_pipeline("tiny", scheduler="keep")

    def load(*args, **options):
        return model

    generate(planned(tmp_path / "compiled", compile=True), load=load)
    assert model.compiled is not None
    generate(planned(tmp_path / "plain"), load=load)
    assert model.compiled is None


def test_a_model_that_cannot_be_compiled_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    run = generate(planned(tmp_path))
    before = images(run.path)

    def refuse(self, *args):
        raise Unusable("no compiler")

    monkeypatch.setattr(StableDiffusionDenoiser, "compile_for", refuse)
    with pytest.raises(Unusable, match="no compiler"):
        generate(planned(tmp_path, compile=True, overwrite=True))
    assert images(run.path) == before


def test_compilation_is_for_full_batches_and_belongs_to_the_identity(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        StableDiffusionDenoiser, "compile_for", lambda self, rows, *size: asked.append(rows)
    )
    run = generate(planned(tmp_path, compile=True))
    assert asked == [4] and manifest(run.path)["identity"]["compile"] is True
    with pytest.raises(ValueError, match="compile: True there, None now"):
        generate(planned(tmp_path))


@pytest.mark.parametrize(("dtype", "noted"), [("fp32", None), ("bf16", {"sharpness": "fp32"})])
def test_forward_derivatives_are_float32s_and_this_is_said(tmp_path, capsys, dtype, noted):
    settings = {"detector": "sharpness", "dtype": dtype, "end": 1}
    made = detect(plan_detection(output_path=str(tmp_path), **(SMALL | settings)))
    folder = made.folders["sharpness"].path
    assert manifest(folder)["identity"].get("derivatives") == noted
    assert json.loads((folder / "config.json").read_text())["derivatives"] == {"sharpness": "fp32"}
    assert ("derivatives: sharpness in fp32" in capsys.readouterr().err) == bool(noted)


@pytest.mark.parametrize(
    ("device", "dtype", "noted"),
    [("cuda", "fp32", False), ("cuda", "bf16", None), ("cpu", "fp32", None)],
)
def test_tensorfloat32_belongs_to_the_identity_where_it_matters(device, dtype, noted):
    settings = planned("nowhere").settings
    object.__setattr__(settings, "device", device)
    object.__setattr__(settings, "dtype", dtype)
    assert machine.rounding(settings, []).get("tf32") is noted
    sharpness = build_detector("sharpness")
    product = machine.rounding(settings, [sharpness]).get("tf32")
    assert product is (False if device == "cuda" else None)


def test_a_calibration_uses_the_machine_as_a_run_does(tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(calibrate, "use_machine", lambda *args: used.append(args[2]))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\n")
    small = {"model_id": "tiny", "num_inference_steps": 2, "quiet": True}
    out = tmp_path / "stability.json"
    calibrate.stability(prompts=str(prompts), out=out, memory_budget=BUDGET, **small)
    assert used[0]["budget_gib"] == BUDGET


def test_a_study_keeps_within_the_memory_too(tmp_path):
    settings = SMALL | {"num_steps": 1, "end": 1, "memory_budget": BUDGET}
    made = Tokens(output_path=str(tmp_path), **settings).run()
    assert made.model.limits.backward >= 2
    assert manifest(made.path)["memory"]["backward"] == made.model.limits.backward
