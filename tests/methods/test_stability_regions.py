"""Stability regions: norms and corrections against the transcription, statistics files,
refusals.
"""

import json
from pathlib import Path

import pytest
import torch

from memorization_suite.detection.stability import (
    NORMS,
    NormRecorder,
    Statistics,
    instability,
    measure,
    read_statistics,
)
from memorization_suite.mitigation import build_mitigation
from tests.methods.helpers import relative, sample
from tests.methods.statistics_file import MEAN, SD, statistics_file
from tests.reference import huang2026


def pairs(pipe, prompts) -> list[torch.Tensor]:
    """Embeddings of each image, unconditional first."""
    return [
        torch.cat([pipe.encode([""]).tokens, pipe.encode([prompt]).tokens]) for prompt in prompts
    ]


def recorded(pipe, prompts, noise, steps: int) -> dict[str, torch.Tensor]:
    recorder = NormRecorder()
    return recorder.finish(
        sample(
            pipe, prompts, noise, build_mitigation("no_mitigation"), steps, on_step=recorder.on_step
        ).final
    )


# norms
def test_norms_are_the_transcriptions(pipe, prompts, noise):
    """Every norm of every step within 1e-4."""
    found = recorded(pipe, prompts, noise, 5)
    for i, pair in enumerate(pairs(pipe, prompts)):
        expected = huang2026.norms(
            pipe.unet, noise[i : i + 1], pair, num_steps=5, guidance_scale=7.0
        )
        for name in NORMS:
            torch.testing.assert_close(
                found[name][i], torch.tensor(expected[name]), rtol=1e-4, atol=1e-4
            )


def test_norms_under_euler_are_of_unit_variance_latents(euler_pipe, prompts, noise):
    """From what the schedule's hook sees in Euler's space, divided by sqrt(sigma^2 + 1); the last
    sigma is 0, where z is the clean latent. 1e-4.
    """
    seen = []

    class Watching(type(build_mitigation("no_mitigation").guidance(None))):
        def after_step(self, step, before, after):
            seen.append((before, after))
            return after

    method = build_mitigation("no_mitigation")
    object.__setattr__(method, "guidance", lambda batch: Watching())
    sample(euler_pipe, prompts, noise, method, 5)
    scale = (euler_pipe.scheduler.sigmas**2 + 1).sqrt()
    found = recorded(euler_pipe, prompts, noise, 5)
    for i, (before, after) in enumerate(seen):
        torch.testing.assert_close(
            found["update"][:, i],
            (after / scale[i + 1] - before / scale[i]).flatten(1).norm(dim=1),
            rtol=1e-4,
            atol=1e-4,
        )
        torch.testing.assert_close(
            found["latent"][:, i],
            (after / scale[i + 1]).flatten(1).norm(dim=1),
            rtol=1e-4,
            atol=1e-4,
        )
    torch.testing.assert_close(found["clean"][:, -1], found["latent"][:, -1], rtol=1e-3, atol=1e-3)


def test_statistics_and_the_score():
    """Two images: mean and the sample standard deviation; S is the largest deviation of an update,
    whichever its sign.
    """
    norms = {name: torch.tensor([[1.0, 2.0], [3.0, 2.0]]) for name in NORMS}
    made = measure(norms, {}, {})
    assert made.mean["clean"].tolist() == [2.0, 2.0]
    assert made.sd["clean"].tolist() == pytest.approx([2**0.5, 2e-6])
    made = Statistics(
        {name: torch.tensor([2.0, 5.0]) for name in NORMS},
        {name: torch.tensor([0.5, 1.0]) for name in NORMS},
        {},
    )
    assert instability(made, torch.tensor([[2.0, 2.5], [3.0, 5.0]])).tolist() == [2.5, 2.0]
    assert made.clamped("latent", 0, torch.tensor([0.1, 2.2, 9.0]), 3.0).tolist() == pytest.approx(
        [0.5, 2.2, 3.5]
    )
    assert made.clamped("latent", 0, torch.tensor([0.1]), 100.0).tolist() == pytest.approx(
        [0.1]
    )  # a length is never negative
    with pytest.raises(ValueError, match="finite norms of at least two images, not of 1"):
        measure({name: values[:1] for name, values in norms.items()}, {}, {})
    with pytest.raises(ValueError, match="norms of 1 of 2 images are not finite"):
        measure(norms | {"update": torch.tensor([[1.0, torch.nan], [1.0, 1.0]])}, {}, {})


