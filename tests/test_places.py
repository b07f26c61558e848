"""Places that cannot take what is to be written: told before the work, with what to type."""

import errno
import os
from collections import namedtuple

import pytest

from memorization_suite.commands import fetch, room
from memorization_suite.commands.detect import detect
from memorization_suite.commands.detect_plan import plan_detection
from memorization_suite.commands.generate import generate
from memorization_suite.commands.generate_plan import plan
from memorization_suite.commands.room import check_room
from memorization_suite.commands.settings import check_out
from memorization_suite.commands.spectrum import spectrum
from memorization_suite.commands.sweeps.sweep import plan_sweep, sweep
from memorization_suite.download.assets import read_assets
from memorization_suite.runs.cli import command
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.parts import part_of, writer_lives
from memorization_suite.runs.places import check_file, check_names, check_place, nearest
from memorization_suite.runs.run_folder import Key, RunFolder
from memorization_suite.runs.store import publishing
from memorization_suite.runs.text import fault_text, is_full

LONG = "x" * 300
Usage = namedtuple("Usage", "total used free")


def planned(out, **more):
    return plan(model_id="tiny", device="cpu", output_path=str(out), **more)


@pytest.fixture
def little_room(monkeypatch):
    """little_room(bytes): so many are free on every disk."""

    def only(free):
        monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**12, 10**12 - free, free))

    return only


# --- names


def test_a_name_of_255_bytes_is_possible_and_one_more_is_not(tmp_path):
    check_names(tmp_path / ("x" * 255), "--out")
    for name, size in (("x" * 256, 256), ("\u00e4" * 128, 256)):
        with pytest.raises(ValueError, match=rf"has {size} bytes, and .* takes 255. Give another"):
            check_names(tmp_path / name / "a", "--out")


def test_a_name_that_is_made_of_settings_says_what_to_change(tmp_path):
    with pytest.raises(ValueError, match="combine fewer methods"):
        check_names(tmp_path / "method" / LONG, "--output_path", made=2)


def test_a_path_that_is_too_long(tmp_path):
    path = tmp_path.joinpath(*["y" * 200] * 21)
    with pytest.raises(ValueError, match="bytes, and 4016 are possible. Give a shorter --out"):
        check_names(path, "--out")


def test_a_plan_says_so_before_a_model_loads(tmp_path):
    with pytest.raises(ValueError, match="has 300 bytes, .* Give another --output_path"):
        planned(tmp_path / LONG)
    file = tmp_path / "a.toml"
    file.write_text('[common]\nmodel_id = "tiny"\n[[run]]\n')
    with pytest.raises(ValueError, match="run 1 of 1 .* has 300 bytes"):
        plan_sweep(file, tmp_path / LONG)


def test_any_argument_that_is_too_long_is_an_input(capsys):
    def work():
        os.stat(LONG)

    assert command("x.py", work, after=(". What is finished is kept.", "")) == 2
    said = capsys.readouterr().err
    assert "it has 300 bytes, and 255 are possible. Type a shorter one" in said
    assert "kept" not in said


def test_a_file_with_the_longest_name_is_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".csv")
    write_bytes(path, b"a")
    assert path.read_bytes() == b"a" and os.listdir(tmp_path) == [path.name]
    assert len(part_of(path).name) <= 255 and writer_lives(part_of(path).name)


