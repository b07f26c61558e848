"""What file managers, network disks and editors leave is nobody's: in every folder that is read."""

import json
import shutil

import pytest

from memorization_suite.commands.report.gather import find_runs
from memorization_suite.commands.scored import files_of
from memorization_suite.commands.sweeps.cluster import submitted_jobs
from memorization_suite.download.assets import named
from memorization_suite.download.check import files_of as files_of_asset
from memorization_suite.download.check import problem
from memorization_suite.metrics.checkpoints import Checkpoint, first_pointer
from memorization_suite.pipelines.fingerprints import fingerprint
from memorization_suite.pipelines.model_files import every_file
from memorization_suite.runs.run_folder import RunFolder
from memorization_suite.runs.store import Store
from tests.metrics.conftest import picture

FILES = [".DS_Store", "._config.json", "Thumbs.db", "desktop.ini", ".nfs0000000000a1", "~$a.csv"]
FOLDERS = ["@eaDir", "__MACOSX", ".Trash-0"]


def litter(folder) -> None:
    """All of it, in a folder that is made where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_text("junk")
    for name in FOLDERS:
        (folder / name).mkdir()
        for inside in ("manifest.json", "scores.csv", "model.safetensors", "img_0000_00.png"):
            (folder / name / inside).write_text("junk")


def test_a_folder_that_somebody_looked_into_is_free_for_a_run(tmp_path):
    litter(tmp_path)
    store = RunFolder(tmp_path)
    assert store.has_room({"seed": 2})
    store.prepare({"seed": 2})
    store.start({"seed": 2}, config={})
    store.clear()
    assert {*FILES, *FOLDERS} <= {path.name for path in tmp_path.iterdir()}


def test_what_else_lies_there_is_told_still(tmp_path):
    litter(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert not Store(tmp_path).has_room({})
    with pytest.raises(ValueError, match=r"of no run \(notes.txt\)"):
        Store(tmp_path).prepare({})


def test_a_model_stays_the_model_that_it_was(random_sd_folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(random_sd_folder, model)
    files = every_file(model)
    before = fingerprint(str(model))
    litter(model)
    litter(model / "unet")
    assert every_file(model) == files
    assert fingerprint(str(model)) == before


def test_a_checkpoint_that_is_a_folder(tmp_path):
    checkpoint = Checkpoint(tmp_path, "", "--a")
    (tmp_path / "vocab.txt").write_text("a")
    before = checkpoint.hashes()
    litter(tmp_path)
    assert checkpoint.hashes() == before and first_pointer(tmp_path) == ""


def test_an_archive(tmp_path):
    """Also one of which an earlier version recorded such files."""
    asset = named("sdv1_500_mem_groundtruth")
    place = tmp_path / asset.main / "1"
    place.mkdir(parents=True)
    picture(1).save(place / "0.png")
    before = files_of_asset(asset, tmp_path)
    litter(place)
    assert files_of_asset(asset, tmp_path) == before and len(before) == 1
    recorded = before | {"__MACOSX/._0.png": "0" * 64, f"{asset.main}/.DS_Store": "0" * 64}
    assert problem(asset, before, recorded) == ""


def test_folders_of_detections(tmp_path):
    (tmp_path / "noise_norm").mkdir()
    (tmp_path / "noise_norm" / "scores.csv").write_text("")
    litter(tmp_path)
    assert files_of([tmp_path]) == [tmp_path / "noise_norm" / "scores.csv"]


def test_jobs_of_a_sweep(tmp_path):
    (tmp_path / "submitted").mkdir()
    (tmp_path / "submitted" / "41.json").write_text(json.dumps({"a": "41_0"}))
    litter(tmp_path / "submitted")
    (tmp_path / "submitted" / "._41.json").write_text("junk")
    assert submitted_jobs(tmp_path) == {"a": ["41_0"]}


def test_a_page_of_a_folder(tmp_path):
    run = RunFolder(tmp_path / "runs" / "no_mitigation" / "g7_seed2")
    run.prepare({"method": "no_mitigation"})
    run.start({"method": "no_mitigation"}, config={})
    picture(1).save(run.path / "img_0000_00.png")
    for folder in (run.path, run.path.parent, tmp_path / "runs"):
        litter(folder)
    assert list(find_runs([tmp_path / "runs"])) == [run.path]
