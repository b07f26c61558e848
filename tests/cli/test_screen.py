"""--screen: ordinary images are those of the unmitigated run, flagged ones those of the mitigated
run, byte for byte.
"""

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler

from memorization_suite.pipelines.stable_diffusion.denoiser import StableDiffusionDenoiser
from tests.cli.helpers import BATCH_WISE, FEW_STEPS, images, planned, refused, rows


@pytest.fixture(scope="module")
def scores(generate, tmp_path_factory):
    """First-step magnitudes of the ten images, and the run that everything was mitigated in."""
    folder = generate(
        tmp_path_factory.mktemp("all"), *BATCH_WISE, *FEW_STEPS, "--screen", "noise_norm:0"
    )
    return {row["key"]: float(row["screen_score"]) for row in rows(folder)}, folder


def test_every_image_is_one_of_the_two_runs(generate, whole, scores, tmp_path):
    """A threshold between the images of a prompt: rows that were not mitigated cost what they cost
    without.
    """
    found, everything = scores
    # In the middle of two: scores are stored with six digits.
    threshold = sum(sorted(found.values())[4:6]) / 2
    folder = generate(tmp_path, *BATCH_WISE, *FEW_STEPS, "--screen", f"noise_norm:{threshold:.6f}")
    plain, mitigated, screened = images(whole()), images(whole("batch_wise")), images(folder)
    table = {row["key"]: row for row in rows(folder)}
    for key, score in found.items():
        name, flagged = f"img_{key}.png", score > threshold
        assert screened[name] == (mitigated if flagged else plain)[name]
        assert float(table[key]["mitigated"]) == flagged and float(
            table[key]["screen_score"]
        ) == pytest.approx(score, rel=1e-4)
        assert bool(table[key]["first_magnitude"]) == flagged
    assert {float(row["mitigated"]) for row in table.values()} == {0.0, 1.0}


def test_unflagged_prompts_cost_nothing_and_flagged_ones_two_rows(
    generate, whole, scores, tmp_path
):
    """The detector's prediction serves as step 0 of the unmitigated run."""
    folder = generate(tmp_path, *BATCH_WISE, *FEW_STEPS, "--screen", "noise_norm:1e6")
    assert images(folder) == images(whole())
    assert [row["unet_evals"] for row in rows(folder)] == [
        row["unet_evals"] for row in rows(whole())
    ]
    mitigated = scores[1]
    assert images(mitigated) == images(whole("batch_wise"))
    assert [int(row["unet_evals"]) for row in rows(mitigated)] == [
        int(row["unet_evals"]) + 2 for row in rows(whole("batch_wise"))
    ]


def test_a_screened_run_has_its_own_folder(base):
    plan = planned([*base, *BATCH_WISE, *FEW_STEPS, "--screen", "noise_norm:1.5"])
    assert plan.folder.name == "g7_rho50_gamma0.7_M2_step1_screennoise_norm1.5_seed2"
    assert plan.identity["screen"] == {
        "detector": "noise_norm",
        "detector_settings": {"num_steps": 1},
        "threshold": 1.5,
    }


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("noise_norm", "is not DETECTOR:THRESHOLD"),
        ("noise_norm:high", "is not DETECTOR:THRESHOLD"),
        ("nose:1", "there is no detector 'nose'"),
        ("noise_norm:nan", "is not DETECTOR:THRESHOLD"),
    ],
)
def test_wrong_screens_are_refused(base, no_model, capsys, value, told):
    refused(capsys, [*base, *BATCH_WISE, *FEW_STEPS, "--screen", value], told)


def test_schedulers_that_draw_noise_draw_the_same_in_every_kind_of_run(
    generate, make_pipe, tmp_path
):
    """The look that scores an image, and a run that another image needs, take nothing from its
    stream.
    """
    pipe = make_pipe()
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path / "model")
    model = ("--model_id", str(tmp_path / "model"), "--scheduler", "keep", "--end", "1")
    mitigated = (*BATCH_WISE, *FEW_STEPS)
    plain = generate(tmp_path / "plain", *model)
    whole = generate(tmp_path / "whole", *model, *mitigated)
    everything = generate(tmp_path / "all", *model, *mitigated, "--screen", "noise_norm_all:-1")
    assert images(everything) == images(whole)
    low, high = sorted(float(row["screen_score"]) for row in rows(everything))
    screen = ("--screen", f"noise_norm_all:{(low + high) / 2}")
    folder = generate(tmp_path / "some", *model, *mitigated, *screen)
    flags = {f"img_{row['key']}.png": float(row["mitigated"]) for row in rows(folder)}
    assert sorted(flags.values()) == [0.0, 1.0]
    for name, flag in flags.items():
        assert images(folder)[name] == images(whole if flag else plain)[name]


@pytest.mark.parametrize(("failing", "least"), [([1], "4.0"), ([1, 4, 5], "2.0")])
def test_smaller_passes_of_the_look_are_noted_too(generate, tmp_path, monkeypatch, failing, least):
    """Of the look's and the run's the smaller one."""
    predict = StableDiffusionDenoiser.predict
    calls = []

    def short_of_memory(self, x, *told):
        if len(x) > 1:  # one row is the check of the schedule
            calls.append(len(x))
            if len(calls) in failing:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return predict(self, x, *told)

    monkeypatch.setattr(StableDiffusionDenoiser, "predict", short_of_memory)
    folder = generate(tmp_path, "--end", "2", "--screen", "noise_norm:1e6")
    assert calls[:4] == [8, 4, 4, 8]
    assert [row["forward_rows"] for row in rows(folder)] == [least] * 4
