"""A sweep on this machine: in this process, or in one for each device."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from memorization_suite.commands.sweeps import work
from memorization_suite.commands.sweeps.cluster import python_path
from memorization_suite.commands.sweeps.jobs import DeviceLost
from memorization_suite.commands.sweeps.task import Task, TaskState
from memorization_suite.commands.sweeps.tasks import MOST_STARTS, Tasks
from memorization_suite.commands.sweeps.watch import Watch, images_there
from memorization_suite.commands.sweeps.worker import FULL, LOST
from memorization_suite.runs.environment import device_count

# Seconds that a process may take to end when it is asked to.
PATIENCE = 30.0
NO_DEVICE = "no device is left"


@dataclass
class Worker:
    """A device, or a place on the CPU, and the process that works there."""

    name: str
    # Environment variables that show it its device alone.
    shown: dict[str, str] = field(default_factory=dict)
    log: Path = Path()
    process: subprocess.Popen | None = None
    # Starts in a row without anything new, and what was there at the last one.
    starts: int = 0
    there: int = -1

    def start(self, tasks: Tasks) -> None:
        """Starts the process; what it says goes to its log. Raises OSError."""
        self.log = tasks.folder / "logs" / f"worker_{os.getpid()}_{self.name}.txt"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "memorization_suite.commands.sweeps.worker", str(tasks.out)]
        words += ["--place", self.name, "--log", str(self.log)]
        if tasks.shard:
            words += ["--shard", str(tasks.shard)]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": python_path(), **self.shown},
                # Ctrl-C reaches the driver alone, which ends its workers.
                start_new_session=True,
            )

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    def interrupt(self) -> None:
        """Asks its process to end."""
        if self.process is not None and self.is_alive():
            self.process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Waits for the end of its process, and kills it when that takes long."""
        if self.process is None:
            return
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


def run_here(tasks: Tasks, devices: Collection[str], jobs: int | None, *, quiet: bool) -> None:
    """Does everything that is left of a sweep. devices: of the runs.

    jobs: processes; by default one for each device. Raises OSError when no device is left.
    """
    workers = workers_for(devices, jobs)[: tasks_at_once(tasks)]
    with Watch(tasks, quiet=quiet) as watch:
        if len(workers) > 1:
            run_workers(tasks, workers, watch)
            return
        try:
            work.work(tasks, progress=watch.progress)
        except DeviceLost as error:
            raise OSError(f"{NO_DEVICE}: {error}") from error


def tasks_at_once(tasks: Tasks) -> int:
    """How many of the tasks that are left could be done at the same time; at least one."""
    images = 0
    scores = 0
    for task, state in tasks.states().items():
        if not state.is_over and tasks.is_mine(task):
            images += task.kind == "images"
            scores += task.kind == "scores"
    return max(1, images, scores)


def workers_for(devices: Collection[str], jobs: int | None) -> list[Worker]:
    """A worker for each visible device, or as many as were asked for.

    devices: of the runs, as their plans name them. A number behind a name stands for that device
    alone.
    """
    visible = visible_devices() if "cuda" in devices else []
    if any(":" in device for device in devices):
        visible = []
    count = jobs or max(1, len(visible))
    workers = []
    for number in range(count):
        if visible:
            place = number % len(visible)
            turn = f"_{number // len(visible) + 1}" if count > len(visible) else ""
            shown = {"CUDA_VISIBLE_DEVICES": visible[place]}
            workers.append(Worker(f"cuda{place}{turn}", shown))
        else:
            workers.append(Worker(f"worker{number + 1}"))
    return workers


def visible_devices() -> list[str]:
    """The GPUs of this process, as CUDA_VISIBLE_DEVICES names them."""
    count = device_count("cuda")
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in named.split(",") if name.strip()]
    return names[:count] or [str(number) for number in range(count)]


# --- several processes ---


def wait(workers: list[Worker], seconds: float) -> None:
    """Waits so long, or until one of the workers ends."""
    end = time.monotonic() + seconds
    while all(worker.is_alive() for worker in workers):
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(work.PAUSE, left))


def run_workers(tasks: Tasks, workers: Iterable[Worker], watch: Watch) -> None:
    """Starts the workers, and watches until none is left. Raises OSError when all were lost."""
    left = list(workers)
    lost = []
    try:
        for worker in left:
            restart(worker, tasks, watch.states)
        taken = 0.0
        while left:
            wait(left, work.pause_after(taken, work.PAUSE))
            states, taken = work.timed(watch.look)
            for worker in [worker for worker in left if not worker.is_alive()]:
                if not goes_on(worker, tasks, states):
                    left.remove(worker)
                    lost += [worker] if worker.process and worker.process.returncode else []
        watch.look()
    finally:
        for worker in left:
            worker.interrupt()
        for worker in left:
            worker.end()
    is_left = any(not state.is_over for state in watch.states.values())
    if is_left and any(worker.process and worker.process.returncode == FULL for worker in lost):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tasks.out))
    if lost and is_left and len(lost) == len(list(workers)):
        raise OSError(f"{NO_DEVICE}: see {', '.join(str(worker.log) for worker in lost)}")


def goes_on(worker: Worker, tasks: Tasks, states: dict[Task, TaskState]) -> bool:
    """Whether a worker that ended was started again. It is when its process died, and not when its
    device is broken, the disk is full, or it dies again and again.
    """
    code = worker.process.returncode if worker.process else 0
    if code == 0:
        return False
    if code == LOST:
        print(f"{worker.name} failed, and its work is given back ({worker.log})", file=sys.stderr)
        return False
    if code == FULL:
        return False
    print(f"{worker.name} ended with code {code} ({worker.log})", file=sys.stderr, flush=True)
    return restart(worker, tasks, states)


def restart(worker: Worker, tasks: Tasks, states: dict[Task, TaskState]) -> bool:
    """Starts a worker, but not the fourth time in a row without anything new in the sweep."""
    over = sum(state.is_over for state in states.values())
    there = images_there(states) + over
    worker.starts = 1 if there > worker.there else worker.starts + 1
    worker.there = there
    if worker.starts > MOST_STARTS:
        return False
    worker.start(tasks)
    return True
