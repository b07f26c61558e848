"""Sweeps on a real Slurm of one node: killed jobs, killed drivers, runs that fail."""

import contextlib
import csv
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memorization_suite import ROOT, tiny
from memorization_suite.commands.sweeps.cluster import submitted_jobs
from memorization_suite.prompts.files import read_prompts

CAPTIONS = [prompt.caption for prompt in read_prompts(tiny.prompts("tiny", "memorized_test"))[:3]]
# A method that notes which image it begins, and that waits as long as it is told to.
PLUGIN = f"""
import os, time, uuid
from pathlib import Path

from memorization_suite.mitigation.base import Mitigation, flag, register

CAPTIONS = {CAPTIONS!r}
FOLDER = Path(os.environ["PATIENT_FOLDER"])


@register("patient", paper="none")
class Patient(Mitigation):
    '''Plain sampling.'''

    number: int = flag(0, "which run it is")

    def edit_prompts(self, batch):
        image = f"{{self.number}}-{{CAPTIONS.index(batch.prompts[0])}}"
        (FOLDER / f"begun-{{image}}-{{uuid.uuid4().hex}}").touch()
        while (FOLDER / f"hold-{{image}}").exists():
            time.sleep(0.02)
        return batch.prompts
"""
COMMON = """
[common]
model_id = "tiny"
method = "patient"
num_inference_steps = 2
n_samples_per_prompt = 1
batch_size = 1
"""
PATIENCE = 120.0  # seconds, where several tests share few cores


