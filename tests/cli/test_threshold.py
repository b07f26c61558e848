"""`detect_memorization.py calibrate threshold`: a score that few ordinary images exceed."""

import pytest

from memorization_suite import calibrate
from memorization_suite.commands.calibrate import limit, threshold
from memorization_suite.detect_memorization import main
from memorization_suite.runs.files import write_csv


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
    assert "50.0% of 2 memorized images" in out and out.endswith("--screen noise_norm:9.4\n")
    found = threshold(folder / "scores.csv", fpr=0.05)
    assert found.value == pytest.approx(9.4) and f"{found}\n" == out


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
