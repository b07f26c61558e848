"""What libraries warn of: a plain line on stderr, once in a job, also from threads and from
processes that work for another one.
"""

import logging
import threading
import warnings

import pytest

from memorization_suite.runs import library_warnings, notices
from memorization_suite.runs.cli import command
from memorization_suite.runs.library_warnings import PASSED_OVER, PROUD, heard, reading


@pytest.fixture
def said(capsys):
    """said(): the lines on stderr since the last time."""
    return lambda: capsys.readouterr().err.splitlines()


@pytest.fixture(params=[*PROUD, "timm"])
def library(request):
    """A library's logger with a handler of its own, as the libraries have it. timm has none."""
    logger = logging.getLogger(request.param)
    before = logger.handlers[:], logger.propagate, logger.level
    logger.handlers[:] = []
    logger.setLevel(logging.WARNING)
    if request.param in PROUD:
        logger.addHandler(logging.StreamHandler())
        logger.propagate = False
    yield request.param
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


def test_a_logged_warning_is_one_line_said_once(library, said):
    logger = logging.getLogger(f"{library}.models.part")
    with heard():
        for number in (3, 4, 3):
            logger.warning("\x1b[31mThe key\x1b[0m is\n  not used (%d times)", number)
        logger.info("nothing")
        logger.error("worse")
    assert said() == [f"{library}: The key is not used (3 times)", f"{library}: worse"]


def test_a_library_that_is_imported_meanwhile(said):
    """Its own handler is then behind ours."""
    logger = logging.getLogger("huggingface_hub")
    with heard():
        handler = logging.StreamHandler()
        logger.addHandler(handler)
        logger.warning("retrying")
    assert said() == ["huggingface_hub: retrying"]
    logger.warning("again")
    assert "again" in said()
    logger.removeHandler(handler)


def test_what_a_library_says_of_less_than_a_warning_goes_on(said):
    """Somebody asked for it with TRANSFORMERS_VERBOSITY=info."""
    logger = logging.getLogger("transformers")
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    level, logger.level = logger.level, logging.INFO
    with heard():
        logger.info("loading")
    assert any("loading" in line for line in said())
    logger.removeHandler(handler)
    logger.level = level


def warn(text: str, category: type = UserWarning, file: str = "PIL/Image.py") -> None:
    warnings.warn_explicit(text, category, f"/env/lib/python3.11/site-packages/{file}", 1)


def test_warnings_of_python_are_told_whose_they_are(said):
    with heard():
        warn("Corrupt EXIF data.  Expecting to read 4 bytes but only got 2.")
        warn("Corrupt EXIF data.  Expecting to read 4 bytes but only got 0.")
        warn("a\nb (Triggered internally at /pytorch/aten/a.cpp:4.)", file="torch/functional.py")
        warn("old", FutureWarning, "clip.py")
        warn("for programmers", DeprecationWarning)
        warnings.warn_explicit(
            "invalid value", RuntimeWarning, str(library_warnings.ROOT / "metrics" / "fid.py"), 1
        )
    assert said() == [
        "PIL: Corrupt EXIF data. Expecting to read 4 bytes but only got 2.",
        "torch: a b",
        "clip: old",
        "metrics/fid.py: invalid value",
    ]


def test_the_file_that_is_read_is_named(said):
    with heard(), reading("gt/0/00.png"):
        warn("Palette images with Transparency expressed in bytes")
    assert said() == ["PIL: Palette images with Transparency expressed in bytes (gt/0/00.png)"]


def test_a_long_one_is_shortened(said):
    with heard():
        warn("x" * 1100)
        warn(f"The scheduler {{ {'y' * 100} }} is outdated", file="diffusers/a.py")
    assert said() == [
        f"PIL: {'x' * 1000}... (and 100 more characters)",
        "diffusers: The scheduler {...} is outdated",
    ]


@pytest.mark.parametrize("beginning", PASSED_OVER)
def test_what_does_not_concern_the_user(said, beginning):
    with heard():
        warn(f"{beginning} and so on")
        logging.getLogger("diffusers").warning(f"{beginning} and so on")
    assert not said()


def test_threads_are_heard(said):
    with heard():
        threads = [threading.Thread(target=warn, args=("x",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert said() == ["PIL: x"]


def test_a_job_in_a_job_says_nothing_twice(said):
    @library_warnings.hearing
    def work() -> int:
        warn("x")
        notices.say("three captions are cut")
        return 7

    with heard():
        assert work() + work() == 14
        assert said() == ["PIL: x", "three captions are cut"]
    work()
    assert said() == ["PIL: x", "three captions are cut"]


def test_of_processes_that_were_launched_together_one_speaks(said, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    notices.say("a line")
    monkeypatch.setenv("RANK", "0")
    notices.say("another line")
    assert said() == ["another line"]


def test_commands_hear_and_leave_everything_as_it_was(said):
    before = warnings.showwarning, logging.getLogger().handlers[:]

    def fails() -> int:
        warn("x")
        raise ValueError("no such file")

    assert command("generate_images.py", fails) == 2
    assert said() == ["PIL: x", "generate_images.py: no such file"]
    assert (warnings.showwarning, logging.getLogger().handlers[:]) == before


def test_who_watches_other_processes_says_what_they_say(tmp_path, said):
    """Each line once, and nothing of an earlier time; a line that is not whole yet waits."""
    file = tmp_path / notices.FILE
    with heard(file):
        warn("of an earlier time")
    relay = notices.Relay(file)
    for _ in range(2):
        with heard(file):
            warn("x")
    said()
    with heard():
        with open(file, "a") as opened:
            opened.write("torch: half")
        relay.say()
        assert said() == ["PIL: x"]
        notices.keep(" a line", file)
        relay.say()
    assert said() == ["torch: half a line"]
