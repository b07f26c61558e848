"""What a command says of its work on stderr, and the line at its end."""

import shlex

import pytest

from memorization_suite import ROOT
from memorization_suite.runs import progress
from memorization_suite.runs.progress import Progress, duration_text, each_text, next_step


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_ahead_and_after_the_first_batch(clock, capsys):
    with Progress("64 images of 16 prompts", 64, unit="image") as work:
        clock[0] = 2.0
        work.update(4)
        clock[0] = 4.0
        work.update(4)
    assert capsys.readouterr().err.splitlines() == [
        "64 images of 16 prompts",
        "about 30 s (0.50 s an image)",
    ]


def test_a_resumed_run_says_what_is_there(clock, capsys):
    with Progress("8 prompts", 8, unit="prompt", there=6) as work:
        clock[0] = 90.0
        work.update(1)
        work.update(1)
    assert capsys.readouterr().err.splitlines() == [
        "8 prompts; 6 are there already",
        "about 1 min 30 s (1 min 30 s a prompt)",
    ]


def test_without_a_terminal_a_line_now_and_then(clock, capsys):
    with Progress("x", 1000, unit="image") as work:
        for _ in range(1000):
            clock[0] += 1.0
            work.update(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[2] == "32 of 1000 images, about 16 min 8 s left"
    assert 5 <= len(lines) < 30 and "\r" not in "".join(lines)


def test_on_a_terminal_a_bar_and_the_same_lines(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("4 images", 4, unit="image") as work:
        clock[0] = 1.0
        work.update(2, nfe=100)
        work.update(2, nfe=100)
    said = capsys.readouterr().err
    assert "4 images\n" in said and "about 1 s (0.50 s an image)" in said
    assert "4/4" in said and "nfe=100" in said


def test_quiet_is_quiet(capsys):
    with Progress("x", 2, unit="image", quiet=True) as work:
        work.update(1)
        work.update(1)
    next_step(["python", "sweep.py"], quiet=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("full"), RuntimeError("bug")])
def test_an_error_carries_what_is_kept(tmp_path, error):
    with (
        pytest.raises(type(error)) as caught,
        Progress("x", 5, unit="image", there=1, place=tmp_path, quiet=True) as work,
    ):
        work.update(2)
        raise error
    (note,) = caught.value.__notes__
    assert note == f"3 of 5 images are kept in {tmp_path}. Rerun the command to resume."


def test_nothing_is_said_to_be_kept_where_nothing_is():
    with pytest.raises(OSError) as caught, Progress("x", 5, unit="image", quiet=True):
        raise OSError("full")
    assert not hasattr(caught.value, "__notes__")


def test_next_is_a_command_for_the_shell(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    next_step(["python", "metrics/summarize.py", "a run", "$(b)"])
    assert capsys.readouterr().err == "next: python metrics/summarize.py 'a run' '$(b)'\n"
    monkeypatch.chdir(tmp_path)
    next_step(["python", "make_report.py", tmp_path / "run", tmp_path.parent])
    words = shlex.split(capsys.readouterr().err)
    assert words == ["next:", "python", str(ROOT / "make_report.py"), "run", str(tmp_path.parent)]
    next_step(progress.to_open(tmp_path / "a page.html"))
    page = (tmp_path / "a page.html").as_uri()
    assert capsys.readouterr().err == f"next: python -m webbrowser {page}\n"
    next_step([])
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (260, "4 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


def test_a_unit_takes():
    assert each_text(0.414, "image") == "0.41 s an image"
    assert each_text(7.25, "prompt") == "7.2 s a prompt"


def test_without_a_bar_of_its_own(clock, capsys, monkeypatch):
    """For work whose parts have bars."""
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("88 images in 11 runs", 88, unit="image", drawn=False) as work:
        clock[0] = 40.0
        work.update(8)
        clock[0] = 80.0
        work.update(8)
    assert capsys.readouterr().err.splitlines() == [
        "88 images in 11 runs",
        "about 6 min 40 s (5.0 s an image)",
        "16 of 88 images, about 6 min left",
    ]
