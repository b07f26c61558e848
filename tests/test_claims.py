"""Claims: one of several wins, the dead are found by what is known of them, the living never."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from memorization_suite.runs import claims as claims_module
from memorization_suite.runs import holders, slurm
from memorization_suite.runs.claims import FOLDER, SILENT, UNWRITTEN, Claims, alone
from memorization_suite.runs.holders import Holder, Queue

ELSEWHERE = {"host": "other", "machine": "other", "user": os.getuid(), "pid": 1, "born": 0.0}


@pytest.fixture
def claims(tmp_path, monkeypatch):
    monkeypatch.setattr(holders, "QUEUE", Queue())
    return Claims(tmp_path / "claims")


def left_by(claims, holder, *, name="work", number=1, silent=0.0):
    """A claim that another process made, not heard of for so many seconds."""
    claims.folder.mkdir(exist_ok=True)
    file = claims.folder / f"{name}.{number}"
    file.write_text(json.dumps({"holder": holder, "since": "2026-01-01T00:00:00+00:00"}))
    then = time.time() - silent
    os.utime(file, (then, then))


def ended_process():
    """The holder of a process of this machine that has ended."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        pid = process.pid
    return vars(replace(Holder.me(), pid=pid))


def test_one_at_a_time(claims):
    first = claims.take("work", images=3)
    assert first and claims.take("work") is None and claims.take("other")
    state = claims.look("work")
    assert state.is_held and state.about == {"images": 3} and state.holder == Holder.me()
    first.end(outcome="done")
    state = claims.look("work")
    assert not state.is_held and not state.is_dead and state.over["outcome"] == "done"
    second = claims.take("work")
    assert second.number == 2 and second.is_mine() and not first.is_mine()


def test_of_released_claims_the_last_is_kept(claims):
    """So that no number is used twice."""
    for number in (1, 2, 3):
        with claims.take("work") as claim:
            assert claims.look("work").is_held and claim.number == number
    assert sorted(file.name for file in claims.folder.iterdir()) == ["work.3", "work.3.over"]


def test_who_comes_late_with_a_past_number_gets_nothing_and_harms_nobody(claims):
    """It looked while a dead holder's number was the last; since then others came and went."""
    left_by(claims, ended_process())
    late = Claims(claims.folder)
    seen = claims.look("work")
    late.look = lambda name: seen
    claims.take("work").release()
    inside = claims.take("work")
    assert late.take("work") is None and inside.is_mine() and claims.take("work") is None


def test_one_that_was_taken_for_dead_is_told_and_blocks_nobody(claims, monkeypatch):
    first = claims.take("work")
    monkeypatch.setattr(Holder, "lives", lambda holder, seen: None)
    os.utime(first.path, (0, 0))
    second = claims.take("work")
    os.utime(first.path)  # it woke, and beats again
    with pytest.raises(OSError, match="another process took over"):
        first.check()
    first.release()
    assert second.is_mine() and claims.look("work").number == 2
    second.release()
    assert claims.take("work").number == 3


def test_a_process_of_this_machine_that_sleeps_is_alive(claims):
    claim = claims.take("work")
    os.utime(claim.path, (0, 0))
    assert claims.look("work").silent > SILENT and claims.look("work").is_held


def test_a_claim_whose_end_cannot_be_written_holds_nobody_up(claims, monkeypatch):
    def full(*arguments):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(claims_module, "write_json", full)
        with pytest.raises(OSError, match="no space"), claims.take("work"):
            pass
        with pytest.raises(KeyError), claims.take("work"):
            raise KeyError("the first fault is told")
    assert claims.take("work")


def test_what_cannot_be_written_is_no_claim(claims, monkeypatch):
    def full(*arguments, **options):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(claims_module.json, "dumps", full)
        with pytest.raises(OSError, match="no space"):
            claims.take("work")
    assert claims.take("work")


def test_the_queue_is_asked_once_for_all_that_was_read_before(claims, monkeypatch):
    asked = []
    monkeypatch.setattr(slurm, "queued_jobs", lambda: asked.append(1) or {})
    for number in range(5):
        left_by(claims, {**ELSEWHERE, "job": f"7_{number}"}, name=f"work{number}")
    states = claims.latest()
    assert all(states[f"work{number}"].is_dead for number in range(5)) and len(asked) == 1


