"""Faults while running."""

import json
import os
from pathlib import Path

import pytest

import memorization_suite.pipelines.loading
from memorization_suite.generate_images import main
from tests.cli.helpers import KEYS, images, leftovers, rows, said


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "manifest.json",
        "img_0001_00.png",
        "img_0000_01.safetensors",
        "images_0000_00-0001_01.csv",
        "images.csv",
    ],
)
def test_a_full_disk(generate, whole, tmp_path, monkeypatch, capsys, name):
    replace = os.replace

    def replace_or_fail(part, path):
        if Path(path).name == name:
            raise OSError(28, "No space left on device")
        replace(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_or_fail)
        folder = generate(tmp_path, "--save_latents", code=1)
    assert "no space is left on the disk" in said(capsys)
    assert not list(folder.rglob(name)) and not leftovers(folder)
    assert json.loads(generate(tmp_path, "--save_latents").joinpath("manifest.json").read_text())[
        "finished"
    ]
    assert images(folder) == images(whole()) and len(rows(folder)) == len(KEYS)


def test_a_disk_that_was_full_before(generate, tmp_path, monkeypatch, capsys):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert generate(tmp_path, code=1) is None
    assert "no space is left on the disk" in said(capsys)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_stop_while_the_model_is_loaded(base, tmp_path, monkeypatch, capsys, error):
    def load(*args, **kwargs):
        raise error

    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", load)
    try:
        code = main([*base, "--output_path", str(tmp_path)])
    except (KeyboardInterrupt, OSError):
        pytest.fail("a traceback")
    assert code == 1 and said(capsys)
