"""generate_images.py --shard: pieces in one folder give the bytes of one process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from memorization_suite.commands import image_job
from memorization_suite.generate_images import main
from memorization_suite.runs import RunFolder, store
from memorization_suite.runs.files import write_json
from tests.cli.helpers import KEYS, copied, images, rows

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def table(folder):
    """images.csv without the seconds."""
    return [
        {name: value for name, value in row.items() if name != "seconds"} for row in rows(folder)
    ]


@pytest.mark.parametrize("variant", ["per_image", "official"])
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_pieces_in_any_order_are_the_whole(generate, whole, tmp_path, variant, order, capsys):
    more = ("--rng", variant)
    for place, number in enumerate(order, 1):
        folder = generate(tmp_path, *more, "--shard", f"{number}/3")
        assert RunFolder(folder).is_finished() == (place == 3)
        printed = capsys.readouterr().out
        assert f"of piece {number}/3 in" in printed
        assert ("(other pieces are not made yet)" in printed) == (place < 3)
    assert images(folder) == images(whole(variant)) and table(folder) == table(whole(variant))
    assert not (folder / ".parts").exists()


def test_a_piece_makes_its_batches_alone(generate, tmp_path):
    """Five prompts with -b 2: the batches are 0 1, 2 3, 4."""
    folder = generate(tmp_path, "--shard", "2/3")
    assert {key.prompt for key in RunFolder(folder).images()} == {2, 3}
    folder = generate(tmp_path, "--shard", "1/2")
    assert {key.prompt for key in RunFolder(folder).images()} == {0, 1, 2, 3, 4}


def test_the_command_of_a_piece_is_noted_as_that_of_the_run(generate, tmp_path):
    folder = generate(tmp_path, "--shard", "2/3")
    assert "--shard" not in RunFolder(folder).config()["command"]


def test_a_later_command_closes_a_run_that_is_whole(generate, whole, tmp_path, no_model):
    """Its last process died between its last image and the tables."""
    folder = copied(whole(), tmp_path)
    made = RunFolder(folder)
    manifest = made.manifest()
    unpublish(made)
    assert RunFolder(folder).close_if_whole()
    assert RunFolder(folder).manifest()["images"] == manifest["images"] == len(KEYS)
    assert table(folder) == table(whole())
    unpublish(made)
    generate(tmp_path, "--shard", "1/4")
    assert RunFolder(folder).is_finished() and table(folder) == table(whole())


def unpublish(run):
    """Puts the rows of a finished run back into a part, as before its end."""
    (run.path / ".parts").mkdir()
    for name in run.tables:
        file = run.path / f"{name}.csv"
        if file.exists():
            file.rename(run.path / ".parts" / f"{name}_0000_00.csv")
    write_json(run.path / "manifest.json", run.manifest() | {"finished": None})


def test_a_run_that_lacks_an_image_is_not_closed(whole, tmp_path):
    folder = copied(whole(), tmp_path)
    run = RunFolder(folder)
    unpublish(run)
    part = run.path / ".parts" / "images_0000_00.csv"
    part.write_text("".join(part.read_text().splitlines(keepends=True)[:-1]))
    assert not run.close_if_whole() and not run.is_finished()


def test_two_ranges_with_a_batch_in_common_keep_the_rows_of_both(generate, whole, tmp_path):
    """The shorter one ends its batch last, before the longer one has written the table."""
    folder = generate(tmp_path, "--end", "3", "--shard", "2/2")
    short = next((folder / ".parts").glob("images_*.csv"))
    rows_of_short = short.read_text()
    generate(tmp_path, "--shard", "2/2")
    short.write_text(rows_of_short)
    generate(tmp_path, "--shard", "1/2")
    assert table(folder) == table(whole())


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--shard", "0/4"), "I from 1 to N, whole batches are the unit"),
        (("--shard", "1/4", "--overwrite"), "would remove those of the others"),
    ],
)
def test_what_is_refused(base, tmp_path, no_model, capsys, flags, told):
    assert main([*base, "--output_path", str(tmp_path), *flags]) == 2
    message = capsys.readouterr().err
    assert told in message and message.count("\n") == 1 and not any(tmp_path.iterdir())


def test_two_that_begin_at_once_keep_each_others_batches(generate, whole, tmp_path, monkeypatch):
    """The second one begins, and ends, while the first one is at work."""
    save = image_job.Job.save
    inner = []

    def save_and_start_another(self, *arguments):
        save(self, *arguments)
        if not inner:
            inner.append(True)
            generate(tmp_path, "--shard", "2/2")

    monkeypatch.setattr(image_job.Job, "save", save_and_start_another)
    folder = generate(tmp_path, "--shard", "1/2")
    assert images(folder) == images(whole()) and table(folder) == table(whole())
    assert RunFolder(folder).is_finished()


def test_a_piece_of_a_run_that_was_started_over_stops(
    generate, base, tmp_path, monkeypatch, capsys
):
    """Another command starts the run over, in the same folder, while a piece is made."""
    save = image_job.Job.save
    inner = []

    def save_after_another(self, *arguments):
        if not inner:
            inner.append(True)
            monkeypatch.setattr(store, "now", lambda: "2100-01-01T00:00:00+00:00")
            generate(tmp_path, "--num_inference_steps", "3", "--overwrite")
        save(self, *arguments)

    monkeypatch.setattr(image_job.Job, "save", save_after_another)
    folder = generate(tmp_path, "--shard", "1/2", code=1)
    assert "was started over by another command" in capsys.readouterr().err
    assert {row["unet_evals"] for row in rows(folder)} == {"6"} and len(rows(folder)) == len(KEYS)


def test_a_run_whose_traces_lack_is_not_closed(generate, tmp_path):
    generate(tmp_path)
    folder = generate(tmp_path, "--trace", "--shard", "1/2")
    assert not RunFolder(folder).is_finished()
    generate(tmp_path, "--trace", "--shard", "2/2")
    assert RunFolder(folder).is_finished()
    assert {row["key"] for row in rows(folder, "trace")} == {str(key) for key in KEYS}


@pytest.mark.slow
def test_four_pieces_at_once_and_one_killed(base, generate, tmp_path):
    """Each in its own process; the killed one is started again."""
    alone = generate(tmp_path / "alone", "-b", "1")
    out = tmp_path / "pieces"

    def start(number):
        command = [sys.executable, "generate_images.py", *base, "--output_path", str(out)]
        threads = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: sums depend on it
        piece = ["-b", "1", "--shard", f"{number}/4"]
        return subprocess.Popen([*command, *piece], cwd=ROOT, env=threads)

    started = {number: start(number) for number in (1, 2, 3, 4)}
    deadline = time.monotonic() + 300
    while not list(out.glob("*/*/img_0000_00.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    started[1].send_signal(signal.SIGKILL)
    started[1].wait()
    started[1] = start(1)
    assert [process.wait() for process in started.values()] == [0, 0, 0, 0]
    (folder,) = out.glob("*/*")
    assert RunFolder(folder).is_finished()
    assert images(folder) == images(alone) and table(folder) == table(alone)
    assert not (folder / ".parts").exists()
