"""Folders of 50,000 files: no command lists one more than once."""

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from memorization_suite import ROOT, generate_images, make_report, tiny
from memorization_suite.commands import distances, summarize, tradeoff
from memorization_suite.commands.score_scripts import run_script
from memorization_suite.metrics.scripts import CHANGE, COPIES, PREFERENCE

pytestmark = pytest.mark.skipif(
    not (ROOT / "tiny" / "weights" / "tiny" / "unet").is_dir(), reason="no embedded model"
)
HOOKS: list = []


def note(event: str, arguments: tuple) -> None:
    """A hook stays for ever, so it asks who listens."""
    if event in ("os.listdir", "os.scandir") and HOOKS:
        (path,) = arguments
        if isinstance(path, int):  # of a folder that is being removed
            return
        HOOKS[-1][Path(os.fsdecode(path)).resolve()] += 1


@pytest.fixture(scope="module")
def listed():
    """listed(main, argv): how often each folder was listed by the command."""
    sys.addaudithook(note)

    def run(work, *arguments) -> Counter[Path]:
        HOOKS.append(Counter())
        try:
            assert work(*arguments) == 0
        finally:
            counts = HOOKS.pop()
        return counts

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two runs of three prompts, of which two have the same training image; latents are kept."""
    folder = tmp_path_factory.mktemp("listings")
    lines = tiny.prompts("tiny").read_text(encoding="utf-8").splitlines()
    text = "\n".join([*lines[:3], lines[2]])
    (folder / "prompts.csv").write_text(f"{text}\n", encoding="utf-8")
    for method in ("no_mitigation", "batch_wise"):
        assert generate_images.main(generation(folder, method)) == 0
    return folder


def generation(folder: Path, method: str) -> list[str]:
    """The flags of a run."""
    argv = ["--model_id", "tiny", "--prompts", f"{folder / 'prompts.csv'}", "-n", "2", "--quiet"]
    argv += ["--num_inference_steps", "10", "--save_latents", "--output_path", f"{folder / 'runs'}"]
    return [*argv, "--method", method]


def runs_of(place: Path) -> list[Path]:
    """The unmitigated run first."""
    manifests = (place / "runs").glob("*/*/manifest.json")
    runs = [manifest.parent for manifest in manifests]
    return sorted(runs, key=lambda run: run.parent.name != "no_mitigation")


def often(counts: Counter[Path]) -> dict[Path, int]:
    """The folders that were listed more than once, of those that grow with a run."""
    return {path: count for path, count in counts.items() if count > 1 and may_be_large(path)}


def may_be_large(path: Path) -> bool:
    """Whether it is a run folder, its latents, or a training image's folder."""
    of_run = (path / "manifest.json").exists() or path.name == "latents"
    return of_run or tiny.GT_IMAGES in path.parents


def test_a_finished_run_is_listed_once(listed, place):
    counts = listed(generate_images.main, generation(place, "no_mitigation"))
    plain, _ = runs_of(place)
    assert counts[plain] == counts[plain / "latents"] == 1 and not often(counts)


def test_a_run_that_goes_on_is_listed_thrice(listed, place):
    """For what is there, for the room that it takes, and for what killed processes left."""
    copied = place / "copied"
    shutil.copytree(place / "runs", copied / "runs")
    shutil.copy(place / "prompts.csv", copied)
    plain, _ = runs_of(copied)
    (plain / "img_0001_01.png").unlink()
    counts = listed(generate_images.main, generation(copied, "no_mitigation"))
    assert (plain / "img_0001_01.png").exists()
    assert counts[plain] == 3 and max(often(counts).values()) == 3


@pytest.mark.parametrize(
    ("script", "metrics"), [(COPIES, "copy"), (PREFERENCE, "diversity"), (CHANGE, "feature_change")]
)
def test_scoring_lists_each_folder_once(listed, place, script, metrics):
    plain, other = runs_of(place)
    argv = ["--gen_folder", f"{other}", "--metrics", metrics]
    if script is CHANGE:
        argv += ["--unmitigated", f"{plain}"]
    counts = listed(run_script, script, argv)
    assert counts[other] == 1 and not often(counts)
    assert counts[plain] == (script is CHANGE)


def test_distances_list_each_folder_once(listed, place):
    plain, other = runs_of(place)
    argv = ["--gen_folder", f"{plain}", "--real_folder", f"{other}"]
    counts = listed(distances.main, argv)
    assert counts[plain] == counts[other] == 1 and not often(counts)


def test_summary_plot_and_page_list_each_folder_once(listed, place):
    runs = runs_of(place)
    for run in runs:
        argv = ["--gen_folder", f"{run}", "--metrics", "copy", "alignment", "--quiet"]
        assert run_script(COPIES, argv) == 0
    page = ["--out", f"{place / 'page.html'}"]
    plot = ["--out", f"{place / 'plot.png'}"]
    both = [f"{run}" for run in runs]
    for counts in (
        listed(summarize.main, both),
        listed(tradeoff.main, [*both, *plot]),
        listed(make_report.main, [both[0], f"{place / 'runs'}", *page]),
    ):
        assert [counts[run] for run in runs] == [1, 1] and not often(counts)
        assert not any(counts[run / "latents"] for run in runs)
