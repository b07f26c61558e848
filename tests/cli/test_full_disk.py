"""A disk that becomes full while a run, a detection or a scoring is at work, and damaged tables:
one line, nothing lost, and the command goes on to the same bytes.
"""

import errno
import os
import shutil

import pytest

import memorization_suite.pipelines.loading
from memorization_suite.commands.score_scripts import run_script
from memorization_suite.detect_memorization import main as detect
from memorization_suite.generate_images import main
from memorization_suite.metrics.scripts import CHANGE
from memorization_suite.runs import files
from tests.cli.helpers import copied, images, leftovers, rows


@pytest.fixture
def disk(monkeypatch):
    """disk(n): takes n files more, and then no other; disk(None): as many as there are."""
    sync = os.fsync
    left = []

    def fsync(handle):
        if left and left[0] is not None:
            if left[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= 1
        sync(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    return lambda count: left.__setitem__(slice(None), [count])


@pytest.fixture
def model(monkeypatch, loaded):
    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)


def stripped(folder):
    return [{**row, "seconds": ""} for row in rows(folder)]


@pytest.mark.parametrize("count", [0, 1, 3, 6, 9, 13])
def test_a_run_goes_on_after_a_full_disk(
    base, whole, model, disk, tmp_path, capsys, no_traceback, count
):
    """2 prompts a batch, 2 images each: 4 images and their rows are 5 files."""
    argv = [*base, "--output_path", str(tmp_path)]
    disk(count)
    assert main(argv) == 1
    said = no_traceback(capsys)
    assert "no space is left on the disk: " in said and " is not written, and what" in said
    assert "Rerun the command to resume." in said
    # Where nothing at all was written, no folder is left either.
    assert not any(leftovers(folder) for folder in tmp_path.glob("*/*"))
    disk(None)
    assert main(argv) == 0
    (folder,) = tmp_path.glob("*/*")
    assert images(folder) == images(whole()) and stripped(folder) == stripped(whole())


def test_a_detection_goes_on_after_a_full_disk(base, model, disk, tmp_path, capsys, no_traceback):
    argv = [*base, "--detector", "noise_norm", "--output_path"]
    assert detect([*argv, str(tmp_path / "whole")]) == 0
    for count in (4, 7):
        out = tmp_path / str(count)
        disk(count)
        assert detect([*argv, str(out)]) == 1
        assert "no space is left on the disk" in no_traceback(capsys)
        disk(None)
        assert detect([*argv, str(out)]) == 0
        tables = [place / "noise_norm" / "scores.csv" for place in (out, tmp_path / "whole")]
        assert tables[0].read_bytes() == tables[1].read_bytes()


def test_scores_stay_when_the_disk_is_full(whole, disk, tmp_path, capsys, no_traceback):
    run = copied(whole(), tmp_path)
    argv = ["--gen_folder", str(run), "--unmitigated", str(whole()), "--quiet"]
    argv += ["--metrics", "feature_change"]
    assert run_script(CHANGE, argv) == 0
    before = (run / "results.csv").read_bytes()
    disk(0)
    assert run_script(CHANGE, argv) == 1
    assert f"{run / 'results.csv'} is not written" in no_traceback(capsys)
    assert (run / "results.csv").read_bytes() == before
    disk(None)
    assert run_script(CHANGE, argv) == 0
    assert (run / "results.csv").read_bytes() == before


@pytest.fixture
def no_traceback():
    """no_traceback(capsys): what was said on stderr by a command, of which one line is a fault."""

    def said(capsys):
        text = capsys.readouterr().err
        assert "Traceback" not in text and text.count(".py: ") <= 1
        return text

    return said


# --- before a model loads


@pytest.mark.parametrize("table", ["images.csv", "trace.csv"])
def test_a_damaged_table_is_refused_and_kept(base, traced, tmp_path, capsys, no_model, table):
    folder = copied(traced("per_image"), tmp_path)
    argv = [*base, "--save_latents", "--trace", "--output_path", str(tmp_path)]
    damaged = (folder / table).read_text().replace(",0,0,", ",0,\0,", 1)
    (folder / table).write_text(damaged)
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert f"{folder / table} is no table {table[:-4]} of a run (line 2: it holds a NUL" in said
    assert (folder / table).read_text() == damaged
    assert images(folder) == images(traced("per_image"))


def test_damaged_scores_are_refused_before_the_model(base, model, tmp_path, capsys, request):
    argv = [*base, "--detector", "noise_norm", "--end", "1", "--output_path", str(tmp_path)]
    assert detect(argv) == 0
    request.getfixturevalue("no_model")
    for table in ("scores", "cost"):
        file = tmp_path / "noise_norm" / f"{table}.csv"
        whole = file.read_text()
        file.write_text("a,b\n1,2\n")
        capsys.readouterr()
        assert detect(argv) == 2
        assert f"{table}.csv is no table {table} of a run (line 2" in capsys.readouterr().err
        file.write_text(whole)


def test_a_run_without_room_loads_no_model(base, tmp_path, capsys, no_model, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=5000))
    assert main([*base, "--output_path", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "10 images take 17.2 kB or more" in said and "5 kB are free" in said
