"""Tables that are damaged, or that a spreadsheet saved: read, or told with their file and line."""

import math

import pytest

from memorization_suite.commands.calibrate import threshold
from memorization_suite.commands.detect_plan import ScoreFolder
from memorization_suite.commands.settings import at_work
from memorization_suite.detection.evaluation.score_files import read_scores
from memorization_suite.metrics.pictures import loading
from memorization_suite.metrics.references import stored_rows
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.run_folder import Key, RunFolder
from memorization_suite.runs.table import Result, add_results, read_results
from memorization_suite.runs.tables import Damaged, Fault, numbered_rows
from memorization_suite.runs.text import said_by

TABLE = "key,prompt_index,sample_index,prompt,seconds\n0000_00,0,0,a,0.5\n0000_01,0,1,b,1.5\n"
LINES = TABLE.splitlines()
# What a file holds -> what is said of it.
REFUSED = {
    b"a,b\n1,2\n": "line 2: it has no column prompt_index; its columns are 'a', 'b'",
    TABLE.replace("0.5", "soon").encode(): "line 2: seconds is 'soon', and no number",
    TABLE.replace("00,0,", "00,x,").encode(): "line 2: prompt_index is 'x', and no number from 0",
    TABLE.replace("00,0,", "00,-1,").encode(): "line 2: prompt_index is '-1'",
    TABLE.replace(",a,", ",\0,").encode(): "line 2: it holds a NUL byte",
    TABLE.replace(",0,a,0.5", "").encode(): "line 2: it has 2 fields in the place of 5",
    TABLE.replace("0.5", "0.5,7").encode(): "line 2: it has 6 fields in the place of 5",
    f"{LINES[0]}\n{TABLE}".encode(): "line 2: seconds is 'seconds', and no number",
    TABLE.replace("a", "\xe4").encode("latin-1"): "it is not UTF-8 text",
    TABLE.encode("utf-16"): "it is UTF-16 text: save it as UTF-8",
}
READ = {
    "a byte order mark": TABLE.encode("utf-8-sig"),
    "CRLF": TABLE.replace("\n", "\r\n").encode(),
    "semicolons": TABLE.replace(",", ";").encode(),
    "tabs": TABLE.replace(",", "\t").encode(),
    "empty lines": TABLE.replace("\n", "\n\n").encode(),
}


@pytest.mark.parametrize("content", REFUSED)
def test_a_damaged_table_is_told_with_its_line(tmp_path, content):
    (tmp_path / "images.csv").write_bytes(content)
    with pytest.raises(Damaged) as caught:
        RunFolder(tmp_path).rows("images")
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'images.csv'} is no table images of a run (")
    assert REFUSED[content] in said and "what it lacks is made again" in said and "\n" not in said


@pytest.mark.parametrize("how", READ)
def test_what_a_spreadsheet_saved_is_read(tmp_path, how):
    (tmp_path / "images.csv").write_bytes(READ[how])
    rows = RunFolder(tmp_path).rows("images")
    assert [(row["key"], row["prompt"], row["seconds"]) for row in rows] == [
        ("0000_00", "a", "0.5"),
        ("0000_01", "b", "1.5"),
    ]


def test_the_last_row_of_a_table_that_was_cut_is_none(tmp_path):
    for end in (1, 4, 9):
        (tmp_path / "images.csv").write_text(TABLE[:-end])
        assert RunFolder(tmp_path).done("images") == {Key(0, 0)}


def test_a_folder_in_the_place_of_a_table(tmp_path):
    for name in ("images.csv", "results.csv", "references.csv"):
        (tmp_path / name).mkdir()
    readers = (
        lambda: RunFolder(tmp_path).rows("images"),
        lambda: read_results(tmp_path),
        lambda: stored_rows(tmp_path),
    )
    for read in readers:
        with pytest.raises(Damaged, match="it is a folder, and no file"):
            read()


def test_a_table_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    file = tmp_path / "a.csv"
    file.write_text(TABLE)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(Fault, match="it cannot be read: Permission denied"):
        numbered_rows(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("value", "number"), "its columns are 'run', .*'number'"),
        (lambda text: text.replace("0.5", "soon"), "line 2: value is 'soon', and no number"),
        (lambda text: text.replace(",q,v,0.5", ""), "line 2: it has 4 fields in the place of 7"),
        (lambda text: text.replace("m,0,", "m,-2,"), "line 2: prompt_index is '-2'"),
        (lambda text: text.replace(",v,", ",\0,"), "line 2: it holds a NUL byte"),
    ],
)
def test_results(tmp_path, change, said):
    add_results(tmp_path, [Result("r", "m", 0, 0, "q", "v", 0.5)])
    file = tmp_path / "results.csv"
    text = file.read_text()
    for saved in (text.replace(",", ";"), "\ufeff" + text, text.replace("\n", "\r\n")):
        file.write_text(saved, newline="")
        assert read_results(tmp_path) == [Result("r", "m", 0, 0, "q", "v", 0.5)]
    file.write_text(change(text))
    with pytest.raises(ValueError, match=rf"results.csv is no table of results \({said}"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "line 2: it has no column sha256"),
        ("prompt_index,sha256\nx,ab\n", "line 2: prompt_index is 'x'"),
        ("prompt_index,sha256\n1\n", "line 2: it has 1 field in the place of 2"),
    ],
)
def test_references(tmp_path, content, said):
    (tmp_path / "references.csv").write_text(content)
    with pytest.raises(ValueError, match=f"no table of training images .{said}.*writes it anew"):
        stored_rows(tmp_path)


