"""Pointers of Git LFS, which a clone without it has in the place of files: `git lfs pull` is said,
whatever the file is for.
"""

from pathlib import Path

import pytest

from memorization_suite import generate_images
from memorization_suite.commands.doctor import first_damage
from memorization_suite.metrics.checkpoints import Checkpoint, existing
from memorization_suite.metrics.pictures import Unreadable, read_picture
from memorization_suite.runs.pointers import is_pointer, pointer_fault

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1000\n"


def pointer(path: Path) -> Path:
    """A pointer in the place of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(POINTER)
    return path


def test_what_is_a_pointer(tmp_path):
    path = pointer(tmp_path / "a.safetensors")
    assert is_pointer(path)
    assert pointer_fault(path).startswith(f"{path} is a pointer of Git LFS")
    path.write_text(POINTER + "x" * 1024)
    assert not is_pointer(path)
    path.write_text("version 1\n")
    assert not is_pointer(path) and pointer_fault(path) == ""
    assert not is_pointer(tmp_path) and not is_pointer(tmp_path / "nowhere")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".jsonl", ".parquet"])
def test_a_prompt_file(tmp_path, suffix, capsys):
    path = pointer(tmp_path / f"prompts{suffix}")
    argv = ["--model_id", "tiny", "--prompts", str(path), "--output_path", str(tmp_path / "out")]
    assert generate_images.main(argv) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"{path} is a pointer of Git LFS" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture(tmp_path, suffix):
    path = pointer(tmp_path / f"0{suffix}")
    with pytest.raises(Unreadable, match="0.(png|jpg) is a pointer of Git LFS.*`git lfs pull`"):
        read_picture(path)


@pytest.mark.parametrize("folder", [False, True])
def test_a_checkpoint(tmp_path, folder):
    """That a flag gives, and that lies where download/ puts it."""
    path = pointer(tmp_path / "bert" / "vocab.txt" if folder else tmp_path / "sscd.pt")
    place = path.parent if folder else path
    with pytest.raises(ValueError, match=f"^--flag: {path} is a pointer of Git LFS"):
        existing(place, "--flag", folder=folder)
    missing = Checkpoint(place, "sscd_disc_mixup", "--flag").missing
    assert missing.startswith(f"{path} is a pointer of Git LFS")


def test_doctor(tmp_path):
    assert "a pointer of Git LFS: git lfs pull" in first_damage([pointer(tmp_path / "a.npz")])