def test_what_a_job_left_is_taken_over_at_once(claims, monkeypatch):
    monkeypatch.setattr(slurm, "queued_jobs", dict)
    left_by(claims, {**ELSEWHERE, "job": "7"})
    assert all(claims.look("work").is_dead for _ in range(3))
    assert claims.take("work").number == 2


def test_the_queue_is_not_asked_again_at_once(claims, monkeypatch):
    asked = []
    monkeypatch.setattr(slurm, "queued_jobs", lambda: asked.append(1) or {"7": "RUNNING"})
    left_by(claims, {**ELSEWHERE, "job": "7"})
    assert all(claims.take("work") is None for _ in range(5)) and len(asked) == 1


@pytest.mark.parametrize("silent", [0.0, SILENT - 60])
def test_a_holder_of_another_machine_lives_while_it_is_heard_of(claims, silent):
    left_by(claims, ELSEWHERE, silent=silent)
    assert claims.take("work") is None and claims.look("work").is_held


def test_a_silent_holder_is_dead(claims):
    left_by(claims, ELSEWHERE, silent=SILENT + 60)
    assert claims.look("work").is_dead
    assert claims.take("work").number == 2


@pytest.mark.parametrize(("silent", "dead"), [(0.0, False), (UNWRITTEN + 30, True)])
def test_a_file_that_stays_empty_is_of_a_process_that_was_killed_as_it_made_it(
    claims, silent, dead
):
    left_by(claims, ELSEWHERE, silent=silent)
    file = claims.folder / "work.1"
    times = file.stat().st_mtime
    file.write_text("")
    os.utime(file, (times, times))
    state = claims.look("work")
    assert state.is_dead == dead and "2 minutes" in state.until
    assert bool(claims.take("work")) == dead


def test_a_process_of_this_machine_that_is_gone_is_dead_at_once(claims):
    left_by(claims, ended_process())
    assert claims.look("work").is_dead and claims.take("work")


def test_an_id_that_was_used_again_is_another_process(claims):
    left_by(claims, vars(replace(Holder.me(), born=Holder.me().born - 100)))
    assert claims.look("work").is_dead


def test_the_queue_decides_of_slurm_jobs(claims, monkeypatch):
    for number, (job, queue, is_dead) in enumerate(
        [
            ("7_1", {"7_1": "RUNNING"}, False),
            ("7_1", {"7_1": "COMPLETING"}, False),
            ("7_1", {"7_1": "PENDING"}, True),  # it was put back
            ("7_1", {"7_1": "REQUEUE_HOLD"}, True),
            ("7_1", {"7_2": "RUNNING"}, True),
            ("7_1", None, False),  # squeue does not answer
        ]
    ):
        monkeypatch.setattr(holders, "QUEUE", Queue())
        monkeypatch.setattr(slurm, "queued_jobs", lambda queue=queue: queue)
        holder = {**ELSEWHERE, "job": job, "restarts": 0, "user": os.getuid()}
        left_by(claims, holder, name=f"work{number}")
        assert claims.look(f"work{number}").is_dead == is_dead, (job, queue)


@pytest.mark.parametrize(("state", "is_dead"), [("RUNNING", True), ("SUSPENDED", False)])
def test_of_a_job_that_runs_the_process_may_have_ended(claims, monkeypatch, state, is_dead):
    monkeypatch.setattr(slurm, "queued_jobs", lambda: {"7_1": state})
    left_by(claims, {**ELSEWHERE, "job": "7_1"}, silent=SILENT + 60)
    assert claims.look("work").is_dead == is_dead


def test_a_job_that_began_after_the_queue_was_asked_lives(claims, monkeypatch):
    monkeypatch.setattr(holders, "QUEUE_PAUSE", 0.0)
    answers = iter([{}, {"7_1": "RUNNING", "7_2": "RUNNING"}])
    monkeypatch.setattr(slurm, "queued_jobs", lambda: next(answers))
    left_by(claims, {**ELSEWHERE, "job": "7_1"})
    assert claims.look("work").is_dead
    left_by(claims, {**ELSEWHERE, "job": "7_2"}, name="later")
    assert claims.look("later").is_held