# corrections
@pytest.mark.parametrize(("gamma", "severe"), [(2.0, 4.0), (1.0, 1.0), (2.0, 100.0)])
def test_parity(pipe, prompts, noise, gamma, severe):
    """Final latents within 1e-4, deviations within 1e-3; with the regions of the test there are
    steps of every kind.
    """
    method = build_mitigation(
        "stability_regions", statistics=statistics_file(5), gamma_sd=gamma, severe_sd=severe
    )
    made = sample(pipe, prompts, noise, method, 5)
    kinds = set()
    for i, pair in enumerate(pairs(pipe, prompts)):
        expected, off = huang2026.corrected(
            pipe.unet,
            noise[i : i + 1],
            pair,
            num_steps=5,
            guidance_scale=7.0,
            mean=MEAN,
            sd=SD,
            gamma=gamma,
            severe=severe,
        )
        assert relative(made.final[i : i + 1], expected) < 1e-4
        numbers = {name: values[i].item() for name, values in made.numbers.items()}
        assert numbers["instability"] == pytest.approx(max(off), rel=1e-3)
        assert numbers["mild_steps"] == sum(gamma < value <= severe for value in off)
        assert numbers["severe_steps"] == sum(value > severe for value in off)
        assert numbers["first_outside"] == next(
            (k for k, value in enumerate(off) if value > gamma), -1
        )
        kinds |= {(value > gamma) + (value > severe) for value in off}
    assert kinds == ({0, 1, 2} if gamma < severe < 100 else {0, 2} if severe < 100 else {0, 1})
    assert made.unet_evals.tolist() == [10, 10, 10]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["ddim", "euler"])
def test_inside_the_region_nothing_changes(make_pipe, prompts, noise, kind, dtype):
    """Bit for bit, and the score is that of the recorded norms."""
    pipe = make_pipe(kind, dtype=dtype)
    plain = sample(pipe, prompts, noise.to(dtype), build_mitigation("no_mitigation"), 4)
    method = build_mitigation(
        "stability_regions", statistics=statistics_file(4), gamma_sd=1e6, severe_sd=1e6
    )
    made = sample(pipe, prompts, noise.to(dtype), method, 4)
    assert torch.equal(made.final, plain.final)
    assert made.numbers["first_outside"].tolist() == [-1] * 3
    if dtype == torch.float32:
        update = recorded(pipe, prompts, noise, 4)["update"]
        torch.testing.assert_close(
            made.numbers["instability"],
            instability(read_statistics(Path(statistics_file(4))), update).float(),
            rtol=1e-3,
            atol=1e-3,
        )


@pytest.mark.parametrize(
    ("kind", "prediction_type"),
    [("ddim", "v_prediction"), ("euler", "epsilon"), ("euler", "v_prediction")],
)
def test_a_severe_step_ends_inside_the_region(make_pipe, prompts, noise, kind, prediction_type):
    """Every step counts as severe: the norms of all latents that the UNet reads are in [mean -
    gamma sd, mean + gamma sd].
    """
    pipe, read = make_pipe(kind, prediction_type), []
    method = build_mitigation(
        "stability_regions", statistics=statistics_file(5), gamma_sd=1e-3, severe_sd=1e-3
    )
    made = sample(pipe, prompts, noise, method, 5, on_step=lambda step, pred: read.append(pred.x))
    lengths = torch.stack([x.flatten(1).norm(dim=1) for x in (*read[1:], made.final)])
    torch.testing.assert_close(
        lengths, torch.full_like(lengths, MEAN["latent"]), rtol=1e-3, atol=1e-3
    )
    assert made.numbers["severe_steps"].tolist() == [5] * 3


def test_it_goes_with_a_method_that_changes_the_noise(pipe, prompts, noise):
    made = sample(
        pipe,
        prompts,
        noise,
        build_mitigation(
            "per_sample+stability_regions", optim_iters=1, statistics=statistics_file(4)
        ),
        4,
    )
    assert {"iterations", "instability"} <= set(made.numbers)


