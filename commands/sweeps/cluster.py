"""Tasks of a sweep as jobs of Slurm: submitted as arrays through submitit.

What becomes of a job is not asked of submitit, which knows that only where the cluster keeps
accounts: the runs' own files and squeue say it (`commands/sweeps/driver.py`).
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import memorization_suite
from memorization_suite import ROOT
from memorization_suite.commands.setup import CLUSTER
from memorization_suite.commands.sweeps.record import FOLDER
from memorization_suite.commands.sweeps.task import Task
from memorization_suite.commands.sweeps.tasks import Tasks, open_tasks
from memorization_suite.runs import notices, slurm
from memorization_suite.runs.environment import calm_threads
from memorization_suite.runs.files import write_json
from memorization_suite.runs.lazy import submitit
from memorization_suite.runs.library_warnings import heard
from memorization_suite.runs.nobodys import is_nobodys
from memorization_suite.runs.parse import json_of

PROGRAMS = ("sbatch", "srun", "squeue", "scontrol")
# Of `--slurm`, unless typed. A job that needs longer is put back, and goes on from its images.
DEFAULTS = {"time": "04:00:00"}
# submitit's own, which are no options of sbatch -> what a text becomes.
OF_SUBMITIT: dict[str, Callable[[str], Any]] = {
    "signal_delay_s": int,
    "srun_args": shlex.split,
    "setup": lambda text: [text],
}
# How jobs start Python, such as `apptainer exec IMAGE python`.
PYTHON = "python"
# What a sweep sets itself -> what to type instead.
OURS = {
    "array": "--jobs N says how many jobs there are at once",
    "array_parallelism": "--jobs N says how many jobs there are at once",
    "chdir": "jobs start in the folder where the command is typed",
    "dependency": "--no_wait says that scores wait for images",
    "error": "logs are in OUT/jobs/logs",
    "ntasks": "--prompts_per_job N divides a run into jobs of one process each",
    "nodes": "--prompts_per_job N divides a run into jobs of one process each",
    "output": "logs are in OUT/jobs/logs",
}
# Seconds that files of other machines may come late, and between two looks for them.
LATE = 90.0
PAUSE = 5.0
# Jobs of an array where the cluster does not say how many it takes: Slurm's own default.
ARRAY = 1000
# Time limits that a job may reach. Tasks that get nowhere are ended elsewhere.
ALWAYS = 10**6
# Since 22.05 srun inherits the cores of a job under the second name alone.
CORES = '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK'


class Refused(ValueError):
    """Slurm takes no such job."""


@dataclass
class TaskJob:
    """What a job does: a task. It is stored by its name, and loaded where the job runs."""

    out: str
    task: str
    # Of the sweep, while the job runs.
    tasks: Tasks | None = field(default=None, repr=False, compare=False)

    def __call__(self) -> None:
        calm_threads()
        self.tasks = tasks = open_tasks(Path(self.out))
        tasks.log = str(log_of(tasks.folder, slurm.my_job()))
        task = self.find(tasks)
        end = time.monotonic() + LATE
        while tasks.state(task).kind == "waiting" and time.monotonic() < end:
            time.sleep(PAUSE)
        with heard(tasks.folder / notices.FILE):
            tasks.do(task)

    def find(self, tasks: Tasks) -> Task:
        """The task of this name. Raises ValueError, which its claim tells too, without one."""
        for task in tasks.tasks:
            if task.name == self.task:
                return task
        message = (
            f"the sweep in {self.out} has no task {self.task} any more: a later command began "
            "others there; type the first one again"
        )
        claim = tasks.claims.take(self.task)
        if claim:
            claim.end(outcome="failed", message=message, log=tasks.log)
        raise ValueError(message)

    def checkpoint(self) -> Any:
        """Slurm is about to stop the job: the same is done when it starts again."""
        if self.tasks:
            self.tasks.is_ending = True
        return submitit.helpers.DelayedSubmission(TaskJob(self.out, self.task))


class Cluster:
    """Where the tasks of a sweep run."""

    def __init__(self, out: Path, pairs: Sequence[str] = (), jobs: int | None = None):
        """out: the sweep's folder. pairs: `KEY=VALUE` of --slurm. jobs: at most at once.

        Raises ValueError for a pair that is none, and where jobs cannot be submitted.
        """
        self.out = out.absolute()
        self.folder = self.out / FOLDER
        self.options = DEFAULTS | read_pairs(pairs)
        self.jobs = jobs
        check_tools()
        if "%" in str(self.out):
            raise ValueError(
                f"Slurm reads the % of {self.out} in the names of logs: give an --output_path "
                "without one"
            )

    def submit(self, tasks: Sequence[Task], *, after: Iterable[str] = ()) -> dict[str, str]:
        """Task name -> job id, in the order of the tasks.

        after: arrays that end first, however. More tasks than an array takes are several arrays,
        one after the other. Raises Refused with what Slurm says.
        """
        jobs: dict[str, str] = {}
        before = list(after)
        for first in range(0, len(tasks), self.array):
            part = tasks[first : first + self.array]
            submitted = self.submit_array(part, before)
            jobs |= submitted
            before = sorted({array_of(job) for job in submitted.values()})
        return jobs

    def submit_array(self, tasks: Sequence[Task], after: Sequence[str]) -> dict[str, str]:
        """The same for one array; which tasks it holds is noted for all who ask."""
        executor = submitit.SlurmExecutor(
            self.folder / "logs", max_num_timeout=ALWAYS, python=self.options.get(PYTHON)
        )
        kinds = "_".join(sorted({task.kind for task in tasks}))
        executor.update_parameters(**self.parameters(f"{self.out.name}_{kinds}", after))
        calls = [TaskJob(str(self.out), task.name) for task in tasks]
        utils = submitit.core.utils
        try:
            with outside_of_jobs(), redirect_stderr(io.StringIO()):
                made = executor.submit_array(calls)
        except (utils.FailedJobError, utils.FailedSubmissionError) as error:
            raise Refused(f"Slurm refuses the jobs: {one_line(str(error))}") from error
        jobs = {task.name: job.job_id for task, job in zip(tasks, made)}
        note_submitted(self.folder, jobs)
        return jobs

    def parameters(self, name: str, after: Sequence[str]) -> dict[str, Any]:
        """What submitit is told of an array."""
        own = {}
        # A job may be put back.
        options: dict[str, Any] = {"requeue": True}
        for key, value in self.options.items():
            if key in OF_SUBMITIT:
                own[key] = OF_SUBMITIT[key](value)
            elif key != PYTHON:
                options[key] = True if value == "true" else value
        if after:
            options["dependency"] = ":".join(["afterany", *after])
        setup = [f"export PYTHONPATH={shlex.quote(python_path())}", CORES, *own.pop("setup", [])]
        return {
            "job_name": name,
            "array_parallelism": self.jobs or self.array,
            "stderr_to_stdout": True,
            "setup": setup,
            "additional_parameters": options,
            **own,
        }

    @cached_property
    def array(self) -> int:
        """How many jobs an array takes."""
        command = ["scontrol", "show", "config"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=slurm.TIMEOUT)
        except (OSError, subprocess.SubprocessError):
            return ARRAY
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, flags=re.MULTILINE)
        return max(1, int(found[1])) if found else ARRAY

    def queued(self) -> dict[str, str] | None:
        """Job id -> state of what waits or runs; None when Slurm does not answer."""
        return slurm.queued_jobs()


# --- what was submitted


def note_submitted(folder: Path, jobs: dict[str, str]) -> None:
    """Keeps which tasks the jobs of an array are, for all who ask. folder: of the tasks."""
    array = array_of(next(iter(jobs.values())))
    (folder / "submitted").mkdir(parents=True, exist_ok=True)
    write_json(folder / "submitted" / f"{array}.json", jobs)


def submitted_jobs(folder: Path) -> dict[str, list[str]]:
    """Task name -> its jobs, the last one last. folder: of the tasks."""
    jobs: dict[str, list[str]] = {}
    files = (file for file in (folder / "submitted").glob("*.json") if not is_nobodys(file.name))
    for file in sorted(files, key=lambda file: int(file.stem)):
        for task, job in json_of(file.read_text(encoding="utf-8")).items():
            jobs.setdefault(task, []).append(job)
    return jobs


def log_of(folder: Path, job: str) -> Path:
    """Where a job writes what it has to say. folder: of the tasks."""
    return folder / "logs" / f"{job}_0_log.out"


def array_of(job: str) -> str:
    """`12_3` -> `12`."""
    return job.partition("_")[0]


# --- what submitit is told


def read_pairs(pairs: Sequence[str]) -> dict[str, str]:
    """Key -> value of `KEY=VALUE`, keys as sbatch spells them, with `_`. Raises ValueError.

    The value `true` is for an option without one, such as exclusive=true.
    """
    options = {}
    for pair in pairs:
        typed, _, value = pair.partition("=")
        key = typed.strip().lstrip("-").replace("-", "_").removeprefix("slurm_")
        if not key or not value:
            raise ValueError(
                f"--slurm {pair} is no KEY=VALUE: type for example --slurm partition=gpu "
                "gpus_per_node=1 time=08:00:00; every option of sbatch is possible"
            )
        if key in OURS:
            raise ValueError(f"--slurm {pair} cannot be set: {OURS[key]}")
        options[key] = value
    delay = options.get("signal_delay_s", "0")
    if not delay.isdecimal():
        raise ValueError(f"--slurm signal_delay_s={delay} is no number of seconds")
    return options


def python_path() -> str:
    """Where jobs find the suite, and what this process finds, wherever the user stands."""
    own = Path(memorization_suite.__file__)
    folder = ROOT if own.name == "memorization_suite.py" else ROOT.parent
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.pathsep.join([str(folder), *(os.path.abspath(path) for path in others)])


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Hides what Slurm says of the job that this process belongs to: new jobs would inherit it."""
    hidden = {}
    if slurm.my_job():
        for name in list(os.environ):
            if name.startswith(("SLURM_", "SRUN_", "SUBMITIT_")) and name != "SLURM_CONF":
                hidden[name] = os.environ.pop(name)
    try:
        yield
    finally:
        os.environ.update(hidden)


def check_tools() -> None:
    """Raises ValueError where jobs cannot be submitted."""
    if find_spec("submitit") is None:
        raise ValueError(
            f"--launcher slurm needs submitit, which is not installed: pip install -r {CLUSTER}"
        )
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        raise ValueError(
            f"--launcher slurm needs {', '.join(absent)}, not found here: type the command on a "
            "machine of the cluster, such as its login node, or leave --launcher out"
        )


def one_line(text: str) -> str:
    """What sbatch says, without its name."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in text.splitlines()]
    return "; ".join(line.strip() for line in lines if line.strip())
