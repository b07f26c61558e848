"""Several processes work on a sweep: each image is made once, and what the dead leave is taken."""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter

import pytest

from memorization_suite.commands.sweeps import jobs as sweep_jobs
from memorization_suite.commands.sweeps import tasks as sweep_tasks
from memorization_suite.commands.sweeps import work as sweep_work
from memorization_suite.commands.sweeps.cluster import note_submitted
from memorization_suite.commands.sweeps.launch import Launch
from memorization_suite.commands.sweeps.record import read_record
from memorization_suite.commands.sweeps.sweep import plan_sweep, sweep
from memorization_suite.commands.sweeps.tasks import open_tasks
from memorization_suite.commands.sweeps.work import work
from memorization_suite.runs import slurm
from tests.sweep import conftest
from tests.sweep.conftest import kinds, pictures

FORK = multiprocessing.get_context("fork")


def working(out, before=lambda: None):
    """A process that works on the sweep. before: what it calls first."""

    def go():
        before()
        work(open_tasks(out))

    process = FORK.Process(target=go)
    process.start()
    return process


@pytest.fixture
def one(tasks_of, made_up):
    """What one process makes: images, and tables of runs and of the page."""
    tasks = tasks_of("one")
    work(tasks)
    made_up.log.unlink()
    return tasks.out


def tables(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in [*out.rglob("images.csv"), *out.rglob("results.csv")]
    }


def assert_same(out, one):
    assert pictures(out) == pictures(one) and len(pictures(out)) == 24
    assert tables(out) == tables(one)


@pytest.mark.parametrize("pieces", [{}, {"prompts_per_job": 1}])
def test_two_workers_make_each_image_once(one, tasks_of, made_up, pieces):
    made_up.batch = lambda number: time.sleep(0.02)
    tasks = tasks_of(**pieces)
    workers = [working(tasks.out), working(tasks.out)]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert set(Counter(made_up.notes).values()) == {1} and len(made_up.notes) == 24 + 3
    assert set(kinds(tasks)) == {"done"}
    holders = {state.claim.holder.pid for state in tasks.states().values()}
    assert holders == {worker.pid for worker in workers}
    assert_same(tasks.out, one)


def test_the_run_of_a_killed_worker_is_taken_over(one, tasks_of, made_up):
    tasks = tasks_of()
    made_up.batch = lambda number: number == 2 and time.sleep(600)
    victim = working(tasks.out)
    while len(made_up.notes) < 6:
        time.sleep(0.01)
    assert kinds(tasks)[0] == "running"
    made_up.batch = lambda number: None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    work(tasks)
    assert set(kinds(tasks)) == {"done"}
    assert_same(tasks.out, one)
    again = {note: count for note, count in Counter(made_up.notes).items() if count > 1}
    assert again == {"g7_seed2 0002_00": 2, "g7_seed2 0002_01": 2}  # the batch that was not saved


def test_a_second_command_waits_and_says_for_whom(one, file, tasks_of, made_up, capfd):
    tasks = tasks_of()
    go_on = FORK.Event()
    made_up.batch = lambda number: go_on.wait(60)
    other = working(tasks.out)
    while not made_up.notes:
        time.sleep(0.01)
    made_up.batch = lambda number: None
    threading.Timer(0.5, go_on.set).start()
    outcome = sweep(plan_sweep(file, tasks.out, quiet=True), tasks.out)
    other.join(60)
    error = capfd.readouterr().err
    # Both commands write here; the other one may wait for this one's page.
    assert error.count(f"waiting for process {other.pid} on") == 1
    assert outcome.status.failed == 0 and outcome.page
    assert [note.startswith("scores") for note in made_up.notes].count(False) == 24
    assert_same(tasks.out, one)


@pytest.mark.parametrize(("taken", "pause"), [(0.01, 2.0), (0.5, 10.0), (9.0, 60.0)])
def test_looks_at_many_images_are_further_apart(taken, pause):
    assert sweep_work.pause_after(taken, 2.0) == pause


