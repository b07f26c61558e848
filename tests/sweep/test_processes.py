"""`--jobs N`: a process each, which ends with its driver, and whose task goes to another when it
dies.
"""

import re
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest

from memorization_suite import ROOT
from memorization_suite.commands.sweeps import sweep as sweep_module
from memorization_suite.commands.sweeps.record import read_record
from memorization_suite.commands.sweeps.tasks import Tasks
from memorization_suite.commands.sweeps.work import work
from memorization_suite.sweep import main
from tests.sweep.conftest import pictures

# Stands for generation and scoring in every process of the sweep. What a worker does with its
# first batch is the text of a file, which is done once.
PLUGIN = '''
import os, signal, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from memorization_suite.commands import settings
from memorization_suite.commands.sweeps import jobs as sweep_jobs, work as sweep_work
from memorization_suite.mitigation.base import Mitigation, register
from tests.sweep.conftest import MadeUp

@register("of_the_test", paper="none")
class OfTheTest(Mitigation):
    """A plugin registers something."""

made_up = MadeUp(Path({log!r}))
def batch(number):
    try:
        os.rename({once!r}, {once!r} + ".done")
    except FileNotFoundError:
        return
    exec(Path({once!r} + ".done").read_text())
made_up.batch = batch
sweep_jobs.generate = made_up.generate
sweep_jobs.score = made_up.score
sweep_work.PAUSE = 0.1
settings.choose_device = str  # which imports torch
'''


@pytest.fixture
def plugin(tmp_path, made_up):
    """The words of the flag."""
    file = tmp_path / "stand_in.py"
    once = str(tmp_path / "once.txt")
    file.write_text(PLUGIN.format(root=str(ROOT), log=str(made_up.log), once=once))
    return ["--plugin", str(file)]


@pytest.fixture
def command(file, tmp_path, plugin):
    """The words of a sweep in two processes."""
    words = [sys.executable, str(ROOT / "sweep.py"), str(file), *plugin, "--jobs", "2", "--quiet"]
    return [*words, "--output_path", str(tmp_path / "out")]


@pytest.fixture
def one(tasks_of, made_up):
    """Pictures of one process."""
    tasks = tasks_of("one")
    work(tasks)
    made_up.log.unlink()
    return pictures(tasks.out)


def ended(pids, seconds=20):
    """Whether these processes end within so many seconds."""
    limit = time.monotonic() + seconds
    while any(psutil.pid_exists(pid) for pid in pids):
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def begun(once, driver):
    """The workers of a driver, when one is at what it does once."""
    while once.exists():
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.05)
    return [child.pid for child in psutil.Process(driver.pid).children()]


def test_a_worker_that_dies_is_replaced_and_its_run_goes_on(command, tmp_path, made_up, one):
    (tmp_path / "once.txt").write_text("os.kill(os.getpid(), signal.SIGKILL)")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ended with code -9 (" in done.stderr
    assert "3 of 3 runs done, 24 of 24 images there, 0 failed" in done.stdout
    # Which runs are seen at work depends on when it looks.
    assert re.search(r"^\[\d/3\] .*: worker\d, process ", done.stdout, re.M)
    assert pictures(tmp_path / "out") == one
    assert sum(count > 1 for count in Counter(made_up.notes).values()) == 2  # one batch
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("(nothing to make)") == 3


@pytest.fixture
def interruptible():
    """Children take SIGINT, which a shell switches off for what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_driver(command, tmp_path, one, sent, interruptible):
    once = tmp_path / "once.txt"
    once.write_text("time.sleep(600)")
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    workers = begun(once, driver)
    assert len(workers) == 2
    driver.send_signal(sent)
    _, error = driver.communicate()
    assert ended(workers)
    if sent == signal.SIGINT:
        assert driver.returncode == 1 and "interrupted. What is finished is kept." in error
    tasks = Tasks(tmp_path / "out", read_record(tmp_path / "out"))
    assert not any(state.kind == "running" for state in tasks.states().values())
    work(tasks)
    assert pictures(tmp_path / "out") == one


def test_when_no_worker_lives_it_is_said(command, tmp_path, made_up):
    (tmp_path / "stand_in.py").write_text(
        (tmp_path / "stand_in.py").read_text() + "\nif 'worker' in sys.argv[0]: os._exit(7)\n"
    )
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "no device is left: see " in done.stderr
    assert done.stderr.count("ended with code 7") == 2 * 3 and not made_up.notes


def test_a_prompt_file_that_vanishes(file, tmp_path, made_up, prompt_file, monkeypatch, capsys):
    """Of one run, after all was checked: the others are made, scored and on the page."""
    moved = tmp_path / "vanishing.txt"
    moved.write_text("a lone wolf\n")
    text = file.read_text().replace('prompts = "', 'prompts = ["').replace('.txt"', '.txt"]', 1)
    file.write_text(text + f'\n[[run]]\nmethod = "no_mitigation"\nprompts = "{moved}"\n')
    check = sweep_module.check_folders

    def vanish(*args, **options):
        check(*args, **options)
        moved.unlink(missing_ok=True)

    monkeypatch.setattr(sweep_module, "check_folders", vanish)
    words = [str(file), "--output_path", str(tmp_path / "out")]
    assert main([*words, "--quiet"]) == 1
    out, error = capsys.readouterr()
    line = next(line for line in out.splitlines() if "vanishing.txt" in line and " failed " in line)
    assert "0 of 2" in line and "No such file" in line and line.endswith(".txt")
    assert "3 of 4 runs done, 24 of 26 images there, 1 failed" in out
    assert error.count("failed: ") == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Runs that failed" in page and "No such file" in page
    assert main([*words, "--status"]) == 1
    assert line in capsys.readouterr().out
    # The next command too, after a picture of another run was lost.
    next((tmp_path / "out").rglob("batch_wise/*/img_0000_00.png")).unlink()
    assert main([*words, "--quiet"]) == 1
    out, error = capsys.readouterr()
    assert "3 of 4 runs done, 24 of 26 images there, 1 failed" in out
    assert "the other runs go on" in error and "vanishing.txt" in error
    # But no run with other flags, and no first command.
    assert main([*words, "--quiet", "--num_inference_steps", "5"]) == 2
    assert main([words[0], "--quiet", "--output_path", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()
