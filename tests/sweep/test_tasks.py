"""Tasks of a sweep: what is ready, what a failure leaves, and what is done again."""

import itertools
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from memorization_suite.commands.sweeps import tasks as sweep_tasks
from memorization_suite.commands.sweeps.jobs import DeviceLost
from memorization_suite.commands.sweeps.launch import Launch
from memorization_suite.commands.sweeps.record import read_record
from memorization_suite.commands.sweeps.sweep import begin, plan_sweep
from memorization_suite.commands.sweeps.tasks import MOST_STARTS, Tasks, open_tasks
from memorization_suite.commands.sweeps.work import work
from memorization_suite.runs import store
from memorization_suite.runs.claims import Claim
from memorization_suite.runs.holders import Holder
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
    names = [task.name for task in tasks_of(prompts_per_job=2).tasks]
    assert len(set(names)) == len(names) == 3 * 2 + 3 + 1
    assert all(re.fullmatch(r"[A-Za-z0-9_.+-]{1,150}", name) for name in names)
    words = {word for caption in CAPTIONS for word in re.findall(r"\w{3,}", caption)}
    assert not any(word in name for word in words for name in names)
    assert names[0].startswith("images_no_mitigation-g7_seed2_") and names[0].endswith("_1of2")


def test_names_stay_when_a_run_is_put_in_front(tasks_of, file):
    before = {task.name for task in tasks_of().tasks}
    file.write_text(file.read_text().replace("[0.7, 1]", "[0.1, 0.7, 1]"))
    assert before < {task.name for task in tasks_of().tasks}


def test_a_process_elsewhere_sees_the_same_tasks(tasks_of, made_up):
    tasks = tasks_of(prompts_per_job=2)
    other = open_tasks(tasks.out)
    assert other.tasks == tasks.tasks
    other.do(other.tasks[0])
    assert kinds(tasks)[:2] == ["done", "ready"]


def test_images_then_scores_then_the_page(tasks_of, made_up, capsys):
    tasks = tasks_of()
    assert kinds(tasks) == BEGUN
    first, *_, page = tasks.tasks
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
    scores = tasks.tasks[3]
    tasks.do(tasks.tasks[0])
    before = tasks.state(scores)
    tasks.do(scores)
    slow = open_tasks(tasks.out)
    with monkeypatch.context() as patch:
        patch.setattr(slow, "state", lambda task: before)
        assert slow.do(scores) is None
    assert made_up.notes.count("scores g7_seed2") == 1 and slow.state(scores).kind == "done"


