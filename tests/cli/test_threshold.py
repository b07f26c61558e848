"""`detect_memorization.py calibrate threshold`: a score that few ordinary images exceed."""

import math

import pytest
import torch

from memorization_suite import calibrate
from memorization_suite.commands.calibrate import limit, threshold
from memorization_suite.detect_memorization import main
from memorization_suite.runs.digits import just_above
from memorization_suite.runs.files import write_csv, write_json


def scores(path, ordinary, memorized=()):
    rows = [
        {"set": name, "prompt_index": i, "prompt": "x", "sample_index": 0, "score": score}
        for name, some in (("mem", memorized), ("nonmem", ordinary))
        for i, score in enumerate(some)
    ]
    write_csv(path, rows)


@pytest.mark.parametrize(("fpr", "above"), [(0.0, 0), (0.01, 1), (0.05, 5), (0.5, 50), (0.999, 99)])
def test_at_most_the_wanted_share_is_above(fpr, above):
    found = [float((37 * i) % 100) for i in range(100)]
    assert sum(score > limit(found, fpr) for score in found) == above


def test_ties_never_exceed_the_share():
    assert limit([1.0, 2.0, 2.0, 2.0, 2.0], 0.5) == 2.0


def test_the_command_prints_the_flag(tmp_path, capsys):
    folder = tmp_path / "noise_norm"
    folder.mkdir()
    scores(folder / "scores.csv", [0.1 * i for i in range(100)] + [float("nan")], [5.0, 20.0])
    assert main(["calibrate", "threshold", str(folder), "--fpr", "0.05"]) == 0
    out = capsys.readouterr().out
    assert "50.0% of 2 memorized images" in out and out.endswith("--screen noise_norm:9.405\n")
    found = threshold(folder / "scores.csv", fpr=0.05)
    assert found.value == 9.405 and f"{found}\n" == out


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("spread", [1e-6, 1e-3, 1.0], ids=["near", "usual", "wide"])
def test_typed_back_it_keeps_the_rate(tmp_path, fpr, spread):
    """At screening scores are float32 as they were computed, and so is the threshold, which is
    compared with them; scores.csv has seven digits of them.
    """
    draw = torch.Generator().manual_seed(0)
    computed = 1.54 + spread * torch.randn(288, generator=draw)
    stored = [f"{score:.7g}" for score in computed.tolist()]
    scores(tmp_path / "scores.csv", stored, ["1.7"])
    typed = str(threshold(tmp_path, fpr=fpr)).rpartition(":")[2]
    above = int((computed > float(typed)).sum())
    assert above <= math.floor(fpr * 288)
    if spread == 1.0:
        assert above == math.floor(fpr * 288)
        # Another batch size moves scores a little, too.
        moved = computed * (1 + 1e-6 * torch.randn(288, generator=draw))
        assert int((moved > float(typed)).sum()) == above


@pytest.mark.parametrize(
    ("score", "larger", "typed"),
    [
        (1.541193, 1.5472, "1.542"),
        (1.541193, None, "1.542"),
        (1.541193, 1.541194, "1.5411935"),  # neighbors
        (1.5411901, 1.5411902, "1.5411901"),  # nearer than half a unit
        (-3.2, -3.1, "-3.198"),
        (0.0, 0.5, "0.0"),
        (2e-12, None, "2.001e-12"),
    ],
)
def test_a_threshold_has_few_digits(score, larger, typed):
    assert repr(just_above(score, larger)) == typed


def test_infinite_scores_are_above(tmp_path, capsys):
    scores(tmp_path / "scores.csv", [*range(98), "inf", "inf"], ["inf"])
    assert main(["calibrate", "threshold", str(tmp_path), "--fpr", "0.02"]) == 0
    assert "2.0% of 100 ordinary images, 100.0% of 1 memorized" in capsys.readouterr().out
    assert main(["calibrate", "threshold", str(tmp_path)]) == 2
    assert "2 of 100 scores of ordinary images are infinite" in capsys.readouterr().err


def with_config(folder, **config):
    """Scores in a folder, with what made them."""
    folder.mkdir(parents=True)
    scores(folder / "scores.csv", [0.1 * i for i in range(100)])
    made = {"model_id": "tiny", "detector": folder.name, "scheduler": "keep"}
    made |= {"num_inference_steps": 50, "guidance_scale": 7.5, "image_length": 32, "dtype": "fp32"}
    write_json(folder / "config.json", made | config)
    return threshold(folder)


def test_what_follows_samples_as_the_scores_were(tmp_path):
    """A first step does not know the guidance; later ones do."""
    first = with_config(tmp_path / "noise_norm", num_steps=1)
    assert "--guidance_scale=7.5" not in first.following
    later = with_config(tmp_path / "noise_norm_all", num_inference_steps=20, scheduler="ddim")
    flags = {"--guidance_scale=7.5", "--num_inference_steps=20", "--scheduler=ddim"}
    assert flags <= set(later.following) and not later.unlike


def test_a_detectors_settings_that_screen_would_not_have_are_said(tmp_path):
    found = with_config(tmp_path / "noise_norm", num_steps=3)
    assert "num_steps 3, not 1 as --screen has it" in str(found)
    assert "put num_steps = 3 below [noise_norm] into a file for --preset" in str(found)
    assert str(found).endswith(f"--screen noise_norm:{found.value}") and not found.following


def test_scores_of_a_model_that_is_not_here(tmp_path):
    """As those that were copied from a cluster: the threshold needs none of it."""
    found = with_config(tmp_path / "noise_norm", model_id="/gone/model", num_steps=1)
    assert str(found).endswith(f"--screen noise_norm:{found.value}") and not found.following


def test_the_former_command_does_the_same(tmp_path, capsys):
    """And says in a line what to type now."""
    scores(tmp_path / "scores.csv", [0.1 * i for i in range(100)])
    assert main(["calibrate", "threshold", str(tmp_path), "--quiet"]) == 0
    now = capsys.readouterr()
    assert calibrate.main(["threshold", str(tmp_path), "--quiet"]) == 0
    former = capsys.readouterr()
    assert former.out == now.out and not now.err
    assert former.err.count("\n") == 1
    assert f"python detect_memorization.py calibrate threshold {tmp_path} --quiet\n" in former.err


def test_wrong_input_is_refused(tmp_path, capsys):
    scores(tmp_path / "scores.csv", [], [1.0])
    for argv, told in (
        ([str(tmp_path)], "no scores of ordinary prompts"),
        ([str(tmp_path / "nothing.csv")], "is no scores.csv"),
        ([str(tmp_path), "--fpr", "1"], "--fpr 1 is no share"),
    ):
        assert main(["calibrate", "threshold", *argv]) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
