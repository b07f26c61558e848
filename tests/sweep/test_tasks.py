"""Tasks of a sweep: what is ready, what a failure leaves, and what is done again."""

import itertools
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from memorization_suite.commands.sweeps import tasks as sweep_tasks
from memorization_suite.commands.sweeps.jobs import DeviceLost
from memorization_suite.commands.sweeps.tasks import MOST_STARTS, open_tasks
from memorization_suite.commands.sweeps.work import work
from memorization_suite.runs import store
from memorization_suite.runs.claims import Claim, Holder
from tests.sweep.conftest import CAPTIONS, kinds

BEGUN = ["ready"] * 3 + ["waiting"] * 4
DONE = ["done"] * 7


def failing(error):
    """A stand-in that raises it."""

    def fail(*args, **typed):
        raise error

    return fail


def gone(monkeypatch):
    """Claims that are made now look as if their process had ended."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        pid = process.pid
    holder = replace(Holder.me(), pid=pid)
    monkeypatch.setattr(Holder, "me", classmethod(lambda cls: holder))
    monkeypatch.setattr(Claim, "beat", lambda self: None)


def test_names_are_for_files_and_hold_no_prompt(tasks_of, file):
    names = [task.name for task in tasks_of(prompts_per_job=2).all()]
    assert len(set(names)) == len(names) == 3 * 2 + 3 + 1
    assert all(re.fullmatch(r"[A-Za-z0-9_.+-]{1,150}", name) for name in names)
    words = {word for caption in CAPTIONS for word in re.findall(r"\w{3,}", caption)}
    assert not any(word in name for word in words for name in names)
    assert names[0].startswith("images_no_mitigation-g7_seed2_") and names[0].endswith("_1of2")


def test_names_stay_when_a_run_is_put_in_front(tasks_of, file):
    before = {task.name for task in tasks_of().all()}
    file.write_text(file.read_text().replace("[0.7, 1]", "[0.1, 0.7, 1]"))
    assert before < {task.name for task in tasks_of().all()}


def test_a_process_elsewhere_sees_the_same_tasks(tasks_of, made_up):
    tasks = tasks_of(prompts_per_job=2)
    other = open_tasks(tasks.out)
    assert other.all() == tasks.all()
    other.do(other.all()[0])
    assert kinds(tasks)[:2] == ["done", "ready"]


def test_images_then_scores_then_the_page(tasks_of, made_up, capsys):
    tasks = tasks_of()
    assert kinds(tasks) == BEGUN
    first, *_, page = tasks.all()
    assert tasks.do(page) is None
    tasks.do(first)
    assert kinds(tasks)[:4] == ["done", "ready", "ready", "ready"]
    work(tasks)
    assert kinds(tasks) == DONE and len(made_up.notes) == 24 + 3
    out, error = capsys.readouterr()
    assert out.index("[3/3]") < out.index("[1/3] scores of") and error.count("a note") == 1
    assert tasks.do(first) is None and kinds(tasks_of()) == [*DONE[1:], "ready"]


def test_what_ended_between_a_look_and_a_claim_is_not_done_twice(tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    scores = tasks.all()[3]
    tasks.do(tasks.all()[0])
    before = tasks.state(scores)
    tasks.do(scores)
    slow = open_tasks(tasks.out)
    with monkeypatch.context() as patch:
        patch.setattr(slow, "state", lambda task: before)
        assert slow.do(scores) is None
    assert made_up.notes.count("scores g7_seed2") == 1 and slow.state(scores).kind == "done"


def test_a_failure_is_noted_and_tried_again_by_the_next_command(tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    first = tasks.all()[0]
    monkeypatch.setattr(sweep_tasks, "make_images", failing(OSError("no space left")))
    tasks.do(first)
    state = tasks.state(first)
    assert (state.kind, state.message, state.there) == ("failed", "no space left", 0)
    assert "Traceback" in (tasks.folder / "logs" / f"{first.name}.txt").read_text()
    assert tasks.do(first) is None and kinds(open_tasks(tasks.out))[0] == "failed"
    scores = tasks.state(tasks.all()[3])
    assert (scores.kind, scores.message) == ("failed", "no space left")
    assert kinds(tasks_of()) == BEGUN


def test_what_is_no_fault_of_the_device_fails_the_task(tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    first = tasks.all()[0]
    monkeypatch.setattr(sweep_tasks, "make_images", failing(RuntimeError("CUDA out of memory.\nX")))
    tasks.do(first)
    message = tasks.state(first).message
    assert message.startswith("RuntimeError: CUDA out of memory. Use a smaller --batch_size")


def test_a_broken_device_gives_its_task_back(tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    first = tasks.all()[0]
    with monkeypatch.context() as patch:
        patch.setattr(sweep_tasks, "make_images", failing(RuntimeError("unspecified failure")))
        patch.setattr(sweep_tasks, "works", lambda device: False)
        with pytest.raises(DeviceLost, match="cpu failed: RuntimeError: unspecified failure"):
            tasks.do(first)
    assert tasks.state(first).kind == "ready"
    open_tasks(tasks.out).do(first)
    assert tasks.state(first).kind == "done"


def test_an_interrupted_task_is_ready_however_often(tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    first = tasks.all()[0]
    with monkeypatch.context() as patch:
        patch.setattr(sweep_tasks, "make_images", failing(KeyboardInterrupt()))
        for _ in range(MOST_STARTS + 2):
            with pytest.raises(KeyboardInterrupt):
                tasks.do(first)
    assert tasks.state(first).kind == "ready"
    assert tasks.do(first)["outcome"] == "done"


def test_a_task_whose_process_ends_again_and_again_is_given_up(tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    tasks.log = "worker.txt"
    first = tasks.all()[0]
    monkeypatch.setattr(sweep_tasks, "make_images", failing(SystemExit()))
    monkeypatch.setattr(Claim, "end", lambda self, **facts: None)
    gone(monkeypatch)
    for _ in range(MOST_STARTS):
        with pytest.raises(SystemExit):
            tasks.do(first)
    assert tasks.state(first).kind == "ready"
    monkeypatch.undo()
    tasks.do(first)
    state = tasks.state(first)
    assert (state.kind, state.log) == ("failed", "worker.txt")
    assert state.message.startswith("its process ended 3 times in a row without a new image")


def test_runs_are_scored_again_when_asked_or_when_their_images_changed(
    tasks_of, made_up, monkeypatch
):
    seconds = itertools.count()
    monkeypatch.setattr(store, "now", lambda: f"2026-01-01T00:00:{next(seconds):02d}+00:00")
    work(tasks_of())
    tasks = tasks_of()
    tasks.ask_again(rescore=True)
    assert kinds(tasks) == ["done"] * 3 + ["ready"] * 3 + ["waiting"]
    work(tasks)
    (tasks.folder_of(1).path / "results.csv").unlink()
    (tasks.folder_of(2).path / "img_0000_00.png").unlink()
    tasks = tasks_of()
    assert kinds(tasks) == ["done", "done", "ready", "done", "ready", "waiting", "waiting"]
    work(tasks)
    assert kinds(tasks) == DONE and len(made_up.notes) == 24 + 3 + 3 + 1 + 2