# files
def test_a_file_is_read_as_it_was_saved(tmp_path):
    made = measure(
        {
            name: torch.rand(3, 4, generator=torch.Generator().manual_seed(i))
            for i, name in enumerate(NORMS)
        },
        {"guidance_scale": 7.0},
        {"images": 3},
    )
    (tmp_path / "a.json").write_text(made.as_text())
    read = read_statistics(tmp_path / "a.json")
    assert all(
        torch.equal(read.mean[name], made.mean[name]) and torch.equal(read.sd[name], made.sd[name])
        for name in NORMS
    )
    assert (read.made_with, read.made_from, read.num_steps) == (
        {"guidance_scale": 7.0},
        {"images": 3},
        4,
    )


@pytest.mark.parametrize(
    "change",
    [
        None,
        "text",
        {"kind": "thresholds"},
        {"schema": 2},
        {"mean": {}},
        {"made_with": None},
        {"sd": {name: [1.0, 0.0] for name in NORMS}},
        {"mean": {name: [1.0] for name in NORMS}},
        {"mean": {name: [1.0, float("nan")] for name in NORMS}},
        {"sd": dict.fromkeys(NORMS, "x")},
    ],
    ids=str,
)
def test_a_file_that_is_none_is_refused(tmp_path, change):
    path = tmp_path / "a.json"
    stored = json.loads(Path(statistics_file(2)).read_text())
    if change is not None:
        path.write_text("nonsense" if change == "text" else json.dumps(stored | change))
    with pytest.raises(ValueError, match="has no statistics of a trajectory's norms"):
        read_statistics(path)


def test_what_is_missing_or_contradictory_is_refused():
    with pytest.raises(
        ValueError, match="--statistics is not given.*detect_memorization.py calibrate stability"
    ):
        build_mitigation("stability_regions").check(50)
    with pytest.raises(ValueError, match="--statistics: there is no file nowhere.json"):
        build_mitigation("stability_regions", statistics="nowhere.json")
    with pytest.raises(ValueError, match="num_inference_steps is 4 there, 50 here"):
        build_mitigation("stability_regions", statistics=statistics_file(4)).check(50)
    with pytest.raises(ValueError, match="--severe_sd 1 is below --gamma_sd 3"):
        build_mitigation("stability_regions", statistics=statistics_file(4), severe_sd=1.0).check(4)


@pytest.mark.parametrize(
    ("made_with", "told"),
    [
        ({"guidance_scale": 7.5}, "guidance_scale is 7.5 there, 7.0 here"),
        ({"scheduler_class": "EulerDiscreteScheduler"}, "scheduler_class"),
        ({"timesteps": [1.0, 2.0]}, "timesteps"),
        ({"latent_shape": [4, 64, 64]}, "latent_shape"),
    ],
)
def test_a_run_of_another_kind_is_refused(pipe, prompts, noise, tmp_path, made_with, told):
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps(json.loads(Path(statistics_file(2)).read_text()) | {"made_with": made_with})
    )
    with pytest.raises(ValueError, match=told):
        sample(pipe, prompts, noise, build_mitigation("stability_regions", statistics=str(path)), 2)


def test_settings_of_the_command_line_are_compared(tmp_path):
    """The model's own scheduler may be the one that was asked for by name; what the file does not
    know is not compared.
    """
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps(
            json.loads(Path(statistics_file(2)).read_text())
            | {"made_with": {"model_id": "a/b", "scheduler": "ddim"}}
        )
    )
    method = build_mitigation("stability_regions", statistics=str(path))
    for identity in (
        {},
        {"model_id": "a/b", "scheduler": "ddim", "dtype": "bf16"},
        {"model_id": "a/b", "scheduler": "keep"},
    ):
        method.check_run(identity)
    for identity in (
        {"model_id": "a/c", "scheduler": "ddim"},
        {"model_id": "a/b", "scheduler": "euler"},
    ):
        with pytest.raises(ValueError, match="another kind of run"):
            method.check_run(identity)
