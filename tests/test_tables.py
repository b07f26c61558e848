"""Tables: what a spreadsheet would run is marked, and read as it was; what a kill left goes."""

import csv
import os
import subprocess
import sys
import time

import pytest

from memorization_suite.detection.evaluation.score_files import read_scores
from memorization_suite.runs.claims import SILENT
from memorization_suite.runs.files import write_bytes, write_csv
from memorization_suite.runs.leftovers import remove_leftovers
from memorization_suite.runs.parts import machine_tag, part_of, writer_lives
from memorization_suite.runs.run_folder import Key, RunFolder
from memorization_suite.runs.table import Result, add_results, read_results
from memorization_suite.runs.tables import read_csv

# A text -> how it stands in our tables.
MARKED = {
    "=1+1": "'=1+1",
    "+1 dog": "'+1 dog",
    "-a": "'-a",
    "-": "'-",
    "@SUM(A1)": "'@SUM(A1)",
    "\tx": "'\tx",
    "\rx": "'\rx",
    "'=1": "''=1",
    "''=1": "'''=1",
    "'-1": "''-1",
    "-1-2": "'-1-2",
    "+1_000": "'+1_000",
    "a=1": "a=1",
    "'quoted'": "'quoted'",
    "'": "'",
    "": "",
    " =1": " =1",
    "0001_00": "0001_00",
    "猫 = 猫": "猫 = 猫",
}
# What is a number stays one, as such or as a text.
NUMBERS = (-1, -0.5, 3, True, None, "-1", "+3", "-0.5", "-1e-05", "-inf", "-nan", ".5", "-.5")


@pytest.mark.parametrize(("text", "cell"), MARKED.items())
def test_a_text_is_marked_in_the_file_and_not_when_it_is_read(tmp_path, text, cell):
    file = tmp_path / "a.csv"
    write_csv(file, [{"key": "0", "text": text}])
    with open(file, newline="", encoding="utf-8") as opened:
        assert next(csv.DictReader(opened))["text"] == cell
    assert read_csv(file) == [{"key": "0", "text": text}]
    write_csv(file, read_csv(file))
    assert read_csv(file) == [{"key": "0", "text": text}]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_not_marked(tmp_path, number):
    write_csv(tmp_path / "a.csv", [{"key": "0", "number": number}])
    expected = "" if number is None else str(number)
    assert (tmp_path / "a.csv").read_text() == f"key,number\n0,{expected}\n"
    assert read_csv(tmp_path / "a.csv") == [{"key": "0", "number": expected}]


def test_an_older_table_reads_as_before(tmp_path):
    (tmp_path / "a.csv").write_text("text,value\n=1+1,-3\n'single',\n@a,2\n")
    read = [(row["text"], row["value"]) for row in read_csv(tmp_path / "a.csv")]
    assert read == [("=1+1", "-3"), ("'single'", ""), ("@a", "2")]


@pytest.mark.parametrize("text", MARKED)
def test_tables_of_runs(tmp_path, text):
    """images.csv through its parts, results.csv, and scores.csv."""
    folder = RunFolder(tmp_path)
    folder.prepare({})
    folder.start({}, config={})
    for sample in range(2):
        folder.add(str(sample), images=[Key(0, sample).columns | {"prompt": text}])
        folder.publish()
    assert [row["prompt"] for row in folder.rows("images")] == [text, text]
    result = Result(text, "method", 0, 0, "copy_score", "variant", -0.25)
    add_results(tmp_path, [result])
    assert read_results(tmp_path) == [result]
    written = (tmp_path / "results.csv").read_text(encoding="utf-8")
    assert "-0.25" in written and "'-0.25" not in written
    row = {"set": "mem", "prompt_index": 0, "sample_index": 0, "prompt": text, "score": -1.5}
    write_csv(tmp_path / "scores.csv", [row])
    (score,) = read_scores(tmp_path / "scores.csv")["mem"]
    assert (score.prompt, score.score) == (text, -1.5)


# --- what a kill leaves


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def part(folder, pid, tag=None, name="img_0000_00.png", age=0.0):
    """A part of a process, last written to so many seconds ago."""
    path = folder / f".{name}.some.host.{tag or machine_tag()}.{pid}.part"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_the_name_of_a_part_tells_whose_it_is(tmp_path):
    name = part_of(tmp_path / "a.png").name
    assert writer_lives(name) is True and name.startswith(".a.png.")
    assert writer_lives(part(tmp_path, dead_process()).name) is False
    assert writer_lives(part(tmp_path, 1, tag="01234567").name) is None
    for other in (".a.png.host.12.part", "a.part", ".clock.host.1.2.part"):
        assert writer_lives(other) is None


def test_parts_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    dead = dead_process()
    gone = [
        part(tmp_path, dead),
        part(tmp_path, dead, name="images.csv"),
        part(tmp_path / "latents", dead),
        part(tmp_path / ".parts", dead),
        part(tmp_path, 1, tag="01234567", age=SILENT + 60),
    ]
    old = tmp_path / ".img_0000_01.png.host.12.part"  # of an earlier version
    old.write_bytes(b"half")
    os.utime(old, (1, 1))
    folder = tmp_path / f".claims_tables.host.{machine_tag()}.{dead}.part"
    folder.mkdir()
    (folder / "tables.1").write_bytes(b"{}")
    kept = [
        part(tmp_path, os.getpid(), age=SILENT + 60),
        part(tmp_path, os.getppid(), name="b"),
        part(tmp_path, 1, tag="01234567", name="c"),
        part(tmp_path / "elsewhere", dead),
    ]
    mine = tmp_path / "my.part"
    mine.write_bytes(b"mine")
    remove_leftovers(tmp_path, ["latents", ".parts", "not there"])
    assert not any(path.exists() for path in [*gone, old, folder])
    assert all(path.exists() for path in [*kept, mine])


def test_a_run_that_starts_again_removes_them(tmp_path):
    dead = dead_process()
    gone = [part(tmp_path, dead), part(tmp_path / "latents", dead)]
    folder = RunFolder(tmp_path)
    folder.prepare({})
    folder.start({}, config={})
    assert not any(path.exists() for path in gone)


def test_a_process_that_is_killed_while_it_writes(tmp_path):
    code = """
import os, sys
from pathlib import Path
from memorization_suite.runs.files import write_bytes
def wait(): print("here", flush=True); sys.stdin.read()
write_bytes(Path(sys.argv[1]) / "img_0000_00.png", b"whole", wait)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **pipes)
    process.stdout.readline()
    remove_leftovers(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    process.kill()
    process.communicate()
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())
    write_bytes(tmp_path / "img_0000_00.png", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["img_0000_00.png"]
