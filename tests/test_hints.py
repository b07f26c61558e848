"""What is said of a faster way: from measured figures, and only where it pays."""

import pytest

from memorization_suite.commands import hints
from memorization_suite.commands.machine import say_hints
from memorization_suite.commands.settings import Sampling
from memorization_suite.mitigation import build_mitigation
from memorization_suite.sampling.denoiser import Limits

FIGURES = {
    "measured": {"model": "A model's architecture", "pixels": 64, "device": "a card"},
    "rows_per_second": {"2": 10, "4": 20, "12": 40},
    "compile": {"seconds": 50, "factor": 0.5},
}


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    monkeypatch.setattr(hints, "speeds", lambda: FIGURES)


@pytest.mark.parametrize(("rows", "speed"), [(1, 5), (2, 10), (3, 15), (8, 30), (12, 40), (99, 40)])
def test_speed_lies_on_lines_between_what_was_measured(rows, speed):
    assert hints.rows_per_second(rows) == speed


def test_a_larger_batch():
    said = hints.batch_size_hint(batch_size=1, samples=2, prompts=9)
    assert (
        said == "--batch_size 3 would be about 2 times as fast (as A model at 64 pixels on a card)"
    )


@pytest.mark.parametrize(
    ("batch_size", "samples", "prompts"),
    [
        (3, 2, 9),  # it is as large already
        (1, 6, 9),  # a prompt's images fill the card
        (1, 2, 1),  # there is one prompt
    ],
)
def test_a_batch_that_is_large_enough(batch_size, samples, prompts):
    assert hints.batch_size_hint(batch_size, samples, prompts) == ""


def test_a_batch_that_memory_does_not_take():
    assert hints.batch_size_hint(batch_size=1, samples=2, prompts=9, limit=4) == ""
    assert hints.batch_size_hint(batch_size=1, samples=2, prompts=9, limit=8).startswith(
        "--batch_size 2 "
    )


def test_compilation_pays_in_long_runs_alone():
    assert hints.compile_hint(100) == ""
    assert hints.compile_hint(1000).startswith(
        "--compile would have taken about 9 min 10 s instead of 16 min 40 s"
    )


@pytest.mark.parametrize(
    ("changed", "lines"),
    [({}, 2), ({"compile": True}, 1), ({"device": "cpu"}, 0), ({"quiet": True}, 0)],
)
def test_hints_are_for_a_gpu(capsys, changed, lines):
    assert said(capsys, "no_mitigation", **changed) == lines


@pytest.mark.parametrize("method", ["per_sample", "cross_attention"])
def test_compilation_does_not_help_gradients_and_patches(capsys, method):
    assert said(capsys, method) == 1


def said(capsys, method, **changed) -> int:
    """Lines."""

    class Settings(Sampling):
        quiet = False

    settings = Settings(device="cuda:0", dtype="bf16", n_samples_per_prompt=2)
    for name, value in changed.items():
        object.__setattr__(settings, name, value)
    say_hints(settings, [build_mitigation(method)], prompts=9, limits=Limits(), seconds=1000)
    return len(capsys.readouterr().err.splitlines())
