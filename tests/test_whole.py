"""Files that are cut, emptied or replaced are told from whole ones."""

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from memorization_suite.runs.whole import array_fault, ends_fault, picture_fault, tensors_fault


def noise_png() -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, format="PNG")
    return data.getvalue()


def array() -> bytes:
    data = io.BytesIO()
    np.save(data, np.ones((3, 5), np.float32))
    return data.getvalue()


WHOLE = {
    "a.png": noise_png(),
    "a.safetensors": save({"initial": torch.ones(4, 3), "final": torch.zeros(2)}),
    "a.npy": array(),
}
CHECKS = [
    ("a.png", ends_fault),
    ("a.png", picture_fault),
    ("a.safetensors", tensors_fault),
    ("a.npy", array_fault),
]


@pytest.mark.parametrize(("name", "fault"), CHECKS)
def test_every_cut_is_found(tmp_path, name, fault):
    file = tmp_path / name
    file.write_bytes(WHOLE[name])
    assert fault(file) == ""
    for length in range(len(WHOLE[name])):
        file.write_bytes(WHOLE[name][:length])
        assert fault(file), f"{length} bytes"


@pytest.mark.parametrize(("name", "fault"), CHECKS)
@pytest.mark.parametrize("content", [b"", b"no picture\n", b"\0" * 4000, b"{}", b"\xff" * 99])
def test_other_content_is_found(tmp_path, name, fault, content):
    (tmp_path / name).write_bytes(content)
    assert fault(tmp_path / name)
    assert fault(tmp_path / "gone")
    assert fault(tmp_path)


def test_all_of_a_picture_tells_more_than_its_ends(tmp_path):
    """A changed bit anywhere, a hole, a part that is missing."""
    whole = WHOLE["a.png"]
    file = tmp_path / "a.png"
    changed = []
    for seed in range(200):
        damaged = bytearray(whole)
        damaged[random.Random(seed).randrange(len(whole))] ^= 1 << seed % 8
        changed.append(bytes(damaged))
    hole = whole[:300] + bytes(200) + whole[500:]
    for content in [*changed, hole, whole[:300] + whole[310:]]:
        file.write_bytes(content)
        assert picture_fault(file)
    file.write_bytes(hole)
    assert ends_fault(file) == ""


def test_faults_are_said_in_words(tmp_path):
    file = tmp_path / "a.png"
    for content, told in [(b"", "is empty"), (b"text" * 9, "is no PNG")]:
        file.write_bytes(content)
        assert ends_fault(file) == picture_fault(file) == told
    file.write_bytes(WHOLE["a.png"][:-1])
    assert ends_fault(file) == "is cut short"
    file = tmp_path / "a.safetensors"
    file.write_bytes(WHOLE["a.safetensors"][:-1])
    size = len(WHOLE["a.safetensors"])
    assert tensors_fault(file) == f"has {size - 1} of {size} bytes"