class Sweep:
    """A sweep file with its plugin, the commands that work on it, and what came of it."""

    def __init__(self, folder: Path, runs: str, python: Path):
        self.folder = folder
        self.python = python
        self.out = folder / "out"
        self.commands: list[subprocess.Popen] = []
        (folder / "patient.py").write_text(PLUGIN)
        (folder / "prompts.txt").write_text("\n".join(CAPTIONS) + "\n")
        (folder / "sweep.toml").write_text(COMMON + runs)

    def start(self, *words: str) -> subprocess.Popen:
        """A command that goes on by itself; what it says goes to a file."""
        plugin = ["--plugin", "patient.py", "--output_path", "out"]
        command = [self.python, ROOT / "sweep.py", "sweep.toml", *plugin, *words]
        with open(self.folder / f"said-{len(self.commands)}", "w") as said:
            process = subprocess.Popen(command, cwd=self.folder, stdout=said, stderr=said)
        self.commands.append(process)
        return process

    def drive(self, *words: str, jobs: int = 2) -> subprocess.Popen:
        """A driver, with so many jobs at a time, which start at once, as commands do."""
        quick = f"python={self.python} {ROOT / 'tests/slurm/job.py'}"
        return self.start("--launcher", "slurm", "--jobs", str(jobs), *words, "--slurm", quick)

    def said(self, process: subprocess.Popen) -> str:
        """What a command said so far."""
        return (self.folder / f"said-{self.commands.index(process)}").read_text()

    def ends(self, process: subprocess.Popen) -> int:
        """Exit code of a command, when it has ended."""
        self.until(lambda: process.poll() is not None, process)
        return process.returncode

    def until(self, condition: Callable[[], bool], process: subprocess.Popen) -> None:
        """Waits for something that a command brings about."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, self.said(process)
            time.sleep(0.05)

    def hold(self, *images: str) -> None:
        """Lets the method wait at these images: `RUN-PROMPT`."""
        for image in images:
            (self.folder / f"hold-{image}").touch()

    def go_on(self, image: str = "*") -> None:
        """Lets it wait no longer."""
        for file in self.folder.glob(f"hold-{image}"):
            file.unlink()

    def begun(self) -> Counter[str]:
        """Image -> how often it was begun."""
        names = [file.name for file in self.folder.glob("begun-*")]
        return Counter("-".join(name.split("-")[1:3]) for name in names)

    def has_begun(self, *images: str, times: int = 1) -> Callable[[], bool]:
        """Whether these images were begun so often."""
        return lambda: all(self.begun()[image] >= times for image in images)

    def job_of(self, run: int) -> str:
        """The job that makes the images of a run."""
        jobs = submitted_jobs(self.out / "jobs")
        (task,) = (task for task in jobs if task.startswith("images") and f"number{run}" in task)
        return jobs[task][-1]

    def files(self, out: Path | None = None) -> dict[str, bytes | list[dict]]:
        """Bytes of the images, rows of the tables without times."""
        found: dict[str, bytes | list[dict]] = {}
        for file in sorted((out or self.out).rglob("*")):
            name = str(file.relative_to(out or self.out))
            if file.suffix == ".png":
                found[name] = file.read_bytes()
            elif file.suffix == ".csv":
                with open(file, newline="", encoding="utf-8") as table:
                    rows = list(csv.DictReader(table))
                found[name] = [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]
        return found


@pytest.fixture
def sweep_of(tmp_path, private_slurm, python, monkeypatch) -> Iterator[Callable[[str], Sweep]]:
    """Makes a sweep of these runs, whose commands are ended after the test."""
    monkeypatch.setenv("SLURM_CONF", str(private_slurm))
    monkeypatch.setenv("PATIENT_FOLDER", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = []

    def make(runs: str) -> Sweep:
        made.append(Sweep(tmp_path, runs, python))
        return made[-1]

    yield make
    for sweep in made:
        sweep.go_on()
        for process in sweep.commands:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
    subprocess.run(["scancel", "--me"], check=True)


def slurm(*words: str) -> None:
    """A command of Slurm."""
    subprocess.run(words, check=True, capture_output=True)


def test_killed_jobs_and_drivers_change_nothing(sweep_of):
    """Eight runs, two jobs at a time: one is killed and one put back in the middle, as is the
    driver, while a second one watches; a third begins.
    """
    sweep = sweep_of('[[run]]\nprompts = "prompts.txt"\nnumber = [0, 1, 2, 3, 4, 5, 6, 7]\n')
    sweep.hold("0-1", "1-1")
    first = sweep.drive()
    sweep.until(sweep.has_begun("0-1", "1-1"), first)
    second = sweep.drive()
    sweep.until(lambda: "drives this sweep: watching" in sweep.said(second), second)
    first.kill()
    slurm("scancel", "--signal=KILL", "--full", sweep.job_of(0))
    slurm("scontrol", "requeue", sweep.job_of(1))
    third = sweep.drive()
    for image in ("1-1", "0-1"):  # what was killed is put back when there is room
        sweep.until(sweep.has_begun(image, times=2), second)
        sweep.go_on(image)
    assert sweep.ends(second) == 0 and sweep.ends(third) == 0
    assert "8 of 8 runs done" in sweep.said(second)

    images = [f"{run}-{row}" for run in range(8) for row in range(len(CAPTIONS))]
    assert sweep.begun() == Counter([*images, "0-1", "1-1"])
    on_slurm = sweep.files()
    assert len([name for name in on_slurm if name.endswith(".png")]) == len(images)
    sweep.out.rename(sweep.folder / "slurm")
    assert sweep.ends(sweep.start("--launcher", "local")) == 0
    assert sweep.files() == on_slurm


def test_without_waiting_jobs_wait_for_each_other_and_put_themselves_back(sweep_of):
    """Slurm's signal before the end of a job's time."""
    sweep = sweep_of('[[run]]\nprompts = "prompts.txt"\nnumber = [0, 1]\n')
    sweep.hold("0-1")
    submitting = sweep.drive("--no_wait")
    assert sweep.ends(submitting) == 0
    assert sweep.said(submitting).count("submitted") == 3
    sweep.until(sweep.has_begun("0-1", "1-2"), submitting)
    status = sweep.start("--status")
    assert sweep.ends(status) == 0
    assert f"job {sweep.job_of(0)}" in sweep.said(status) and "1 of 3" in sweep.said(status)
    slurm("scancel", "--signal=USR2", sweep.job_of(0))
    sweep.until(sweep.has_begun("0-1", times=2), submitting)
    sweep.go_on()
    sweep.until((sweep.out / "report.html").exists, submitting)
    status = sweep.start("--status")
    assert sweep.ends(status) == 0
    assert "2 of 2 runs done, 6 of 6 images" in sweep.said(status)


def test_a_run_that_fails_does_not_end_the_others(sweep_of):
    """Its prompt file vanishes after the jobs were submitted."""
    runs = ""
    for number, file in enumerate(["prompts.txt", "gone.txt"]):
        runs += f'[[run]]\nprompts = "{file}"\nnumber = {number}\n'
    sweep = sweep_of(runs)
    gone = sweep.folder / "gone.txt"
    gone.write_text(CAPTIONS[0] + "\n")
    sweep.hold("0-0")
    driver = sweep.drive(jobs=1)
    sweep.until(sweep.has_begun("0-0"), driver)
    gone.unlink()
    sweep.go_on()
    assert sweep.ends(driver) == 1
    status = sweep.start("--status")
    assert sweep.ends(status) == 1
    for told in (sweep.said(driver), sweep.said(status)):
        assert f"cannot read the prompt file {gone}" in told and "1 failed" in told
    assert "gone.txt" in (sweep.out / "report.html").read_text()


def test_jobs_start_as_they_do_for_users(sweep_of):
    """With a Python of their own."""
    sweep = sweep_of('[[run]]\nprompts = "prompts.txt"\n')
    driver = sweep.start("--launcher", "slurm", "--slurm", "cpus_per_task=1", "--no_scores")
    assert sweep.ends(driver) == 0
    assert "1 of 1 runs done, 3 of 3 images" in sweep.said(driver)
    assert set(sweep.begun().values()) == {1}


def test_what_slurm_refuses_is_one_line(sweep_of):
    sweep = sweep_of('[[run]]\nprompts = "prompts.txt"\n')
    driver = sweep.start("--launcher", "slurm", "--slurm", "partition=none")
    assert sweep.ends(driver) == 2
    (told,) = (line for line in sweep.said(driver).splitlines() if "sweep.py:" in line)
    assert "Slurm refuses the jobs: invalid partition specified: none" in told
    assert not sweep.begun() and "Traceback" not in sweep.said(driver)
