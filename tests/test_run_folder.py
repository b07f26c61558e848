"""Run folders: nothing half-written, nothing lost, nothing mixed up."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from memorization_suite.runs.claims import FOLDER
from memorization_suite.runs.files import write_bytes, write_csv, write_json
from memorization_suite.runs.run_folder import Key, RunFolder
from memorization_suite.runs.store import Store
from memorization_suite.runs.tables import read_csv

IDENTITY = {"seed": 2, "gamma": 0.7, "settings": {"M": 2}}
KEYS = [Key(prompt, sample) for prompt in range(2) for sample in range(2)]


def opened(path, identity=IDENTITY, **options) -> RunFolder:
    folder = RunFolder(path)
    folder.prepare(identity, **options)
    folder.start(identity, config={"command": "x"}, **options)
    return folder


def row(key, **values) -> dict:
    return {**key.columns, **values}


def add(folder: RunFolder, table: str, rows: list[dict]) -> None:
    """Rows of one batch, whose first image names it."""
    folder.add(rows[0]["key"], **{table: rows})


def picture(value: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (value, 0, 0))


def fail(*args, **kwargs):
    raise OSError(28, "No space left on device")


# --- files


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_write_that_fails_changes_nothing(tmp_path, monkeypatch, step, before):
    path = tmp_path / "a.bin"
    if before is not None:
        path.write_bytes(before)
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ([] if before is None else ["a.bin"])
    assert before is None or path.read_bytes() == before


def test_an_interrupted_write_changes_nothing(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a.bin", b"new")
    assert not list(tmp_path.iterdir())


def test_a_table_has_the_columns_of_all_rows(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, [{"key": "a", "x": 'q"u;o,te\nnewline'}, {"key": "b", "y": 2}])
    assert read_csv(path) == [
        {"key": "a", "x": 'q"u;o,te\nnewline', "y": ""},
        {"key": "b", "x": "", "y": "2"},
    ]
    assert read_csv(tmp_path / "missing.csv") == []


def test_json_keeps_letters(tmp_path):
    write_json(tmp_path / "a.json", {"a": "ü"})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "a": "ü"\n}\n'.encode()


# --- the folder


def test_keys_are_written_as_the_official_files_and_sorted():
    assert [str(key) for key in sorted([Key(12, 3), Key(2, 10), Key(0, 0)])] == [
        "0000_00",
        "0002_10",
        "0012_03",
    ]


def test_open_writes_what_the_run_is(tmp_path):
    folder = opened(tmp_path / "a" / "b")
    manifest = folder.manifest()
    assert (
        manifest["identity"] == IDENTITY
        and manifest["finished"] is None
        and manifest["environments"][0]["packages"]["torch"]
    )
    assert json.loads((folder.path / "config.json").read_text()) == {"command": "x"}
    files = {"config.json", "manifest.json", FOLDER.format("tables")}
    assert {entry.name for entry in folder.path.iterdir()} == files


def test_finish_notes_the_end_and_open_again_keeps_the_start(tmp_path):
    first = opened(tmp_path)
    add(first, "images", [row(KEYS[0])])
    first.finish(images=1, of=4)
    before = first.manifest()
    assert before["finished"] and not (tmp_path / ".parts").exists()
    after = opened(tmp_path).manifest()
    assert after["started"] == before["started"] and after["finished"] is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 3}, "seed: 2 there, 3 now"),
        ({"settings": {"M": 3}}, "settings: {'M': 2} there"),
        ({"extra": "x"}, "extra: None there, 'x' now"),
    ],
)
def test_another_run_in_the_folder_is_named(tmp_path, change, told):
    opened(tmp_path)
    with pytest.raises(ValueError, match="another run") as error:
        opened(tmp_path, IDENTITY | change)
    assert (
        told in str(error.value)
        and "gamma" not in str(error.value)
        and "--overwrite" in str(error.value)
    )


def test_the_same_number_typed_otherwise_is_the_same_run(tmp_path):
    opened(tmp_path, {"g": 7, "t": (1, 2)})
    opened(tmp_path, {"g": 7.0, "t": [1, 2]})


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="no run .notes.txt"):
        opened(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("content", ["{", "", "[]", '"text"', '{"identity": 3}'])
def test_a_broken_manifest_is_told_and_overwrite_helps(tmp_path, content):
    opened(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="--overwrite"):
        opened(tmp_path)
    assert opened(tmp_path, overwrite=True).manifest()["identity"] == IDENTITY


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_path_that_is_a_file_is_told(tmp_path, place):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot write to the run folder"):
        opened(tmp_path / place)
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="cannot write to the run folder"):
        opened(tmp_path)
    tmp_path.chmod(0o700)


def test_a_disk_that_is_full_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        opened(tmp_path)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_a_stop_while_opening_does_not_spoil_the_folder(tmp_path, monkeypatch, name):
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda part, path: fail() if path.name == name else replace(part, path)
    )
    with pytest.raises((OSError, ValueError)):
        opened(tmp_path)
    monkeypatch.undo()
    assert opened(tmp_path).manifest()["identity"] == IDENTITY


def open_in_process(path, start):
    start.wait()
    opened(path)


def test_two_processes_may_open_a_folder_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    for k in range(5):
        start = context.Barrier(2)
        processes = [
            context.Process(target=open_in_process, args=(tmp_path / str(k), start))
            for _ in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0], f"folder {k}"


# --- images and rows


def test_images_and_latents_come_back(tmp_path):
    folder, tensor = opened(tmp_path), torch.randn(2, 4, 3).transpose(0, 1)
    folder.save_image(KEYS[1], picture(9))
    folder.save_latents(KEYS[1], {"initial": tensor})
    assert Image.open(tmp_path / "img_0000_01.png").getpixel((0, 0)) == (9, 0, 0)
    assert torch.equal(
        load_file(tmp_path / "latents" / "img_0000_01.safetensors")["initial"], tensor
    )


def test_the_same_image_gives_the_same_bytes(tmp_path):
    folder = opened(tmp_path)
    for key in KEYS[:2]:
        folder.save_image(key, picture(7))
    assert folder.image_path(KEYS[0]).read_bytes() == folder.image_path(KEYS[1]).read_bytes()


@pytest.mark.parametrize("publish", [False, True])
def test_a_batch_made_again_replaces_its_rows(tmp_path, publish):
    folder = opened(tmp_path)
    add(folder, "trace", [row(KEYS[2], step=k, value="old") for k in range(3)])
    add(folder, "trace", [row(KEYS[0], step=0, value="kept"), row(KEYS[1], step=0, value="old")])
    if publish:
        folder.finish(images=1, of=4)
    add(folder, "trace", [row(KEYS[1], step=k, value="new") for k in range(2)])
    found = [(entry["key"], entry["step"], entry["value"]) for entry in folder.rows("trace")]
    assert found == [
        ("0000_00", "0", "kept"),
        ("0000_01", "0", "new"),
        ("0000_01", "1", "new"),
        *[("0001_00", str(k), "old") for k in range(3)],
    ]


def test_publish_writes_the_tables_and_none_when_there_are_no_rows(tmp_path):
    folder = opened(tmp_path)
    add(folder, "images", [row(KEYS[1], prompt="b"), row(KEYS[0], prompt="a")])
    folder.publish()
    assert [entry["prompt"] for entry in read_csv(tmp_path / "images.csv")] == ["a", "b"]
    assert not (tmp_path / "trace.csv").exists()


def test_complete_wants_image_row_and_what_was_asked_for(tmp_path):
    folder = opened(tmp_path)
    for key in KEYS[:3]:
        folder.save_image(key, picture(0))
    add(folder, "images", [row(KEYS[0]), row(KEYS[1])])
    add(folder, "images", [row(KEYS[3])])
    add(folder, "trace", [row(KEYS[0], step=0)])
    folder.save_latents(KEYS[1], {"initial": torch.zeros(1)})
    assert folder.complete(latents=False, trace=False) == set(KEYS[:2])
    assert folder.complete(latents=True, trace=False) == {KEYS[1]}
    assert folder.complete(latents=False, trace=True) == {KEYS[0]}
    assert folder.complete(latents=True, trace=True) == set()


@pytest.mark.parametrize("columns", [[], ["file_bytes"]])
def test_each_folder_is_listed_once_whatever_it_holds(tmp_path, monkeypatch, columns):
    folder = RunFolder(tmp_path)
    for key in KEYS:
        size = folder.save_image(key, picture(0))
        folder.save_latents(key, {"initial": torch.zeros(1)})
        folder.add(str(key), images=[row(key, **dict.fromkeys(columns, size))])
    folder.publish()
    listed = []
    scandir = os.scandir

    def counted(path):
        listed.append(Path(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    monkeypatch.setattr(os, "listdir", fail)
    monkeypatch.setattr(Path, "exists", lambda path: path.name == "images.csv")
    assert folder.complete(latents=True, trace=False) == set(KEYS)
    assert listed.count(tmp_path) == listed.count(tmp_path / "latents") == 1


# --- damage


DAMAGE = [b"", b"no picture", None]  # None: cut in the middle


def damage(file: Path, content: bytes | None) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)


def names_of(folder: RunFolder) -> dict[Key, str]:
    return {key: path.name for key, path in folder.images().items()}


def made(path: Path, **columns) -> RunFolder:
    """A run with latents and a trace, as its job leaves it. columns: in the place of the size."""
    folder = opened(path)
    for key in KEYS:
        size = folder.save_image(key, picture(key.sample))
        folder.save_latents(key, {"initial": torch.zeros(3)})
        steps = [row(key, step=k, scale=7.5) for k in range(3)]
        folder.add(str(key), images=[row(key, **(columns or {"file_bytes": size}))], trace=steps)
    folder.publish()
    return folder


@pytest.mark.parametrize("content", DAMAGE)
@pytest.mark.parametrize("columns", [{}, {"seed": 1}])
def test_a_damaged_picture_is_not_complete_and_named(tmp_path, content, columns):
    """Also in a run of an earlier version, whose table does not tell sizes."""
    folder = made(tmp_path, **columns)
    damage(folder.image_path(KEYS[2]), content)
    there = folder.look(latents=True, trace=True)
    assert there.complete == set(KEYS) - {KEYS[2]}
    assert list(there.damaged) == [folder.image_path(KEYS[2])]
    assert folder.picture_faults(names_of(folder)) == there.damaged


@pytest.mark.parametrize("content", DAMAGE)
def test_damaged_latents_are_not_complete_and_named(tmp_path, content):
    folder = made(tmp_path)
    damage(folder.latents_path(KEYS[0]), content)
    there = folder.look(latents=True, trace=False)
    assert there.complete == set(KEYS[1:]) and list(there.damaged) == [folder.latents_path(KEYS[0])]
    assert folder.complete(latents=False, trace=False) == set(KEYS)


def test_a_picture_of_another_size_is_read(tmp_path):
    """One that somebody compressed again is whole; one with a hole is not."""
    folder = made(tmp_path)
    file = folder.image_path(KEYS[0])
    Image.open(file).save(file, compress_level=0)
    assert folder.complete(latents=True, trace=True) == set(KEYS)
    whole = file.read_bytes()
    file.write_bytes(whole[:50] + whole[52:])
    assert folder.complete(latents=True, trace=True) == set(KEYS[1:])


def test_all_pictures_are_read_where_that_is_asked_for(tmp_path):
    folder = made(tmp_path)
    file = folder.image_path(KEYS[0])
    content = bytearray(file.read_bytes())
    content[45] ^= 1
    file.write_bytes(content)
    options = {"latents": True, "trace": True}
    assert folder.look(**options).complete == set(KEYS)
    assert folder.look(**options, decode=True).complete == set(KEYS[1:])
    assert folder.look(KEYS[1:], **options, decode=True).damaged == {}


def test_copies_in_another_format_are_not_looked_at(tmp_path):
    folder = made(tmp_path)
    folder.image_path(KEYS[0]).unlink()
    (tmp_path / f"img_{KEYS[0]}.jpg").write_bytes(b"mine")
    assert folder.picture_faults(names_of(folder)) == {}


def test_a_file_that_is_being_written_is_no_damage(tmp_path):
    folder = made(tmp_path)
    (tmp_path / f".img_{KEYS[0]}.png.host.12.part").write_bytes(b"half")
    (tmp_path / "latents" / f".img_{KEYS[0]}.safetensors.host.12.part").write_bytes(b"half")
    there = folder.look(latents=True, trace=True, decode=True)
    assert there.complete == set(KEYS) and not there.damaged


@pytest.mark.parametrize("lost", [[0], [1], [2], [0, 1, 2]])
def test_rows_that_are_missing_in_the_trace(tmp_path, lost):
    folder = made(tmp_path)
    rows = read_csv(tmp_path / "trace.csv")
    left = [
        entry
        for entry in rows
        if (entry["key"], int(entry["step"])) not in [(str(KEYS[1]), step) for step in lost]
    ]
    write_csv(tmp_path / "trace.csv", left)
    assert folder.complete(latents=True, trace=True) == set(KEYS) - {KEYS[1]}
    assert folder.complete(latents=True, trace=False) == set(KEYS)
    asked = {"start": 0, "end": 2, "samples": 2, "of": 4, "latents": True}
    assert folder.is_whole(asked) and not folder.is_whole(asked | {"trace": True})


@pytest.mark.parametrize("table", ["images", "trace"])
def test_a_table_that_is_cut_anywhere_has_no_half_row(tmp_path, table):
    """Not half a value either, such as 7 of 7.5."""
    folder = made(tmp_path)
    whole = folder.rows(table)
    file = tmp_path / f"{table}.csv"
    text = file.read_bytes()
    begin = len(text.splitlines(keepends=True)[0])
    for length in range(begin, len(text)):
        file.write_bytes(text[:length])
        rows = folder.rows(table)
        assert rows == whole[: len(rows)] and len(rows) < len(whole)
    assert folder.complete(latents=True, trace=True) == set(KEYS[:-1])


def test_the_command_that_mends_a_run_starts_nothing_over(tmp_path):
    folder = opened(tmp_path)
    command = "python generate_images.py '--prompts=a b.csv' --overwrite --seed=2"
    write_json(tmp_path / "config.json", {"command": command})
    assert folder.command_again() == "python generate_images.py '--prompts=a b.csv' --seed=2"
    for content in ("{", "3", '{"command": "\'"}', "{}", ""):
        (tmp_path / "config.json").write_text(content)
        assert folder.command_again() == ""


def test_clear_removes_what_a_run_writes_and_nothing_else(tmp_path):
    folder = opened(tmp_path)
    folder.save_image(KEYS[0], picture(0))
    folder.save_latents(KEYS[0], {"initial": torch.zeros(1)})
    add(folder, "images", [row(KEYS[0])])
    add(folder, "trace", [row(KEYS[0])])
    folder.publish()
    (tmp_path / ".img_0000_00.png.123.part").write_bytes(b"half")
    mine = ["notes.txt", "img.png", "other.csv"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    folder.clear()
    left = {entry.name for entry in tmp_path.iterdir()} - {FOLDER.format("tables")}
    assert left == set(mine)


def test_overwrite_works_when_there_are_scores_beside_the_images(tmp_path):
    folder = opened(tmp_path)
    folder.save_image(KEYS[0], picture(0))
    write_csv(tmp_path / "results.csv", [{"quantity": "copy_score", "value": 1}])
    again = opened(tmp_path, IDENTITY | {"seed": 3}, overwrite=True)
    assert again.manifest()["identity"]["seed"] == 3 and not again.image_path(KEYS[0]).exists()


# --- any store


class Notes(Store):
    """Two tables; a row of `notes` says that the batch is done."""

    what = "note book"
    files = ("drawings",)
    tables = {"pages": lambda row: int(row["number"]), "notes": lambda row: int(row["number"])}


@pytest.mark.parametrize("given", [("pages", "notes"), ("notes", "pages")])
def test_a_batch_is_done_when_its_last_table_is_there(tmp_path, monkeypatch, given):
    """Whatever order the tables are given in."""
    notes = Notes(tmp_path)
    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(
            os,
            "replace",
            lambda part, path: fail() if "notes" in path.name else replace(part, path),
        )
        with pytest.raises(OSError, match="No space"):
            notes.add("a", **{table: [{"number": 10}] for table in given})
    assert (notes.done("pages"), notes.done("notes")) == ({10}, set())
    notes.add("a", **{table: [{"number": 10}, {"number": 9}] for table in given})
    assert notes.done("pages") == notes.done("notes") == {9, 10}
    assert [row["number"] for row in notes.rows("notes")] == ["9", "10"]


def test_publishing_leaves_a_place_for_other_processes(tmp_path):
    """One may publish while another is about to write its part."""
    notes = Notes(tmp_path)
    notes.prepare({})
    notes.start({}, config={})
    notes.add("a", notes=[{"number": 1}])
    notes.publish()
    assert not list((tmp_path / ".parts").iterdir())
    notes.add("b", notes=[{"number": 2}])
    notes.finish(pages=2)
    assert not (tmp_path / ".parts").exists() and notes.is_finished()
    assert notes.done("notes") == {1, 2} and notes.manifest()["pages"] == 2


@pytest.mark.parametrize("content", ["number,text\nx,a\n", "text\na\n", "number\n\n,\n"])
def test_a_table_that_is_none_is_named(tmp_path, content):
    (tmp_path / "notes.csv").write_text(content)
    with pytest.raises(ValueError, match=r"notes.csv is no table notes of a note book"):
        Notes(tmp_path).rows("notes")


def test_a_table_that_is_no_text_is_named(tmp_path):
    (tmp_path / "notes.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match=r"notes.csv is no table notes .* move it away"):
        Notes(tmp_path).rows("notes")


def test_a_store_says_what_it_is(tmp_path):
    notes = Notes(tmp_path)
    for name in ("drawings", "pages.csv", ".parts", ".pages.csv.12.part"):
        (tmp_path / name).mkdir()
    notes.prepare({"a": 1})
    (tmp_path / "other.csv").write_text("")
    with pytest.raises(ValueError, match=r"files that are of no note book \(other.csv\)"):
        notes.prepare({"a": 1})
    (tmp_path / "other.csv").unlink()
    notes.start({"a": 1}, config={})
    with pytest.raises(ValueError, match=r"another note book \(a: 1 there, 2 now\)"):
        notes.prepare({"a": 2})


@pytest.mark.parametrize("content", ["{", "[1]", "3"])
def test_a_broken_config_is_told(tmp_path, content):
    folder = opened(tmp_path)
    assert folder.config() == {"command": "x"} and RunFolder(tmp_path / "none").config() == {}
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(
        ValueError, match="config.json is no configuration of a run .* give the command"
    ):
        folder.config()


def test_a_run_that_was_started_over_meanwhile_keeps_the_other_ones_images(tmp_path):
    """No image is written into a run of other settings."""
    first = opened(tmp_path)
    first.save_image(KEYS[0], picture(1))
    other = RunFolder(tmp_path)
    other.prepare({"seed": 3}, overwrite=True)
    other.start({"seed": 3}, config={}, overwrite=True)
    other.begun = "another time"  # the clock has whole seconds
    write_json(tmp_path / "manifest.json", other.manifest() | {"started": other.begun})
    other.save_image(KEYS[0], picture(2))
    made = other.image_path(KEYS[0]).read_bytes()
    writes = (
        lambda: first.save_image(KEYS[0], picture(1)),
        lambda: first.save_latents(KEYS[0], {"final": torch.zeros(4, 1, 1)}),
        lambda: add(first, "images", [row(KEYS[0])]),
    )
    for write in writes:
        with pytest.raises(OSError, match="was started over by another command meanwhile") as told:
            write()
        assert "Give another --output_path" in told.value.__notes__[0]
    assert other.image_path(KEYS[0]).read_bytes() == made
    assert not list(tmp_path.glob(".*.part"))
