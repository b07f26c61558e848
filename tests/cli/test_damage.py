"""What is damaged in a finished run is made again: the same bytes, each row once."""

import json
import shutil

import pytest

from memorization_suite.commands.score_scripts import run_script
from memorization_suite.generate_images import main
from memorization_suite.metrics.scripts import PREFERENCE
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.files import write_csv
from tests.cli.helpers import KEYS, copied, images, rows

EXTRA = ("--save_latents", "--trace")
LOST = Key(2, 1)  # of the second batch of three


def cut(file) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file) -> None:
    file.write_bytes(b"")


def replaced(file) -> None:
    file.write_text("<html>quota exceeded</html>")


def without_last_value(file) -> None:
    """The last row lacks its end, as in a file that was cut."""
    file.write_bytes(file.read_bytes()[:-2])


def without_rows(file) -> None:
    """Some steps of an image are lost."""
    left = [
        row for row in rows(file.parent, file.stem) if row["key"] != f"{LOST}" or row["step"] > "1"
    ]
    write_csv(file, left)


def tables(folder) -> list:
    return [
        [{**row, "seconds": ""} for row in rows(folder, table)] for table in ("images", "trace")
    ]


def latents(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "latents").iterdir()}


PICTURE = f"img_{LOST}.png"
LATENTS = f"latents/img_{LOST}.safetensors"


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        (PICTURE, cut, f"{PICTURE} is cut short"),
        (PICTURE, emptied, f"{PICTURE} is empty"),
        (PICTURE, replaced, f"{PICTURE} is no PNG"),
        (LATENTS, cut, f"{LATENTS} has "),
        (LATENTS, emptied, f"{LATENTS} is empty"),
        (LATENTS, replaced, f"{LATENTS} is no safetensors file"),
        ("trace.csv", without_rows, ""),
        ("trace.csv", without_last_value, ""),
        ("images.csv", without_last_value, ""),
    ],
)
def test_the_batch_of_what_is_damaged_is_made_again(
    generate, traced, tmp_path, capsys, name, damage, told
):
    made = traced("per_image")
    folder = copied(made, tmp_path)
    before = RunFolder(folder).manifest()["finished"]
    others = {path.name: path.stat().st_mtime_ns for path in folder.glob("img_0000_*.png")}
    damage(folder / name)
    generate(tmp_path, *EXTRA)
    said = capsys.readouterr()
    assert told in said.err and ("to be made again" in said.err) == bool(told)
    assert "(1 image made" in said.out
    assert images(folder) == images(made) and latents(folder) == latents(made)
    assert tables(folder) == tables(made)
    assert RunFolder(folder).manifest()["finished"] >= before
    assert {name: (folder / name).stat().st_mtime_ns for name in others} == others
    generate(tmp_path, *EXTRA)
    assert "nothing to make" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [cut, emptied, replaced])
def test_a_run_of_an_earlier_version_tells_no_sizes(generate, whole, tmp_path, damage):
    folder = copied(whole(), tmp_path)
    table = [{name: row[name] for name in row if name != "file_bytes"} for row in rows(folder)]
    write_csv(folder / "images.csv", table)
    damage(folder / PICTURE)
    generate(tmp_path)
    assert images(folder) == images(whole())
    assert [bool(row["file_bytes"]) for row in rows(folder)] == [
        key.prompt in (2, 3) for key in KEYS
    ]


def test_sizes_are_those_of_the_files(whole):
    sizes = {row["key"]: int(row["file_bytes"]) for row in rows(whole())}
    assert sizes == {f"{key}": (whole() / f"img_{key}.png").stat().st_size for key in KEYS}


def test_verify_finds_what_sizes_do_not_tell(generate, whole, tmp_path, capsys):
    folder = copied(whole(), tmp_path)
    content = bytearray((folder / PICTURE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / PICTURE).write_bytes(content)
    generate(tmp_path)
    assert "nothing to make" in capsys.readouterr().out
    generate(tmp_path, "--verify")
    assert f"{PICTURE} cannot be decoded" in capsys.readouterr().err
    assert images(folder) == images(whole())
    generate(tmp_path, "--verify")
    assert "(nothing to make, all are whole" in capsys.readouterr().out
    assert "--verify" not in RunFolder(folder).config()["command"]


def test_a_whole_picture_of_another_size_is_named_and_kept(generate, whole, tmp_path, capsys):
    """As one that was optimized since, or that is of another run."""
    folder = copied(whole(), tmp_path)
    other = next(key for key in KEYS if sizes_differ(folder, key))
    data = (folder / f"img_{other}.png").read_bytes()
    (folder / PICTURE).write_bytes(data)
    generate(tmp_path)
    said = capsys.readouterr()
    assert (
        f"1 file is whole, but of another size than the run wrote, and kept: {PICTURE}" in said.err
    )
    assert "nothing to make" in said.out and (folder / PICTURE).read_bytes() == data


def sizes_differ(folder, key):
    """Whether an image's file has another size than the one that is damaged here."""
    return (folder / f"img_{key}.png").stat().st_size != (folder / PICTURE).stat().st_size


def test_a_piece_mends_its_own_batches(generate, whole, tmp_path, no_model):
    folder = copied(whole(), tmp_path)
    cut(folder / PICTURE)
    generate(tmp_path, "--shard", "1/3")
    assert RunFolder(folder).is_finished() and images(folder) != images(whole())


def test_the_piece_of_a_damaged_picture_makes_it_and_ends_the_run(generate, whole, tmp_path):
    folder = copied(whole(), tmp_path)
    cut(folder / PICTURE)
    generate(tmp_path, "--shard", "2/3")
    assert RunFolder(folder).is_finished() and images(folder) == images(whole())


@pytest.mark.parametrize("content", ["{", "", "[1]", "\0\0"])
def test_a_damaged_configuration_is_written_anew(generate, whole, tmp_path, no_model, content):
    folder = copied(whole(), tmp_path)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(content)
    assert run_script(PREFERENCE, ["--gen_folder", f"{folder}"]) == 2
    generate(tmp_path)
    assert json.loads((folder / "config.json").read_text()).keys() == json.loads(config).keys()


def test_scoring_names_the_command_that_mends_a_run(generate, whole, tmp_path, capsys, base):
    folder = copied(whole(), tmp_path)
    generate(tmp_path, "--overwrite")
    cut(folder / PICTURE)
    capsys.readouterr()
    assert run_script(PREFERENCE, ["--gen_folder", f"{folder}"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and f"1 file is damaged ({PICTURE} is cut short)" in message
    command = message.partition("give its command again: ")[2].split()
    assert command[:2] == ["python", "generate_images.py"] and "--overwrite" not in command
    assert main(command[2:]) == 0
    assert images(folder) == images(whole())


def test_a_copy_in_another_format_is_not_ours(generate, whole, tmp_path, capsys):
    """Readers take it; that nobody wrote down how large it is says nothing."""
    folder = copied(whole(), tmp_path)
    shutil.move(folder / PICTURE, folder / f"img_{LOST}.jpg")
    run = RunFolder(folder)
    assert run.picture_faults({key: path.name for key, path in run.images().items()}) == {}