def test_other_runs_in_the_same_folder_are_refused_while_somebody_works(file, tasks_of, made_up):
    tasks = tasks_of()
    go_on = FORK.Event()
    made_up.batch = lambda number: go_on.wait(60)
    other = working(tasks.out)
    while not made_up.notes:
        time.sleep(0.01)
    with pytest.raises(ValueError, match=f"process {other.pid} on .* works on .*other pieces"):
        tasks_of(prompts_per_job=1)
    go_on.set()
    other.join(60)


def test_a_sweep_that_another_command_drives_stays_as_it_is(file, tasks_of, made_up):
    """Also between its jobs."""
    tasks = tasks_of()
    before = read_record(tasks.out)
    driving = tasks.claims.take("driver")
    tasks_of()
    file.write_text(file.read_text().replace("[0.7, 1]", "[0.7, 1, 2]"))
    with pytest.raises(ValueError, match="drives the sweep in .* with other runs"):
        tasks_of()
    assert read_record(tasks.out) == before
    driving.release()
    tasks_of()


def test_jobs_of_other_runs_that_wait_keep_their_sweep(file, tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    note_submitted(tasks.folder, {tasks.tasks[1].name: "41_0"})
    monkeypatch.setattr(slurm, "queued_jobs", lambda: {"41_0": "PENDING"})
    file.write_text(file.read_text().replace("[0.7, 1]", "1"))
    with pytest.raises(ValueError, match=r"job 41_0 \(pending\) works on"):
        tasks_of()
    monkeypatch.setattr(slurm, "queued_jobs", dict)
    assert len(tasks_of().record.runs) == 2


def test_a_run_that_nobody_closed_is_closed_at_the_end(file, tmp_path, made_up, monkeypatch):
    """As when its last process died after the last image, and nothing is scored."""
    monkeypatch.setattr(conftest, "close", lambda plan, folder: False)
    out = tmp_path / "out"
    sweep(plan_sweep(file, out, quiet=True), out, scores=False)
    tasks = open_tasks(out)
    assert all(tasks.folder_of(run).is_finished() for run in range(3))


def test_a_broken_device_gives_its_run_to_the_other(one, tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    made_up.batch = lambda number: time.sleep(0.02)

    def break_device():
        def fail(*args, **options):
            made_up.note("broken")
            raise RuntimeError("unspecified launch failure")

        monkeypatch.setattr(sweep_jobs, "generate", fail)
        monkeypatch.setattr(sweep_tasks, "works", lambda device: False)

    broken = working(tasks.out, break_device)
    healthy = working(tasks.out)
    broken.join(60)
    healthy.join(60)
    assert (broken.exitcode, healthy.exitcode) == (1, 0)
    assert made_up.notes.count("broken") == 1 and set(kinds(tasks)) == {"done"}
    assert_same(tasks.out, one)


def test_the_last_broken_device_ends_the_command(file, tasks_of, made_up, monkeypatch):
    tasks = tasks_of()

    def fail(*args, **options):
        raise RuntimeError("unspecified launch failure")

    monkeypatch.setattr(sweep_jobs, "generate", fail)
    monkeypatch.setattr(sweep_tasks, "works", lambda device: False)
    with pytest.raises(OSError, match="no device is left: cpu failed: .*launch failure"):
        sweep(plan_sweep(file, tasks.out, quiet=True), tasks.out)
    assert set(kinds(tasks)) == {"ready", "waiting"}


@pytest.mark.parametrize("order", [("1/2", "2/2"), ("2/2", "1/2")])
def test_pieces_one_after_the_other(one, file, tmp_path, made_up, order, capsys):
    out = tmp_path / "out"
    entries = plan_sweep(file, out, quiet=True)
    first = sweep(entries, out, launch=Launch(shard=order[0]))
    assert first.lacking == 12 and first.page is None and first.status.failed == 0
    assert len(made_up.notes) == 12
    last = sweep(entries, out, launch=Launch(shard=order[1]))
    assert last.lacking == 0 and last.page and len(made_up.notes) == 24 + 3
    assert_same(out, one)