def test_scores(tmp_path):
    """Of `calibrate threshold`, `evaluate`, and a detection that goes on."""
    rows = [
        {"set": name, "prompt_index": i, "prompt": "=a", "sample_index": 0, "score": i + 0.5}
        for name in ("mem", "nonmem")
        for i in range(2)
    ]
    file = tmp_path / "scores.csv"
    write_csv(file, rows)
    text = file.read_text()
    assert threshold(file, fpr=0).value > 1.5
    file.write_text(text.replace(",", ";"))
    assert threshold(file, fpr=0).value > 1.5
    assert [score.prompt for score in read_scores(file)["mem"]] == ["=a", "=a"]
    for damage, said in (("soon", "line 5: score is 'soon'"), ("1.5,", "line 5: it has 6 fields")):
        file.write_text(damage.join(text.rsplit("1.5", 1)))
        for read in (threshold, lambda path: ScoreFolder(path.parent).rows("scores")):
            with pytest.raises(ValueError, match=f"scores.csv .*{said}"):
                read(file)
    file.write_text(text.replace("nonmem", "none"))
    with pytest.raises(ValueError, match="line 4: the set 'none' is neither mem nor nonmem"):
        threshold(file)


def test_a_prompt_of_140_000_characters(tmp_path):
    """It is longer than Python's module takes for a cell."""
    caption = "a kite, " * 17_500
    folder = RunFolder(tmp_path)
    folder.prepare({})
    folder.start({}, config={})
    folder.add("a", images=[Key(0, 0).columns | {"prompt": caption}])
    assert folder.rows("images")[0]["prompt"] == caption
    folder.finish()
    assert RunFolder(tmp_path).rows("images")[0]["prompt"] == caption
    cells = {"set": "mem", "prompt_index": 0, "prompt": caption, "sample_index": 0, "score": 1}
    write_csv(tmp_path / "scores.csv", [cells])
    assert read_scores(tmp_path / "scores.csv")["mem"][0].prompt == caption


def test_a_file_that_is_damaged_while_a_job_runs_is_a_fault_and_no_bug():
    with pytest.raises(OSError, match="images.csv is damaged"), at_work():
        raise Damaged("images.csv is damaged")
    with pytest.raises(RuntimeError, match="a fault of the suite"), at_work():
        raise ValueError("another one")


def test_an_error_without_a_text_is_named_by_its_kind(tmp_path):
    assert said_by(EOFError()) == "EOFError" and said_by(ValueError("a\n b")) == "a b"
    file = tmp_path / "a.pth"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="AlexNet: it is empty"), loading(file, "AlexNet"):
        raise EOFError
    file.write_bytes(b"x")
    with pytest.raises(ValueError, match="AlexNet: EOFError"), loading(file, "AlexNet"):
        raise EOFError


def test_numbers_that_are_not_finite_are_numbers(tmp_path):
    (tmp_path / "images.csv").write_text(TABLE.replace("0.5", "nan").replace("1.5", "inf"))
    seconds = [float(row["seconds"]) for row in RunFolder(tmp_path).rows("images")]
    assert math.isnan(seconds[0]) and seconds[1] == math.inf
