"""Scoring in pieces: the same tables as of one process, in any order; several scorings at once;
pixels of a chunk at a time.
"""

import json
import math
import shutil
import threading
import weakref
from itertools import permutations

import pytest

from memorization_suite.commands import score_job
from memorization_suite.commands.report import report
from memorization_suite.commands.score import score
from memorization_suite.commands.score_scripts import run_script
from memorization_suite.metrics import pictures, runs
from memorization_suite.metrics.intervals import average
from memorization_suite.metrics.pieces import contents_of
from memorization_suite.metrics.scripts import COPIES, PREFERENCE
from memorization_suite.runs.claims import alone
from memorization_suite.runs.table import RESULTS, Result, add_results, put_results, read_results
from tests.metrics.conftest import make_run, picture

TABLES = ("results.csv", "references.csv")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """One prompt in a chunk of the run of four prompts."""
    monkeypatch.setattr(runs, "CHUNK", 3)


def argv(run, *more) -> list[str]:
    gt = run.path.parents[2] / "gt"
    flags = ["--gen_folder", f"{run.path}", "--gt_folder", f"{gt}", "--quiet"]
    return [*flags, "--metrics", "copy", "diversity", *more]


def tables(run) -> dict[str, bytes]:
    return {name: (run.path / name).read_bytes() for name in TABLES}


def parts(run) -> list[str]:
    return sorted(path.name for path in (run.path / ".parts").glob("*"))


def forget(run) -> None:
    for name in TABLES:
        (run.path / name).unlink()


def test_pieces_in_any_order_give_the_tables_of_one_process(run, capsys):
    add_results(run.path, [Result("g7_seed2", "no_mitigation", 0, 0, "copy_score", "old", 0.5)])
    kept = (run.path / "results.csv").read_bytes()
    assert run_script(COPIES, argv(run)) == 0
    whole = tables(run)
    table = capsys.readouterr().out
    for order in permutations((1, 2, 3)):
        forget(run)
        (run.path / "results.csv").write_bytes(kept)
        for number in order[:2]:
            assert run_script(COPIES, argv(run, "--shard", f"{number}/3")) == 0
        told = capsys.readouterr()
        assert f"those missing: {order[2]}/3" in told.err and told.out == ""
        assert (run.path / "results.csv").read_bytes() == kept
        assert run_script(COPIES, argv(run, "--shard", f"{order[2]}/3")) == 0
        assert tables(run) == whole and capsys.readouterr().out == table
        assert not (run.path / ".parts").exists()


def test_a_piece_that_is_scored_again_is_replaced(run):
    assert run_script(COPIES, argv(run)) == 0
    whole = tables(run)
    forget(run)
    changed = run.path / "img_0000_00.png"
    right = changed.read_bytes()
    picture(77).save(changed)
    assert run_script(COPIES, argv(run, "--shard", "1/2")) == 0
    changed.write_bytes(right)
    for shard in ("1/2", "2/2"):
        assert run_script(COPIES, argv(run, "--shard", shard)) == 0
    assert tables(run) == whole


def test_pieces_of_other_numbers_or_metrics_are_told_apart(run, capsys):
    for more in (["--shard", "1/2"], ["--shard", "2/3"], ["--shard", "2/2", "--num_samples", "2"]):
        assert run_script(COPIES, argv(run, *more)) == 0
    others = [*argv(run)[:-2], "diversity", "--shard", "2/2"]
    assert run_script(PREFERENCE, others) == 0
    assert not (run.path / "results.csv").exists() and len(parts(run)) == 8
    assert capsys.readouterr().out == ""


def test_a_piece_of_an_earlier_state_is_not_mixed_in(run, tmp_path):
    """Other training images, masks, flags, and a run that was made again, are another scoring."""
    masks = tmp_path / "masks"
    masks.mkdir()
    gt = run.path.parents[2] / "gt"
    shutil.copytree(gt, tmp_path / "elsewhere" / gt.name)
    other = ["--gt_folder", f"{tmp_path / 'elsewhere' / gt.name}"]
    assert run_script(COPIES, argv(run, "--shard", "1/2")) == 0
    for more in (other, ["--masks", f"{masks}"]):
        assert run_script(COPIES, argv(run, *more, "--shard", "2/2")) == 0
    manifest = run.path / "manifest.json"
    text = json.loads(manifest.read_text()) | {"finished": "2030-01-01T00:00:00+00:00"}
    manifest.write_text(json.dumps(text))
    assert run_script(COPIES, argv(run, "--shard", "2/2")) == 0
    assert not (run.path / "results.csv").exists() and len(parts(run)) == 8


@pytest.mark.parametrize("last", [["--shard", "2/2"], []])
def test_what_an_earlier_scoring_left_is_removed(run, last):
    """Of the same scores; a piece of others stays."""
    diversity = [*argv(run)[:-2], "diversity", "--shard", "1/2"]
    assert run_script(PREFERENCE, diversity) == 0
    kept = parts(run)
    for piece in ("1/3", "1/2"):
        assert run_script(COPIES, argv(run, "--shard", piece)) == 0
    assert run_script(COPIES, argv(run, *last)) == 0
    assert parts(run) == kept and len(kept) == 2


def test_a_piece_of_a_scored_run_says_what_becomes_of_it(run, capsys):
    assert run_script(COPIES, argv(run)) == 0
    whole = tables(run)
    capsys.readouterr()
    assert run_script(COPIES, argv(run, "--shard", "1/2")) == 0
    said = capsys.readouterr().err
    assert "results.csv keeps the earlier scores" in said and "(2/2)" in said
    assert "missing" not in said and tables(run) == whole


