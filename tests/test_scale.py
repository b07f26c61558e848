"""Large runs: the measurement of experiments/scale.py works, and work grows as the images do."""

import sys

import numpy as np
import pytest

from memorization_suite import ROOT
from memorization_suite.experiments import scale, scale_steps
from memorization_suite.experiments.scale_steps import STEPS, Place
from memorization_suite.metrics import image_features
from memorization_suite.metrics.summary import summarize
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.table import Result, add_results
from memorization_suite.runs.tables import read_csv

weights = pytest.mark.skipif(
    not (ROOT / "tiny" / "weights" / "tiny" / "unet").is_dir(), reason="no embedded model"
)


@weights
def test_every_step_of_the_measurement(tmp_path, monkeypatch):
    monkeypatch.setattr(image_features, "backbone", image_features.backbone)  # put back after it
    place = Place(tmp_path / "scale", prompts=6, samples=2)
    for step in STEPS:
        if step.first:
            step.first(place)
        if not step.command:
            step.work(place)
    assert len(list(place.run.glob("img_*.png"))) == 12
    assert len(read_csv(place.run / "images.csv")) == 12
    parts = place.folder / "parts"
    assert read_csv(parts / "images.csv") == read_csv(place.run / "images.csv")
    quantities = {row["quantity"] for row in read_csv(place.run / "results.csv")}
    assert {"copy_score", "feature_diversity", "subject_shown", "realism"} <= quantities


@weights
def test_the_commands_of_the_measurement_have_a_finished_run(tmp_path, monkeypatch):
    place = Place(tmp_path / "scale", prompts=4, samples=1)
    scale_steps.prepare(place)
    scale_steps.make_half(place)
    assert len(read_csv(place.run / "images.csv")) < 4  # it stopped in the middle
    scale_steps.make_rest(place)
    asked = []
    monkeypatch.setattr(Place, "run_command", lambda self, script, *words: asked.append(script))
    for step in STEPS:
        if step.command:
            step.work(place)
    assert asked == ["generate_images.py", "metrics/summarize.py", "make_report.py"]


def test_the_table_has_both_sizes_and_their_ratio():
    small = {step.name: scale.Cost(2.0, 1.0, 100.0) for step in STEPS}
    large = {step.name: scale.Cost(21.0, 9.0, 130.0) for step in STEPS}
    first, *lines = scale.table_of([5000, 50000], [small, large]).splitlines()
    assert "s, 5,000" in first and "busy, 50,000" in first and len(lines) == len(STEPS)
    assert "10.5" in lines[0] and "9.0" in lines[0] and "+30" in lines[0]


# --- growth, counted in calls, so that a busy machine changes nothing


def calls_of(work, *arguments) -> int:
    """How many functions are called."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work(*arguments)
    finally:
        sys.setprofile(None)
    return count


def made(path, prompts: int) -> RunFolder:
    """A run of two images a prompt, of which nothing is published."""
    folder = RunFolder(path / "no_mitigation" / f"g7_seed{prompts}")
    folder.prepare({})
    folder.start({}, config={})
    for prompt in range(prompts):
        keys = [Key(prompt, sample) for sample in range(2)]
        for key in keys:
            folder.image_path(key).touch()
        folder.add(str(keys[0]), images=[{**key.columns, "seconds": 1} for key in keys])
    return folder


def references(folder: RunFolder, prompts: int) -> None:
    """A training image for each prompt."""
    rows = [{"prompt_index": row, "type": "AB"[row % 2], "sha256": row} for row in range(prompts)]
    write_csv(folder.path / "references.csv", rows)


def results(prompts: int) -> list[Result]:
    """Two values of each image."""
    rows = []
    for number in np.random.default_rng(0).permutation(4 * prompts).tolist():
        prompt, rest = divmod(number, 4)
        quantity = ("copy_score", "realism")[rest // 2]
        rows.append(Result("r", "m", prompt, rest % 2, quantity, "v", number / prompts))
    return rows


def test_work_grows_as_the_images_do(tmp_path):
    counts = []
    for prompts in (50, 200):
        folder = made(tmp_path, prompts)
        references(folder, prompts)
        of_size = {
            "complete": calls_of(lambda f: f.complete(latents=False, trace=False), folder),
            "publish": calls_of(folder.publish),
            "images": calls_of(folder.images),
            "add": calls_of(add_results, folder.path, results(prompts)),
            "summary": calls_of(summarize, folder.path),
        }
        counts.append(of_size)
    small, large = counts
    growth = {name: large[name] / small[name] for name in small}
    assert all(ratio < 4.4 for ratio in growth.values()), growth
    assert growth["complete"] > 3 and growth["add"] > 3
