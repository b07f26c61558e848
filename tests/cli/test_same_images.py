"""The same images, however they are asked for."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from memorization_suite import ROOT
from memorization_suite.commands.image_job import Job
from memorization_suite.generate_images import main
from memorization_suite.runs import RunFolder
from memorization_suite.sampling.noise import image_seed, initial_noise
from tests.cli.helpers import (
    KEYS,
    VARIANTS,
    copied,
    images,
    latents_of,
    leftovers,
    names,
    rows,
    said,
)


@pytest.mark.parametrize(
    ("variant", "after"),
    [("per_image", 0), ("per_image", 1), ("per_image", 2), ("official", 1), ("batch_wise", 1)],
)
def test_a_run_that_was_killed_goes_on(
    generate, whole, tmp_path, monkeypatch, capsys, variant, after
):
    save = Job.save_images
    saved = []

    def save_or_stop(job, made, wanted):
        if len(saved) == after:
            # The batch was begun, and with another picture.
            job.folder.save_image(min(wanted), Image.new("RGB", (32, 32)))
            raise KeyboardInterrupt
        saved.append(wanted)
        return save(job, made, wanted)

    with monkeypatch.context() as patch:
        patch.setattr(Job, "save_images", save_or_stop)
        folder = generate(tmp_path, *VARIANTS[variant], code=1)
    assert "interrupted" in said(capsys) and not leftovers(folder)
    assert json.loads((folder / "manifest.json").read_text())["finished"] is None
    assert generate(tmp_path, *VARIANTS[variant]) == folder
    assert images(folder) == images(whole(variant))
    assert [row["key"] for row in rows(folder)] == [str(key) for key in KEYS]
    assert {path.name for path in folder.iterdir()} == {
        path.name for path in whole(variant).iterdir()
    }


@pytest.mark.parametrize("variant", ["per_image", "official"])
@pytest.mark.parametrize("lost", ["image", "row", "table"])
def test_what_was_lost_is_made_again_and_nothing_else(generate, whole, tmp_path, variant, lost):
    folder = copied(whole(variant), tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("img_*.png"))}
    text = (folder / "images.csv").read_text().splitlines(keepends=True)
    if lost == "image":
        (folder / "img_0003_01.png").unlink()
    elif lost == "row":
        (folder / "images.csv").write_text(
            "".join(line for line in text if not line.startswith("0003_01"))
        )
    else:
        (folder / "images.csv").unlink()
    generate(tmp_path, *VARIANTS[variant])
    assert images(folder) == images(whole(variant)) and [row["key"] for row in rows(folder)] == [
        str(key) for key in KEYS
    ]
    changed = [name for name, time in before.items() if (folder / name).stat().st_mtime_ns != time]
    assert changed == names(KEYS if lost == "table" else KEYS[4:8])  # whole batches


def test_a_complete_run_makes_nothing(generate, whole, tmp_path, monkeypatch):
    folder = copied(whole(), tmp_path)
    before = {
        path: path.read_bytes()
        for path in folder.iterdir()
        if path.name not in ("manifest.json", "config.json")
    }
    monkeypatch.setattr(Job, "make", lambda *args: pytest.fail("a batch was made"))
    generate(tmp_path)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("variant", ["per_image", "official"])
def test_a_range_makes_the_same_images(generate, whole, tmp_path, variant):
    folder = generate(tmp_path, *VARIANTS[variant], "--start", "1", "--end", "3")
    assert images(folder) == {name: images(whole(variant))[name] for name in names(KEYS[2:6])}
    assert [row["key"] for row in rows(folder)] == [str(key) for key in KEYS[2:6]]
    generate(tmp_path, *VARIANTS[variant], "--start", "2")
    assert generate(tmp_path, *VARIANTS[variant]) == folder
    assert images(folder) == images(whole(variant)) and [row["key"] for row in rows(folder)] == [
        str(key) for key in KEYS
    ]


@pytest.mark.parametrize("size", ["1", "3"])
def test_another_batch_size_differs_by_rounding_only(generate, whole, tmp_path, size):
    folder = generate(tmp_path, "-b", size)
    assert list(images(folder)) == names(KEYS)
    for name in images(folder):
        first, second = (
            np.array(Image.open(path / name)).astype(int) for path in (folder, whole())
        )
        assert np.abs(first - second).max() <= 1


def test_more_samples_keep_the_first_ones(generate, whole, tmp_path):
    folder = generate(tmp_path, "--n_samples_per_prompt", "3", "--end", "1", "--save_latents")
    assert torch.equal(
        latents_of(folder, "initial")[:2],
        initial_noise([image_seed(2, 0, k) for k in range(2)], (4, 8, 8)),
    )
    for name in names(KEYS[:2]):
        first, second = (
            np.array(Image.open(path / name)).astype(int) for path in (folder, whole())
        )
        assert np.abs(first - second).max() <= 1


def test_overwrite_starts_over(generate, whole, tmp_path):
    folder = copied(whole(), tmp_path)
    (folder / names(KEYS)[0]).write_bytes(b"another picture")
    generate(tmp_path, "--overwrite", "--end", "1", "--num_inference_steps", "2")
    assert (
        list(images(folder)) == names(KEYS[:2])
        and b"another picture" not in images(folder).values()
    )
    assert [row["key"] for row in rows(folder)] == [str(key) for key in KEYS[:2]]
    assert (
        json.loads((folder / "manifest.json").read_text())["identity"]["num_inference_steps"] == 2
    )


def test_what_lies_in_a_folder_without_a_manifest_is_made_anew(generate, whole, tmp_path):
    """As a start that was killed while it removed what was there leaves it."""
    folder = copied(whole(), tmp_path)
    (folder / "manifest.json").unlink()
    (folder / "img_0003_00.png").unlink()
    assert images(generate(tmp_path)) == images(whole()) and RunFolder(folder).is_finished()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--num_inference_steps", "3"), "num_inference_steps: 4 there, 3 now"),
        (("-b", "1"), "batch_size: 2 there, 1 now"),
        (("--scheduler", "euler"), "scheduler: 'ddim' there, 'euler' now"),
        (("--rng", "official"), "rng"),
        (("--image_length", "64"), "image_length"),
        (("--dtype", "bf16"), "dtype"),
        (("--prompts", "other.txt"), "prompts_sha256"),
    ],
)
def test_another_run_in_the_folder(
    generate, base, whole, tmp_path, monkeypatch, capsys, no_model, more, told
):
    folder = copied(whole(), tmp_path)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.chdir(tmp_path)
    Path("other.txt").write_text("another prompt\n" * 5)
    assert main([*base, "--output_path", str(tmp_path), *more]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and told in message and "--overwrite" in message
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


SLOW = '''
import time
from memorization_suite.mitigation.base import Mitigation, register

@register("slow", paper="none")
class Slow(Mitigation):
    """Nothing, for a second a batch."""

    def adjust_initial_noise(self, predictor, x, t, batch):
        time.sleep(1)
        return super().adjust_initial_noise(predictor, x, t, batch)
'''


def launch(base, out, processes):
    """`accelerate launch` of a run on the CPU."""
    words = ["accelerate.commands.launch", "--cpu", "--num_processes", str(processes)]
    script = ["generate_images.py", *base, "--output_path", str(out)]
    return [sys.executable, "-m", *words, *script]


@pytest.mark.slow
def test_another_number_of_processes_goes_on_after_a_kill(base, whole, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    slow = [*base, "--plugin", str(tmp_path / "slow.py"), "--method", "slow"]
    out = tmp_path / "out"
    started = subprocess.Popen(launch(slow, out, 3), cwd=ROOT, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(out.glob("*/*/img_*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    (folder,) = out.glob("*/*")
    assert 0 < len(images(folder)) < len(KEYS) and not RunFolder(folder).is_finished()
    subprocess.run(launch(slow, out, 2), cwd=ROOT, check=True)
    assert images(folder) == images(whole()) and RunFolder(folder).is_finished()
    assert [row["key"] for row in rows(folder)] == [str(key) for key in KEYS]
    assert not (folder / ".parts").exists()


@pytest.mark.slow
def test_several_processes_share_the_batches_and_one_speaks(base, whole, tmp_path):
    command = launch(base, tmp_path, 2)
    for told in ("(10 images made, 8 NFE", "(nothing to make)"):
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1 and told in done.stdout
        assert done.stderr.count("method no_mitigation, preset none") == 1
    (folder,) = tmp_path.glob("*/*")
    assert images(folder) == images(whole())
    assert [row["key"] for row in rows(folder)] == [str(key) for key in KEYS]
    assert not (folder / ".parts").exists()