def test_files_of_one_content_are_one_state_on_every_machine(tmp_path):
    files = [tmp_path / machine / "masks" / "1.png" for machine in ("one", "two")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_bytes(b"12")
    first, second = (contents_of([file, tmp_path / "absent"]) for file in files)
    assert first == second and len(first) == 1
    files[0].write_bytes(b"34")
    assert contents_of(files[:1]) != second


def test_training_images_on_two_machines_are_one_scoring(run):
    """Of the same content, written at other times."""
    assert run_script(COPIES, argv(run, "--shard", "1/2")) == 0
    for file in (run.path.parents[2] / "gt").rglob("*.png"):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    assert run_script(COPIES, argv(run, "--shard", "2/2")) == 0
    assert (run.path / "results.csv").exists() and not parts(run)


@pytest.mark.parametrize("shard", ["", "1/2"])
def test_an_interrupted_scoring_says_what_is_kept(run, monkeypatch, shard):
    """Of a piece nothing is, until it is whole."""
    done = score_job.results_of
    calls = []

    def twice(*of):
        calls.append(of)
        if len(calls) == 2:
            raise OSError("the disk is gone")
        return done(*of)

    monkeypatch.setattr(score_job, "results_of", twice)
    with pytest.raises(OSError) as error:
        score(run, ["diversity"], shard=shard, quiet=True)
    notes = getattr(error.value, "__notes__", [])
    assert len(notes) == (0 if shard else 1) and (run.path / "results.csv").exists() != bool(shard)


def test_more_pieces_than_chunks(run):
    assert run_script(COPIES, argv(run)) == 0
    whole = tables(run)
    forget(run)
    for number in (6, 1, 2, 3, 4, 5):
        assert run_script(COPIES, argv(run, "--shard", f"{number}/6")) == 0
    assert tables(run) == whole


def test_a_piece_from_python(run):
    gt = run.path.parents[2] / "gt"
    options = {"gt_folder": gt, "quiet": True}
    first = score(run, ["copy"], shard="1/2", **options)
    assert [f"{piece}" for piece in first.missing] == ["2/2"] and first.results and not first.lines
    second = score(run, ["copy"], shard="2/2", **options)
    assert not second.missing and second.lines
    assert len(second.results) == len(read_results(run.path))


@pytest.mark.parametrize("shard", ["0/2", "3/2", "half"])
def test_what_is_no_piece_is_refused(run, capsys, shard):
    assert run_script(COPIES, argv(run, "--shard", shard)) == 2
    assert "I from 1 to N" in capsys.readouterr().err


def test_a_run_without_training_images_in_pieces(run):
    shutil.rmtree(run.path.parents[2] / "gt")
    flags = ["--gen_folder", f"{run.path}", "--quiet", "--metrics", "diversity"]
    assert run_script(PREFERENCE, flags) == 0
    whole = tables(run)
    forget(run)
    for number in (2, 1):
        assert run_script(PREFERENCE, [*flags, "--shard", f"{number}/2"]) == 0
    assert tables(run) == whole


def test_two_that_add_results_at_once_lose_nothing(tmp_path):
    def add(quantity: str) -> None:
        for sample in range(10):
            add_results(tmp_path, [Result("r", "m", 0, sample, quantity, "v", 0.5)])

    threads = [threading.Thread(target=add, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_results(tmp_path)) == 30


def test_who_lost_the_claim_meanwhile_leaves_the_table_as_it_is(tmp_path):
    one, other = (Result("r", "m", 0, sample, "q", "v", 0.5) for sample in range(2))
    add_results(tmp_path, [one])
    with alone(tmp_path, RESULTS) as claim:
        (claim.claims.folder / f"{RESULTS}.{claim.number + 1}").touch()
        with pytest.raises(OSError, match="another process took over"):
            put_results(tmp_path, [other], (), claim)
    assert read_results(tmp_path) == [one]


def test_the_mean_of_nothing_is_not_a_number():
    assert math.isnan(average([])) and average([1, 2]) == 1.5


# --- memory


@pytest.fixture
def alive(monkeypatch):
    """alive.most: the most pictures that were decoded and not forgotten at once."""

    class Alive:
        now = 0
        most = 0

    read = pictures.read_stored

    def gone() -> None:
        Alive.now -= 1

    def watched(path):
        image = read(path)
        weakref.finalize(image, gone)
        Alive.now += 1
        Alive.most = max(Alive.most, Alive.now)
        return image

    monkeypatch.setattr(pictures, "read_stored", watched)
    return Alive


@pytest.mark.parametrize("samples", [3, 6])
def test_pixels_are_kept_of_a_chunk_at_a_time(run, tmp_path, alive, samples):
    prompts = run.path.parents[2] / "four.csv"
    large = make_run(tmp_path / "large" / "m" / "g", prompts, seed=5, samples=samples)
    options = {"gt_folder": run.path.parents[2] / "gt", "quiet": True}
    score(large, ["copy", "diversity"], **options)
    assert samples <= alive.most <= samples + 2


def test_the_page_keeps_no_pixels(run, tmp_path, alive):
    manifest = run.path / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"seed": 2', '"seed": 2, "method": "no_mitigation"'))
    options = {"gt_folder": run.path.parents[2] / "gt", "samples": 3}
    report([run.path], tmp_path / "page.html", **options)
    assert alive.most == 1
