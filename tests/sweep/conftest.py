"""A sweep of three runs of four prompts, whose pictures are made up, so that work takes no time."""

import os
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from memorization_suite.commands.generate import Run
from memorization_suite.commands.image_job import close
from memorization_suite.commands.score import Table
from memorization_suite.commands.sweeps import jobs as sweep_jobs
from memorization_suite.commands.sweeps import work as sweep_work
from memorization_suite.commands.sweeps.launch import Launch
from memorization_suite.commands.sweeps.sweep import begin, plan_sweep
from memorization_suite.runs.run_folder import RunFolder
from memorization_suite.runs.table import Result, add_results

CAPTIONS = ["a red square", "$(touch here); a/../blue 'circle'", "two cats", "a green ring"]


@pytest.fixture
def prompt_file(tmp_path) -> Path:
    path = tmp_path / "four.txt"
    path.write_text("\n".join(CAPTIONS) + "\n")
    return path


@pytest.fixture
def file(tmp_path, prompt_file) -> Path:
    """No mitigation and batch-wise at two values: 24 images."""
    path = tmp_path / "three.toml"
    path.write_text(f'''
[common]
model_id = "tiny"
device = "cpu"
prompts = "{prompt_file}"
num_inference_steps = 4
n_samples_per_prompt = 2

[[run]]
[[run]]
method = "batch_wise"
gamma = [0.7, 1]
apply_cfg_step = 1
''')
    return path


@pytest.fixture
def tasks_of(file, tmp_path):
    """tasks_of(out="out", **launch): the tasks of a command that begins."""

    def make(out="out", **typed):
        entries = plan_sweep(file, tmp_path / out, quiet=True)
        tasks = begin(entries, tmp_path / out, "three", scores=True, launch=Launch(**typed))
        tasks.ask_again()
        return tasks

    return make


class MadeUp:
    """Stands for `generate` and `score`; notes what it made."""

    def __init__(self, log: Path):
        self.log = log

    def generate(self, plan, *, load=None) -> Run:
        """Pictures of one pixel that tell their prompt and sample."""
        folder = RunFolder(plan.folder)
        folder.prepare(plan.identity)
        missing = set(plan.own()) - plan.there().complete
        made = []
        if missing:
            folder.start(plan.identity, config=plan.config, asked=asdict(plan.asked))
        for number, prompts in plan.batches():
            keys = [key for key in plan.wanted(prompts) if key in missing]
            if not keys or not plan.shard.has(number):
                continue
            for key in keys:
                self.note(f"{plan.folder.name} {key}")
                folder.save_image(key, Image.new("RGB", (8, 8), (key.prompt, key.sample, 0)))
            self.batch(number)
            rows = [{**key.columns, "unet_evals": 8, "seconds": 1} for key in keys]
            folder.add(str(keys[0]), images=rows)
            made += keys
        return Run(plan, folder, made=made, closed=close(plan, folder))

    def batch(self, number: int) -> None:
        """What a test does while a batch is made."""

    def score(self, folder, **typed) -> Table:
        """A value an image."""
        self.note(f"scores {folder.name}")
        rows = [
            Result(folder.name, "m", key.prompt, key.sample, "mean", "made_up", key.sample)
            for key in RunFolder(folder).done("images")
        ]
        add_results(folder, rows)
        return Table(results=rows, notes=["a note"])

    def note(self, line: str) -> None:
        """Adds a line, also where several processes do so."""
        handle = os.open(self.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(handle, f"{line}\n".encode())
        os.close(handle)

    @property
    def notes(self) -> list[str]:
        """What was made so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def made_up(tmp_path, monkeypatch) -> MadeUp:
    """No model makes anything, and nobody waits long."""
    stand_in = MadeUp(tmp_path / "made.txt")
    monkeypatch.setattr(sweep_jobs, "generate", lambda *a, **k: stand_in.generate(*a, **k))
    monkeypatch.setattr(sweep_jobs, "score", lambda *a, **k: stand_in.score(*a, **k))
    monkeypatch.setattr(sweep_work, "PAUSE", 0.05)
    monkeypatch.setattr(sweep_work, "SHORT_PAUSE", 0.01)
    return stand_in


def kinds(tasks) -> list[str]:
    """Where the tasks stand, in order."""
    return [state.kind for state in tasks.states().values()]


def pictures(out: Path) -> dict[str, bytes]:
    """Images of all runs by their paths."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("img_*.png")}
