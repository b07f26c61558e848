"""Prompts, and runs on equal seeds, for pages."""

import csv
import json

import pytest

from memorization_suite.commands.score_scripts import run_script
from memorization_suite.metrics.scripts import COPIES
from memorization_suite.runs import Key
from memorization_suite.runs.table import Result, add_results
from tests.browser import Browser
from tests.metrics.conftest import make_run, picture

HOSTILE = "<script>alert('x')</script> & \"quotes\" <img src=x onerror=alert(1)>"


@pytest.fixture
def prompts(tmp_path):
    """Four captions, of which one is hostile; row 3 has no training image, row 2's is no
    picture.
    """
    path = tmp_path / "four.csv"
    rows = [
        ("a red square", "VM", "100"),
        (HOSTILE, "VM", "101"),
        ("the great wave", "TM", "102"),
        ("a blue circle", "TM", "103"),
    ]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerows(
            [("", "Caption", "type", "Index"), *((i, *row) for i, row in enumerate(rows))]
        )
    for index, seed in (("100", 0), ("101", 901)):
        (tmp_path / "gt" / index).mkdir(parents=True)
        picture(seed, (60, 50)).save(tmp_path / "gt" / index / "0.png")
    (tmp_path / "gt" / "102").mkdir()
    (tmp_path / "gt" / "102" / "0.png").write_bytes(b"no picture")
    return path


def as_run(folder, method, *, samples=2, **costs):
    """Makes a folder of images a run of a method, with costs."""
    manifest = json.loads((folder.path / "manifest.json").read_text())
    manifest["identity"]["method"] = method
    (folder.path / "manifest.json").write_text(json.dumps(manifest))
    keys = [Key(prompt, sample) for prompt in range(4) for sample in range(samples)]
    folder.add("all", images=[{**key.columns, **costs} for key in keys])
    folder.publish()
    return folder


@pytest.fixture
def runs(tmp_path, prompts):
    """Two finished runs of two images a prompt, with costs; the first image of the first run is a
    copy.
    """
    folders = []
    for seed, method in enumerate(("no_mitigation", "per_sample")):
        folder = make_run(tmp_path / "runs" / method / "g7_seed2", prompts, seed=seed, samples=2)
        folders.append(as_run(folder, method, unet_evals=100 + 50 * seed, seconds=1))
    return folders


def scored(tmp_path, runs) -> None:
    """Scores runs against the training images."""
    for run in runs:
        argv = ["--gen_folder", str(run.path), "--gt_folder", str(tmp_path / "gt"), "--quiet"]
        assert run_script(COPIES, argv) == 0


def give_scores(run, method, **quantities):
    """Writes made-up scores. quantities: name -> values of the prompts' two images each."""
    rows = []
    for quantity, values in quantities.items():
        for i, value in enumerate(values):
            rows.append(Result("g7_seed2", method, i // 2, i % 2, quantity, "v", value))
    add_results(run.path, rows)


@pytest.fixture
def browser(tmp_path):
    """A browser; nothing it was told may have been an error at the end."""
    with Browser(tmp_path / "profile") as one:
        yield one
        assert one.errors == []