def test_another_users_queue_is_not_asked(claims, monkeypatch):
    monkeypatch.setattr(slurm, "queued_jobs", dict)
    left_by(claims, {**ELSEWHERE, "job": "7_1", "user": os.getuid() + 1})
    assert claims.look("work").is_held


def test_an_earlier_start_of_the_same_job_is_dead(claims, monkeypatch):
    left_by(claims, {**ELSEWHERE, "job": "7_1", "restarts": 0, "user": os.getuid()})
    monkeypatch.setattr(slurm, "my_job", lambda: "7_1")
    monkeypatch.setattr(slurm, "my_restarts", lambda: 1)
    assert claims.take("work")


def test_a_claim_that_is_being_written_is_held(claims):
    claims.folder.mkdir()
    (claims.folder / "work.1").touch()
    assert claims.take("work") is None and claims.look("work").holder is None


def test_a_holder_beats(claims, monkeypatch):
    monkeypatch.setattr(claims_module, "BEAT", 0.01)
    claim = claims.take("work")
    os.utime(claim.path, (0, 0))
    deadline = time.monotonic() + 20
    while claims.look("work").silent > SILENT and time.monotonic() < deadline:
        time.sleep(0.01)
    assert claims.look("work").silent < SILENT


def test_of_many_that_find_a_dead_holder_one_wins(claims):
    left_by(claims, ELSEWHERE, silent=SILENT + 60)
    won = []
    start = threading.Barrier(8)

    def take():
        start.wait()
        won.append(claims.take("work"))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in won) == 1


def count_up(folder, times):
    """Adds to a number in a file, by reading and writing."""
    for _ in range(times):
        with alone(folder, "number"):
            file = folder / "number"
            file.write_text(str(int(file.read_text()) + 1))


def test_what_is_done_alone_loses_nothing(tmp_path):
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count_up, args=(tmp_path, 25)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "number").read_text() == "75"
    assert len(list((tmp_path / FOLDER.format("number")).iterdir())) == 2


def test_a_turn_after_a_killed_process_comes_at_once(tmp_path):
    left_by(Claims(tmp_path / FOLDER.format("tables")), ended_process(), name="tables")
    start = time.monotonic()
    with alone(tmp_path, "tables"):
        pass
    assert time.monotonic() - start < 60


def test_the_last_of_some_work_leaves_no_trace(tmp_path):
    with alone(tmp_path, "tables"):
        pass
    assert any(tmp_path.iterdir())
    with alone(tmp_path, "tables", closing=True):
        pass
    assert not any(tmp_path.iterdir())


def test_who_waits_for_the_last_of_some_work_begins_anew(tmp_path, monkeypatch):
    """It was about to make the next number when the folder went."""
    made = threading.Event()
    claims = Claims(tmp_path / FOLDER.format("tables"))
    late = Claims(claims.folder)
    with alone(tmp_path, "tables"):
        pass
    seen = late.look("tables")
    with alone(tmp_path, "tables", closing=True):
        pass
    with alone(tmp_path, "tables") as claim:
        monkeypatch.setattr(late, "look", lambda name: made.set() or seen)
        assert late.take("tables") is None and made.is_set()
        assert claim.is_mine()


def test_of_two_that_close_nobody_is_disturbed(tmp_path):
    ended = []

    def close():
        for _ in range(20):
            with alone(tmp_path, "tables", closing=True) as claim:
                claim.check()
            ended.append(1)

    threads = [threading.Thread(target=close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 80 and not any(tmp_path.iterdir())


def test_waiting_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(claims_module, "PATIENCE", 0.05)
    claims = Claims(tmp_path / FOLDER.format("tables"))
    held = claims.take("tables")
    threading.Timer(0.5, held.release).start()
    with alone(tmp_path, "tables"):
        pass
    error = capsys.readouterr().err
    assert f"waiting for process {os.getpid()}" in error
    assert f"ends when process {os.getpid()} ends" in error
