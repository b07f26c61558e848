"""What Slurm is told and what it says, without a Slurm: the pairs of --slurm, the lines of squeue,
and the driver on a stand-in for the cluster.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from memorization_suite import ROOT
from memorization_suite.commands.sweeps import cluster, driver
from memorization_suite.commands.sweeps.cluster import (
    Cluster,
    Refused,
    TaskJob,
    array_of,
    note_submitted,
)
from memorization_suite.commands.sweeps.driver import drive
from memorization_suite.commands.sweeps.record import Member, Record
from memorization_suite.commands.sweeps.task import Task, TaskState
from memorization_suite.commands.sweeps.tasks import Look, Tasks
from memorization_suite.runs import slurm
from memorization_suite.runs.holders import Holder

# --- what Slurm is told


@pytest.fixture
def with_tools(monkeypatch):
    """As on a machine of a cluster."""
    monkeypatch.setattr(cluster, "check_tools", lambda: None)


def told(tmp_path: Path, *pairs: str, after=(), jobs=2) -> str:
    """The script that sbatch would get for an array of two."""
    submitit_slurm = pytest.importorskip("submitit.slurm.slurm")
    parameters = Cluster(tmp_path, pairs, jobs).parameters("sweep_images", after)
    make = submitit_slurm._make_sbatch_string
    return make("work", tmp_path, map_count=2, **parameters)


def test_every_pair_is_an_option_of_sbatch(with_tools, tmp_path):
    script = told(tmp_path, "partition=gpu", "slurm_gpus_per_node=1", "--mem=8G", "gres=gpu:a:2")
    for line in ("partition=gpu", "gpus-per-node=1", "mem=8G", "gres=gpu:a:2", "time=04:00:00"):
        assert f"#SBATCH --{line}\n" in script
    assert "#SBATCH --array=0-1%2\n" in script and "#SBATCH --requeue\n" in script
    assert "#SBATCH --job-name=sweep_images\n" in script
    assert "gpu" not in told(tmp_path)


def test_a_typed_value_wins_and_true_is_a_flag(with_tools, tmp_path):
    script = told(tmp_path, "time=2-00:00:00", "exclusive=true", "signal_delay_s=30")
    assert "--time=2-00:00:00\n" in script and "04:00:00" not in script
    assert "#SBATCH --exclusive\n" in script and "--signal=USR2@30\n" in script


def test_jobs_find_the_suite_and_what_else_the_user_set(with_tools, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/a b")
    script = told(tmp_path, "setup=module load cuda")
    assert f"export PYTHONPATH='{ROOT}:/a b'\n" in script
    assert script.index("export PYTHONPATH") < script.index("module load cuda")
    assert sys.executable in cluster.submitit.SlurmExecutor(tmp_path).python


def test_an_array_waits_for_others_however_they_end(with_tools, tmp_path):
    assert "#SBATCH --dependency=afterany:7:8\n" in told(tmp_path, after=["7", "8"])
    assert "--dependency" not in told(tmp_path)


@pytest.mark.parametrize("pair", ["gpu", "=1", "partition=", "array=0-3", "signal_delay_s=x"])
def test_a_pair_that_is_none_is_one_line(with_tools, tmp_path, pair):
    with pytest.raises(ValueError, match=f"^--slurm {pair} .*") as raised:
        Cluster(tmp_path, [pair])
    assert "\n" not in str(raised.value)


def test_without_the_tools_it_is_said_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="needs sbatch, srun, squeue, scontrol.* login node"):
        Cluster(tmp_path)
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="submitit.*: pip install -r .*requirements-cluster.txt"):
        Cluster(tmp_path)


def test_a_job_inside_a_job_does_not_inherit_its_place(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CONF", "here")
    with cluster.outside_of_jobs():
        assert slurm.my_job() == "" and cluster.os.environ["SLURM_CONF"] == "here"
    assert slurm.my_job() == "7"


# --- what Slurm says


def test_squeue_says_a_job_a_line():
    text = "12_0 RUNNING\n  12_10 PENDING\n13 COMPLETING\n"
    assert slurm.read_queue(text) == {"12_0": "RUNNING", "12_10": "PENDING", "13": "COMPLETING"}


def test_a_queue_that_does_not_answer_is_no_empty_queue(monkeypatch):
    def fail(*words, **options):
        raise subprocess.CalledProcessError(1, "squeue")

    monkeypatch.setattr(slurm.subprocess, "run", fail)
    assert slurm.queued_jobs() is None


def test_a_job_knows_its_id_and_how_often_it_was_put_back(monkeypatch):
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert slurm.my_job() == "" and slurm.my_restarts() == 0
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    assert slurm.my_job() == "13"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert slurm.my_job() == "12_1" and slurm.my_restarts() == 2


# --- a job


def test_a_job_whose_task_is_gone_says_so_in_words(tmp_path):
    work = Work(tmp_path)
    work.record.write(tmp_path)
    with pytest.raises(ValueError, match="has no task images_old any more"):
        TaskJob(str(tmp_path), "images_old")()
    over = work.claims.look("images_old").over
    assert over["outcome"] == "failed" and "type the first one again" in over["message"]


def test_a_job_waits_for_files_that_come_late(tmp_path, monkeypatch):
    work = Work(tmp_path)
    replace(work.record, scores=True).write(tmp_path)
    name = next(task.name for task in cluster.open_tasks(tmp_path).tasks if task.kind == "scores")
    stands = iter(["waiting", "waiting", "ready"])
    done = []
    monkeypatch.setattr(cluster, "PAUSE", 0.001)
    monkeypatch.setattr(Tasks, "state", lambda self, task: TaskState(next(stands)))
    monkeypatch.setattr(Tasks, "do", lambda self, task: done.append(task.name))
    TaskJob(str(tmp_path), name)()
    assert done == [name] and next(stands, None) is None


def test_a_job_that_slurm_ends_gives_its_task_back(tmp_path, monkeypatch):
    """Whatever happens on the way, and the same is done again."""
    pytest.importorskip("submitit")
    Work(tmp_path).record.write(tmp_path)
    name = Work(tmp_path).names()[0]
    job = TaskJob(str(tmp_path), name)

    def end(self, task, *more):
        assert job.checkpoint().function == TaskJob(str(tmp_path), name)
        raise FileNotFoundError("scontrol")

    monkeypatch.setattr(Tasks, "work", end)
    with pytest.raises(FileNotFoundError):
        job()
    assert Work(tmp_path).claims.look(name).over["outcome"] == "stopped"


# --- the driver


class Work(Tasks):
    """Runs of one image each, that are made when it is said so."""

    def __init__(self, out: Path, runs: int = 3):
        about = {"typed": {}, "start": 0, "end": 1, "samples": 1, "batch_size": 1}
        members = []
        for number in range(runs):
            name = f"run{number}"
            members.append(Member(name, name, latents=False, trace=False, pieces=1, **about))
        super().__init__(out, Record("", scores=False, plugins=[], runs=members))
        self.made: dict[str, int] = {}

    def states(self):
        look = Look(self)
        states = {}
        for task in self.tasks:
            there = self.made.get(task.name, 0)
            state = replace(look.claimed(task), there=there, wanted=10)
            states[task] = replace(state, kind="done") if there >= 10 else state
        return states

    def names(self) -> list[str]:
        """Of all tasks."""
        return [task.name for task in self.tasks]

    def died(self, name: str) -> None:
        """A process took the task and died."""
        state = self.claims.look(name)
        number = state.number + 1 if state else 1
        task = next(task for task in self.tasks if task.name == name)
        starts = driver.starts_of(self.states()[task])
        gone = replace(Holder.me(), pid=2**22 + 1, born=0.0)
        about = {"holder": asdict(gone), "there": self.made.get(name, 0), "starts": starts}
        self.claims.folder.mkdir(parents=True, exist_ok=True)
        (self.claims.folder / f"{name}.{number}").write_text(json.dumps(about))


class Queue:
    """A cluster whose jobs end at the next look, as `ends` says for each task."""

    def __init__(self, work: Work, ends: Callable[[str], None], jobs: int | None = None):
        self.work = work
        self.ends = ends
        self.jobs = jobs
        # Jobs that end at a look; as many as there may be, unless set.
        self.at_once = 0
        self.arrays: list[list[str]] = []
        self.after: list[list[str]] = []
        self.waiting: dict[str, str] = {}
        self.answers = True
        self.refuses = ""

    def submit(self, tasks: list[Task], *, after=()) -> dict[str, str]:
        if not tasks:
            return {}
        if self.refuses:
            raise Refused(self.refuses)
        self.arrays.append([task.name for task in tasks])
        self.after.append(list(after))
        jobs = {}
        for place, task in enumerate(tasks):
            jobs[task.name] = f"{len(self.arrays)}_{place}"
        note_submitted(self.work.folder, jobs)
        self.waiting |= {job: name for name, job in jobs.items()}
        return jobs

    def queued(self) -> dict[str, str] | None:
        if not self.answers:
            return None
        listed = dict.fromkeys(self.waiting, "RUNNING")
        for job in list(self.waiting)[: self.at_once or self.jobs]:
            self.ends(self.waiting.pop(job))
        return listed


@pytest.fixture
def work(tmp_path, monkeypatch) -> Work:
    monkeypatch.setattr(driver, "PAUSES", (0.001, 0.001))
    return Work(tmp_path)


def make(work: Work) -> Callable[[str], None]:
    """Jobs that do what they should."""
    return lambda name: work.made.update({name: 10})


def test_all_are_submitted_as_one_array_and_driven_to_their_end(work):
    queue = Queue(work, make(work))
    drive(work, queue)
    assert queue.arrays == [work.names()] and not work.claims.look("driver").is_held


def test_what_is_done_is_not_submitted(work):
    first, *others = work.names()
    work.made[first] = 10
    queue = Queue(work, make(work))
    drive(work, queue)
    assert queue.arrays == [others]


def test_a_job_that_vanished_is_put_back_and_the_others_are_not(work, capsys):
    lost = work.names()[1]

    def ends(name: str) -> None:
        if name == lost and name not in work.made:
            work.died(name)
            work.made[name] = 3
        else:
            work.made[name] = 10

    queue = Queue(work, ends)
    drive(work, queue)
    assert queue.arrays == [work.names(), [lost]]


def test_a_task_that_gets_nowhere_fails_after_three_starts(work):
    bad = work.names()[0]
    queue = Queue(work, lambda name: work.died(name) if name == bad else make(work)(name))
    drive(work, queue)
    assert sum(bad in array for array in queue.arrays) == 3
    state = next(state for task, state in work.states().items() if task.name == bad)
    assert state.kind == "failed" and "3 times in a row without a new image" in state.message
    assert state.log.endswith("logs/3_0_0_log.out")


def test_a_task_that_gets_somewhere_is_put_back_any_number_of_times(work):
    slow = work.names()[0]

    def ends(name: str) -> None:
        if name == slow and work.made.get(name, 0) < 6:
            work.died(name)
            work.made[name] = work.made.get(name, 0) + 1
        else:
            work.made[name] = 10

    queue = Queue(work, ends)
    drive(work, queue)
    assert sum(slow in array for array in queue.arrays) == 7


def test_jobs_that_end_before_they_begin_fail_with_the_last_line_of_the_log(work):
    bad = work.names()[0]

    def ends(name: str) -> None:
        if name == bad:
            log = cluster.log_of(work.folder, f"{len(queue.arrays)}_0")
            log.parent.mkdir(exist_ok=True)
            log.write_text("first\nno module named torch\nsrun: error: exit code 1\n\n")
        else:
            work.made[name] = 10

    queue = Queue(work, ends)
    drive(work, queue)
    assert sum(bad in array for array in queue.arrays) == 3
    over = work.claims.look(bad).over
    assert "before it began" in over["message"] and over["message"].endswith("named torch")


def test_never_more_jobs_than_asked_for(tmp_path, monkeypatch):
    """Also when some are put back while others wait."""
    monkeypatch.setattr(driver, "PAUSES", (0.001, 0.001))
    work = Work(tmp_path, runs=7)
    lost = work.names()[0]
    starts = []

    def ends(name: str) -> None:
        starts.append(name)
        if name != lost or starts.count(lost) > 1:
            work.made[name] = 10

    queue = Queue(work, ends, jobs=1)
    drive(work, queue)
    assert queue.arrays == [work.names(), [lost]] and starts[-1] == lost


def test_a_driver_that_starts_again_knows_its_jobs(work):
    queue = Queue(work, make(work))
    queue.submit(work.tasks)
    drive(work, queue)
    assert len(queue.arrays) == 1


def test_a_second_driver_watches_and_takes_over(work, capsys):
    claim = work.claims.take("driver")
    queue = Queue(work, make(work))
    second = threading.Thread(target=drive, args=(work, queue))
    second.start()
    second.join(0.3)
    assert second.is_alive() and queue.arrays == []
    claim.release()
    second.join(10)
    assert queue.arrays == [work.names()]
    error = capsys.readouterr().err
    assert error.count("drives this sweep: watching") == 1
    assert error.count("this command drives the sweep now") == 1


def test_a_cluster_that_does_not_answer_is_said_once_and_waited_for(work, capsys):
    queue = Queue(work, make(work))
    queue.answers = False
    waiting = threading.Thread(target=drive, args=(work, queue))
    waiting.start()
    waiting.join(0.1)
    queue.answers = True
    waiting.join(10)
    assert len(queue.arrays) == 1
    assert capsys.readouterr().err.count("Slurm does not answer") == 1


def test_ctrl_c_ends_the_driver_and_no_job(work, capsys):
    queue = Queue(work, make(work))
    looks = iter([{}, KeyboardInterrupt, {"1_0": "RUNNING"}])

    def queued():
        found = next(looks)
        if found is KeyboardInterrupt:
            raise KeyboardInterrupt
        return found

    queue.queued = queued
    with pytest.raises(KeyboardInterrupt):
        drive(work, queue)
    assert "the jobs go on; scancel 1 ends them" in capsys.readouterr().err
    assert not work.claims.look("driver").is_held


def test_what_slurm_refuses_ends_the_driver_in_one_line(work):
    queue = Queue(work, make(work))
    queue.refuses = "Slurm refuses the jobs: no such partition"
    with pytest.raises(ValueError, match="^Slurm refuses the jobs: no such partition$"):
        drive(work, queue)
    assert not work.claims.look("driver").is_held


def test_what_slurm_refuses_while_others_wait_is_tried_again(tmp_path, monkeypatch, capsys):
    """As where a user may have so many jobs."""
    monkeypatch.setattr(driver, "PAUSES", (0.001, 0.001))
    work = Work(tmp_path, runs=5)
    lost = work.names()[0]
    starts = []

    def ends(name: str) -> None:
        starts.append(name)
        queue.refuses = "too many" if len(starts) < 4 else ""
        if name != lost or starts.count(lost) > 1:
            work.made[name] = 10

    queue = Queue(work, ends, jobs=4)
    queue.at_once = 1
    drive(work, queue)
    assert queue.arrays == [work.names(), [lost]]
    assert capsys.readouterr().err.count("too many; trying again") == 1


def test_without_waiting_every_kind_waits_for_the_one_before(tmp_path, capsys):
    record = replace(Work(tmp_path).record, scores=True)
    tasks = Tasks(tmp_path, record)
    queue = Queue(tasks, lambda name: None)
    drive(tasks, queue, wait=False)
    assert [len(array) for array in queue.arrays] == [3, 3, 1]
    assert queue.after == [[], ["1"], ["2"]]
    told = capsys.readouterr().out
    assert "images: submitted 3 jobs, array 1\n" in told and "--status" in told


def test_without_waiting_nothing_is_submitted_twice(tmp_path):
    tasks = Tasks(tmp_path, replace(Work(tmp_path).record, scores=True))
    queue = Queue(tasks, lambda name: None)
    drive(tasks, queue, wait=False)
    queue.queued = lambda: dict.fromkeys(queue.waiting, "PENDING")
    drive(tasks, queue, wait=False)
    assert len(queue.arrays) == 3
    assert array_of("1_2") == "1"