def test_a_failure_is_noted_and_tried_again_by_the_next_command(tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    first = tasks.tasks[0]
    monkeypatch.setattr(sweep_tasks, "make_images", failing(OSError("no space left")))
    tasks.do(first)
    state = tasks.state(first)
    assert (state.kind, state.message, state.there) == ("failed", "no space left", 0)
    assert "Traceback" in (tasks.folder / "logs" / f"{first.name}.txt").read_text()
    assert tasks.do(first) is None and kinds(open_tasks(tasks.out))[0] == "failed"
    scores = tasks.state(tasks.tasks[3])
    assert (scores.kind, scores.message) == ("failed", "no space left")
    assert kinds(tasks_of()) == BEGUN


def test_what_is_no_fault_of_the_device_fails_the_task(tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    first = tasks.tasks[0]
    monkeypatch.setattr(sweep_tasks, "make_images", failing(RuntimeError("CUDA out of memory.\nX")))
    tasks.do(first)
    message = tasks.state(first).message
    assert message.startswith("RuntimeError: CUDA out of memory. Use a smaller --batch_size")


def test_a_broken_device_gives_its_task_back(tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    first = tasks.tasks[0]
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
    first = tasks.tasks[0]
    with monkeypatch.context() as patch:
        patch.setattr(sweep_tasks, "make_images", failing(KeyboardInterrupt()))
        for _ in range(MOST_STARTS + 2):
            with pytest.raises(KeyboardInterrupt):
                tasks.do(first)
    assert tasks.state(first).kind == "ready"
    assert tasks.do(first)["outcome"] == "done"


@pytest.mark.parametrize("notes", [True, False])
def test_a_task_whose_process_ends_again_and_again_is_given_up(
    tasks_of, made_up, monkeypatch, notes
):
    """Also where it notes so, as at the end of a job's time."""
    tasks = tasks_of()
    tasks.log = "worker.txt"
    first = tasks.tasks[0]
    monkeypatch.setattr(sweep_tasks, "make_images", failing(SystemExit()))
    if not notes:
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


@pytest.mark.parametrize("error", [FileNotFoundError("scontrol"), RuntimeError(), SystemExit()])
def test_what_happens_to_a_process_that_was_told_to_end_is_no_failure(
    tasks_of, made_up, monkeypatch, error
):
    tasks = tasks_of()
    first = tasks.tasks[0]
    tasks.is_ending = True
    monkeypatch.setattr(sweep_tasks, "make_images", failing(error))
    with pytest.raises(type(error)):
        tasks.do(first)
    assert tasks.claims.look(first.name).over["outcome"] == "stopped"


def test_a_page_that_lacks_a_run_is_written_again(tasks_of, made_up, monkeypatch):
    """A second command scores what failed in the first one, which writes its page meanwhile."""
    first = tasks_of()
    with monkeypatch.context() as patch:
        patch.setattr(sweep_tasks, "score_run", failing(OSError("no space left")))
        for task in first.tasks[:4]:
            first.do(task)
    for task in first.tasks[4:6]:
        first.do(task)
    write = sweep_tasks.write_page
    second = []

    def meanwhile(*args):
        second.append(tasks_of())
        return write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(sweep_tasks, "write_page", meanwhile)
        first.do(first.tasks[6])
    work(second[0])
    assert kinds(second[0]) == kinds(first) == DONE
    page = (first.out / "report.html").read_text()
    assert "no space left" not in page and first.claims.look("page").number == 2


def test_scores_of_another_command_make_the_page_new(tasks_of, made_up):
    first = tasks_of()
    work(first)
    other = open_tasks(first.out)
    other.claims.take(other.tasks[4].name).end(outcome="again")
    assert kinds(first)[4:] == ["ready", "done", "waiting"]
    other.do(other.tasks[4])
    assert kinds(first) == [*DONE[:-1], "ready"]


def test_where_more_is_told_is_a_whole_path(tasks_of, made_up, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tasks = Tasks(Path("out"), tasks_of().record)
    monkeypatch.setattr(sweep_tasks, "make_images", failing(OSError("no space left")))
    tasks.do(tasks.tasks[0])
    assert Path(tasks.state(tasks.tasks[0]).log).is_absolute()


def test_files_are_named_by_whole_paths_and_an_equal_record_stays(
    file, tmp_path, prompt_file, made_up, monkeypatch
):
    """Two commands typed in different folders are the same sweep."""
    records = []
    stamps = []
    text = file.read_text()
    for place, out in ((tmp_path, "out"), (tmp_path / "deep", "../out")):
        place.mkdir(exist_ok=True)
        monkeypatch.chdir(place)
        relative = os.path.relpath(prompt_file, place)
        file.write_text(text.replace(str(prompt_file), relative))
        begin(plan_sweep(file, Path(out)), Path(out), "x", scores=True, launch=Launch())
        records.append(read_record(tmp_path / "out"))
        stamps.append((tmp_path / "out" / "jobs" / "sweep.json").stat().st_ino)
    assert records[0] == records[1] and stamps[0] == stamps[1]
    assert records[0].runs[0].typed["prompts"] == str(prompt_file)
    monkeypatch.chdir("/")
    tasks = open_tasks(tmp_path / "out")
    assert tasks.plan_of(1).folder == tasks.folder_of(1).path
    work(tasks)
    assert kinds(tasks) == DONE


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
