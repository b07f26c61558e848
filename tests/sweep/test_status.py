"""`sweep.py FILE --status`, in every state, and without a heavy library."""

import json
import os
import subprocess
import sys
import time

import pytest

from memorization_suite import ROOT
from memorization_suite.commands.sweeps import jobs as sweep_jobs
from memorization_suite.commands.sweeps import status as sweep_status
from memorization_suite.commands.sweeps.status import read_status, status_of
from memorization_suite.commands.sweeps.work import work
from memorization_suite.sweep import main
from tests.test_quick_start import HEAVY

ELSEWHERE = {"host": "node7", "machine": "another", "user": 0, "pid": 12, "born": 0.0}


def held_elsewhere(tasks, run, *, silent=0.0, since="2026-01-01T00:00:00+00:00", **about):
    """The images of a run are held on another machine, not heard of for so many seconds."""
    tasks.claims.folder.mkdir(parents=True, exist_ok=True)
    file = tasks.claims.folder / f"{tasks.tasks[run].name}.1"
    file.write_text(json.dumps({"holder": ELSEWHERE, "since": since, **about}))
    then = time.time() - silent
    os.utime(file, (then, then))


def rows(tasks):
    """(state, images, message) of each run."""
    return [(row["state"], row["images"], row["message"]) for row in read_status(tasks.out).rows]


@pytest.fixture
def status(file, tmp_path, capsys):
    """status(): (exit code, lines) of the command."""

    def ask():
        code = main([str(file), "--output_path", str(tmp_path / "out"), "--status"])
        return code, capsys.readouterr().out.splitlines()

    return ask


def test_a_sweep_that_was_not_begun(status, tmp_path):
    code, lines = status()
    assert code == 0 and lines == [f"nothing was begun in {tmp_path / 'out'}"]


def test_every_state_of_a_run(tasks_of, made_up, status, monkeypatch, capsys):
    tasks = tasks_of()
    assert rows(tasks) == [("not begun", "0 of 8", "")] * 3
    first, _, third, scores, *_ = tasks.tasks
    tasks.do(first)
    assert rows(tasks)[0] == ("not scored", "8 of 8", "")
    tasks.do(scores)
    assert rows(tasks)[0] == ("done", "8 of 8", "")
    monkeypatch.setattr(sweep_jobs, "generate", lambda *a, **k: (tasks.out / "no").read_text())
    tasks.do(third)
    held_elsewhere(tasks, 1, place="cuda0", log="x.txt")
    capsys.readouterr()
    code, lines = status()
    assert code == 1 and len(lines) == 1 + 3 + 1
    assert " done " in lines[1]
    assert "running  0 of 8  cuda0, process 12 on node7, heard of 1 s ago" in lines[2]
    assert lines[2].endswith("x.txt")
    assert " failed " in lines[3] and "No such file or directory" in lines[3]
    assert lines[3].endswith(f"{third.name}.txt")
    assert lines[4] == "1 of 3 runs done, 8 of 24 images there, 1 failed"


def test_how_long_a_piece_still_takes_from_its_own_pace(tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    monkeypatch.setattr(made_up, "batch", lambda number: number == 1 and 1 / 0)
    tasks.do(tasks.tasks[1])
    for file in tasks.claims.folder.iterdir():
        file.unlink()
    ago = time.gmtime(time.time() - 60)
    held_elsewhere(tasks, 1, there=0, since=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", ago))
    state, images, message = rows(tasks)[1]
    assert (state, images) == ("running", "2 of 8") and "about 3 min" in message


def test_a_silent_holder_is_told_and_when_it_is_taken_for_dead(tasks_of, made_up):
    tasks = tasks_of()
    held_elsewhere(tasks, 1, silent=240)
    message = rows(tasks)[1][2]
    assert "heard of 4 min" in message and "taken for dead in 6 min" in message
    held_elsewhere(tasks, 1, silent=700)
    assert rows(tasks)[1][0] == "stopped"
    assert "process 12 on node7 is gone" in rows(tasks)[1][2]


def test_a_job_that_waits_in_the_queue(tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    folder = tasks.folder / "submitted"
    folder.mkdir()
    jobs = {task.name: f"41_{place}" for place, task in enumerate(tasks.tasks[:3])}
    (folder / "41.json").write_text(json.dumps(jobs))
    monkeypatch.setattr(sweep_status.slurm, "queued_jobs", lambda: {"41_1": "PENDING"})
    assert rows(tasks)[:2] == [
        ("not begun", "0 of 8", ""),
        ("in the queue", "0 of 8", "job 41_1 (pending)"),
    ]


def test_scores_and_the_page_have_their_states(tasks_of, made_up, monkeypatch):
    tasks = tasks_of()
    for task in tasks.tasks[:3]:
        tasks.do(task)
    claim = tasks.claims.take(tasks.tasks[3].name)
    assert rows(tasks)[0][0] == "being scored"
    claim.end(outcome="interrupted")
    work(tasks)
    assert rows(tasks) == [("done", "8 of 8", "")] * 3
    tasks.ask_again()
    (tasks.out / "report.html").unlink()
    claim = tasks.claims.take("page")
    claim.end(outcome="failed", message="no space left", log="page.txt")
    status = status_of(tasks)
    assert status.failed == 1 and status.rows[3]["run"] == "the page"


def test_it_is_quick(tasks_of, made_up, file, tmp_path):
    """Nothing heavy is imported, and nothing in the folder changes."""
    work(tasks_of())
    shadows = tmp_path / "shadows"
    shadows.mkdir()
    for name in HEAVY:
        (shadows / f"{name}.py").write_text("import os\nos._exit(99)\n")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    done = subprocess.run(
        [sys.executable, ROOT / "sweep.py", file, "--output_path", tmp_path / "out", "--status"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(shadows)},
    )
    assert done.returncode == 0 and done.stdout.endswith("24 of 24 images there, 0 failed\n")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