# --- folders


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"file is a file. Give another --output_path"):
        check_place(tmp_path / "file" / "below" / "it", "--output_path")
    file = tmp_path / "a.toml"
    file.write_text('[common]\nmodel_id = "tiny"\n[[run]]\n')
    runs = plan_sweep(file, tmp_path / "file" / "out")
    with pytest.raises(ValueError, match="file is a file"):
        sweep(runs, tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "x"


def test_a_disk_that_is_read_only(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    checks = (
        lambda: check_out(tmp_path / "a.json"),
        lambda: check_file(tmp_path / "a.html", "--out", "a.csv"),
        lambda: check_place(tmp_path / "new", "--output_path"),
        lambda: RunFolder(tmp_path / "run").prepare({}),
    )
    for check in checks:
        with pytest.raises(ValueError, match="cannot write to .*Read-only file system. Give"):
            check()


def test_the_nearest_place_that_is_there(tmp_path):
    assert nearest(tmp_path / LONG / "a") == tmp_path and nearest(tmp_path) == tmp_path


# --- room


def test_a_run_that_has_no_room_is_refused_with_both_numbers(tmp_path, little_room):
    run = planned(tmp_path, image_length=64, end=2, n_samples_per_prompt=5)
    needed = 10 * (64 * 64 + 700)
    little_room(needed - 1)
    with pytest.raises(ValueError, match=r"10 images take 48 kB or more .*, and 48 kB are free"):
        room.check_room_of_images(run, run.own())
    room.check_room_of_images(run, run.own()[:9])
    little_room(needed)
    room.check_room_of_images(run, run.own())


def test_files_that_are_replaced_or_removed_make_room(tmp_path, little_room):
    run = planned(tmp_path, image_length=64, end=1, n_samples_per_prompt=2)
    run.folder.mkdir(parents=True)
    for key in run.own():
        (run.folder / f"img_{key}.png").write_bytes(b"x" * 6000)
    little_room(0)
    room.check_room_of_images(run, run.own())
    again = planned(tmp_path, image_length=64, end=1, n_samples_per_prompt=2, overwrite=True)
    room.check_room_of_images(again, again.own())


def test_latents_and_traces_count(tmp_path):
    bare = planned(tmp_path, image_length=64)
    full = planned(tmp_path, image_length=64, save_latents=True, trace=True)
    side = room.side_of(full.settings)
    steps = full.settings.num_inference_steps
    more = 224 + 3 * 4 * side**2 * 4 + 35 * steps
    assert room.bytes_of_images(full, 10) - room.bytes_of_images(bare, 10) == 10 * more


def test_nothing_to_make_needs_no_room(tmp_path, little_room):
    little_room(0)
    check_room(tmp_path, 0, "0 images")


def test_a_sweep_that_has_no_room_writes_nothing(tmp_path, little_room):
    file = tmp_path / "a.toml"
    file.write_text('[common]\nmodel_id = "tiny"\ndevice = "cpu"\nend = 1\n[[run]]\n')
    little_room(100)
    with pytest.raises(ValueError, match="no room on the disk of .* 10 images take"):
        sweep(plan_sweep(file, tmp_path / "out"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_has_no_room_leaves_no_empty_folder(tmp_path, little_room):
    """Of a run or a detection; folders that were there stay, and so does what lies in them."""
    out = tmp_path / "out"
    little_room(100)
    with pytest.raises(ValueError, match="no room on the disk"):
        generate(planned(out, end=1))
    with pytest.raises(ValueError, match="no room on the disk"):
        detect(plan_detection(model_id="tiny", device="cpu", output_path=str(out), end=1))
    assert not out.exists()
    made = planned(out, end=1)
    (out / "no_mitigation").mkdir(parents=True)
    (out / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="no room on the disk"):
        generate(made)
    assert {path.name for path in out.rglob("*")} == {"no_mitigation", "note.txt"}


@pytest.mark.parametrize("start", ["a run", "a study"])
def test_a_model_that_is_refused_leaves_no_empty_folder(tmp_path, start):
    def load(*args, **more):
        raise ValueError("no such model")

    out = tmp_path / "out"
    with pytest.raises(ValueError, match="no such model"):
        if start == "a run":
            generate(planned(out, end=1), load=load)
        else:
            spectrum(model_id="tiny", device="cpu", output_path=str(out), end=1, load=load)
    assert not out.exists()


def test_downloads_are_added_up_before_the_first(tmp_path, little_room, capsys):
    assets = [each for each in read_assets().values() if each.size][:2]
    little_room(sum(each.size for each in assets) - 1)
    assert fetch.main([*(each.name for each in assets), "--root", str(tmp_path), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "no room on the disk of" in said and "are to come, and" in said
    assert not list(tmp_path.iterdir())


# --- a disk that becomes full


def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_with_the_file_and_what_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "fsync", full)
    after = (". What is finished is kept. Rerun the command to resume.", "")
    assert command("x.py", lambda: write_bytes(tmp_path / "a.png", b"x"), after=after) == 1
    assert capsys.readouterr().err == (
        f"x.py: no space is left on the disk: {tmp_path / 'a.png'} is not written, and what is "
        "written already stays. Make room first. What is finished is kept. Rerun the command to "
        "resume.\n"
    )
    assert not list(tmp_path.iterdir())


def test_which_errors_are_of_a_full_disk():
    quota = OSError(errno.EDQUOT, "x")
    assert is_full(quota) and "quota" in fault_text(quota)
    assert not is_full(OSError("no space")) and fault_text(OSError()) == "OSError"


def test_tables_that_cannot_be_written_do_not_hide_why_the_work_ended(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.prepare({})
    folder.start({}, config={})
    folder.add("a", images=[Key(0, 0).columns])
    first = OSError(errno.ENOSPC, "the first")
    with pytest.raises(OSError, match="the first"), publishing([folder]):
        monkeypatch.setattr(os, "fsync", full)
        raise first
    monkeypatch.undo()
    assert folder.done("images") == {Key(0, 0)}
