"""examples/algorithm1.py is short, and does what the suite does."""

from pathlib import Path

import pytest

from memorization_suite.examples.algorithm1 import algorithm1, main
from memorization_suite.mitigation import build_mitigation
from tests.methods.helpers import sample

EXAMPLE = Path(__file__).parent.parent / "examples" / "algorithm1.py"


def test_fits_on_a_page():
    assert len(EXAMPLE.read_text().splitlines()) < 100


@pytest.mark.parametrize(
    "settings", [{"rho": 5.0, "gamma": 0.7, "M": 2}, {"rho": 1.0, "gamma": 2.0, "M": 3}]
)
def test_equals_the_suite(pipe, noise, prompts, settings):
    suite = build_mitigation(
        "batch_wise",
        rho=settings["rho"],
        gamma=settings["gamma"],
        adj_iters=settings["M"],
        tau=900.0,
    )
    expected = sample(pipe, [prompts[0]] * len(noise), noise, suite, 20).final
    latents = algorithm1(pipe, prompts[0], noise, **settings, tau=900, guidance_scale=7.0, steps=20)
    assert (latents - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--images", "0"], "--images 0 must be from 1 to 64"),
        (["--rho", "nan"], "--rho nan must be"),
        (["--gamma", "inf"], "--gamma inf must be"),
        (["--gamma", "-1"], "--gamma -1.0 must be"),
        (["--M", "x"], "argument --M: invalid int value: 'x'"),
        (["--seed", "-1"], "--seed -1 must be"),
        (["--imgs", "2"], "unrecognized"),
    ],
)
def test_wrong_arguments_are_a_line(argv, told, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["algorithm1.py", *argv])
    with pytest.raises(SystemExit) as leave:
        main()
    said = capsys.readouterr().err
    assert leave.value.code == 2 and said.count("\n") == 1 and told in said
