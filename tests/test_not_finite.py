"""What is not finite is never counted without a word: pictures, values, scores, numbers typed."""

import csv
import shutil

import pytest
import torch
from PIL import Image

from memorization_suite.commands import calibrate
from memorization_suite.commands.detect import detect
from memorization_suite.commands.detect_plan import plan_detection
from memorization_suite.commands.distances import distances
from memorization_suite.commands.generate import generate, warnings
from memorization_suite.commands.generate_plan import plan
from memorization_suite.commands.image_job import mark
from memorization_suite.commands.report import report
from memorization_suite.commands.score import score
from memorization_suite.commands.score_scripts import run_script
from memorization_suite.commands.spectrum import mean_text
from memorization_suite.commands.summarize import main as summarize_main
from memorization_suite.commands.sweeps.sweep import plan_sweep, sweep
from memorization_suite.commands.tradeoff import plot_tradeoff
from memorization_suite.detection.stability import measure
from memorization_suite.metrics.base import Metric
from memorization_suite.metrics.base import register as register_metric
from memorization_suite.metrics.scripts import COPIES
from memorization_suite.metrics.summary import summarize
from memorization_suite.mitigation.base import Adjustment, Mitigation, register
from memorization_suite.mitigation.nemo.measures import scaled_maps
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.pipelines.stable_diffusion.denoiser import StableDiffusionDenoiser
from memorization_suite.runs import Key
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.marks import Marks, names_of
from memorization_suite.runs.table import read_results
from memorization_suite.runs.tables import read_csv
from memorization_suite.sampling.sample import to_pictures

SHORT = {
    "model_id": "tiny",
    "end": 2,
    "n_samples_per_prompt": 2,
    "num_inference_steps": 2,
    "device": "cpu",
    "quiet": True,
}
LEFT_OUT = "2 of 4 images of breaks/g7_seed2 are not finite and left out of every score: "
LEFT_OUT += "img_0000_01, img_0001_01"


@pytest.fixture
def breaks(registries):
    """A method with which every second image is not a number."""

    @register("breaks", paper="ours: a test", cost="2N")
    class Breaks(Mitigation):
        """Breaks every second image."""

        def adjust_initial_noise(self, predictor, x, t, batch):
            x = x.clone()
            x[1::2] = torch.nan
            return Adjustment(x)


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline("tiny", device="cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory, pipe):
    """The unmitigated run, which is whole."""
    out = tmp_path_factory.mktemp("runs")
    return generate(plan(**SHORT, output_path=str(out)), load=lambda *_, **__: pipe)


@pytest.fixture
def broken(tmp_path, pipe, breaks):
    """A run of which half the images are not finite."""
    planned = plan(**SHORT, method="breaks", output_path=str(tmp_path))
    return generate(planned, load=lambda *_, **__: pipe)


def copied(run, out):
    """A copy of a run's folder."""
    return shutil.copytree(run.path, out / run.path.parent.name / run.path.name)


def changed(folder, **columns):
    """images.csv with other values in the first row; None removes a column."""
    rows = read_csv(folder / "images.csv")
    for name, value in columns.items():
        if value is None:
            for row in rows:
                row.pop(name)
        else:
            rows[0][name] = value
    write_csv(folder / "images.csv", rows)


# --- pictures ---


def test_latents_that_are_not_finite_are_named(broken):
    assert "2 are not finite: img_0000_01, img_0001_01" in broken.summary
    rows = broken.folder.costs()
    assert [row["finite"] for row in rows.values()] == ["1", "0", "1", "0"]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_picture_that_is_not_finite_is_named(tmp_path, pipe, monkeypatch, bad):
    decoded = StableDiffusionDenoiser.decoded

    def spoiled(self, latents):
        images = decoded(self, latents)
        images[1:, :, 3, 4] = bad  # but for the one image that is tried first
        return images

    monkeypatch.setattr(StableDiffusionDenoiser, "decoded", spoiled)
    run = generate(plan(**SHORT, output_path=str(tmp_path)), load=lambda *_, **__: pipe)
    assert "2 are not finite: img_0000_01, img_0001_01" in run.summary
    again = generate(plan(**SHORT, output_path=str(tmp_path)))
    assert "nothing to make; 2 are not finite" in again.summary


def test_pictures_are_marked():
    decoded = torch.zeros(3, 3, 4, 4)
    decoded[0, 0, 0, 0] = 0.5
    decoded[1, 2] = torch.nan
    rows = [{"finite": 1}, {"finite": 1}, {"finite": 0}]
    pictures = to_pictures(decoded)
    mark(rows, decoded, pictures)
    assert [row["finite"] for row in rows] == [1, 0, 0]
    assert [row["flat"] for row in rows] == [0, 1, 1]
    assert pictures[1].getextrema() == ((0, 0), (0, 0), (0, 0))


def test_a_whole_run_has_no_marks(made):
    assert "finite" not in made.summary and "flat" not in made.summary


def test_many_names_are_counted():
    assert names_of([Key(0, k) for k in range(7)]).endswith("img_0000_04 and 2 more")


def test_older_rows_have_no_marks():
    rows = {Key(0, 0): {"finite": "1"}, Key(0, 1): {}, Key(1, 0): {"finite": "", "flat": ""}}
    assert Marks.of(rows, rows) == Marks(total=3)


# --- scores ---


def test_images_that_are_not_finite_have_no_score(broken, capsys):
    table = score(broken, ["copy", "diversity"], quiet=True)
    assert LEFT_OUT in table.notes
    assert {row.sample_index for row in read_results(broken.path)} == {0}
    (line,) = [line for line in table.lines if line.quantity == "copy_score"]
    assert (line.n, line.total) == (2, 4)
    assert "(of 2 images)" in str(table) and "2 of 4" in str(table)
    capsys.readouterr()
    assert summarize_main([str(broken.path), "--quiet"]) == 0
    out, error = capsys.readouterr()
    assert LEFT_OUT in error and "2 of 4" in out


def test_pieces_leave_them_out_too(broken):
    whole = score(broken, ["copy"], quiet=True)
    for piece in ("1/2", "2/2"):
        table = score(broken, ["copy"], quiet=True, shard=piece)
        assert LEFT_OUT in table.notes
    assert table.lines == whole.lines


def test_a_run_without_a_finite_image_is_refused(made, tmp_path, capsys):
    folder = copied(made, tmp_path)
    rows = read_csv(folder / "images.csv")
    write_csv(folder / "images.csv", [row | {"finite": "0"} for row in rows])
    code = run_script(COPIES, ["--gen_folder", str(folder), "--metrics", "copy", "--quiet"])
    out, error = capsys.readouterr()
    assert code == 2 and error.count("\n") == 1 and not out
    assert "none of the 4 images is finite" in error
    assert not (folder / "results.csv").exists()


def test_an_older_run_names_black_pictures(made, tmp_path):
    folder = copied(made, tmp_path)
    changed(folder, flat=None)
    Image.new("RGB", (32, 32)).save(folder / "img_0001_00.png")
    rows = read_csv(folder / "images.csv")
    write_csv(
        folder / "images.csv", [{k: v for k, v in row.items() if k != "file_bytes"} for row in rows]
    )
    table = score(folder, ["copy"], quiet=True)
    assert any("1 of 4 images" in note and "img_0001_00" in note for note in table.notes)
    assert any("is of one flat color, and scored" in note for note in table.notes)
    assert table.lines[0].n == 4


def test_older_scores_of_such_images_do_not_count(made, tmp_path, capsys):
    folder = copied(made, tmp_path)
    score(folder, ["copy"], quiet=True)
    changed(folder, finite="0")
    assert {line.n for line in summarize(folder)} == {3}
    assert summarize_main([str(folder), "--quiet"]) == 0
    assert "values of whole prompts may be of them, too; score it again" in capsys.readouterr().err
    score(folder, ["copy"], quiet=True)
    assert summarize_main([str(folder), "--quiet"]) == 0
    assert "score it again" not in capsys.readouterr().err


def test_pairs_with_an_unmitigated_image_that_is_not_finite(made, broken):
    table = score(made, ["feature_change"], unmitigated=broken.path, quiet=True)
    assert any("and nothing is compared with them" in note for note in table.notes)
    counts = {line.quantity: (line.n, line.total) for line in table.lines}
    assert counts["feature_gen"] == (2, 4) and counts["feature_pairs"] == (2, 2)


def test_values_that_are_not_finite_are_named(made, tmp_path, registries):
    @register_metric("odd", role="quality", better="higher")
    class Odd(Metric):
        """Not a number for the first image of each prompt."""

        def values(self, group):
            return {sample: 1.0 if sample else float("inf") for sample in group.samples}

    table = score(copied(made, tmp_path), ["odd"], quiet=True)
    wanted = "2 values of odd (odd) are not finite and left out: img_0000_00, img_0001_00"
    assert wanted in table.notes
    assert [line.n for line in table.lines] == [2]


def test_distances_leave_them_out(made, broken):
    notes = []
    results = distances(
        notes.append, gen_folder=broken.path, real_folder=made.path, device="cpu", quiet=True
    )
    assert any("2 of 4 images of breaks/g7_seed2 are not finite" in note for note in notes)
    assert all("_n2_n4" in row.variant for row in results)


# --- tables, pages, sweeps ---


def test_the_page_says_so(made, broken, tmp_path):
    for run in (made, broken):
        score(run, ["copy", "alignment"], quiet=True)
    page = report([made.path, broken.path], tmp_path / "page.html")
    text = page.path.read_text()
    assert "2 of 4 images of breaks g7_seed2 are not finite and left out of every score" in text
    assert "of 2 images" in text and "<small>2 not finite</small>" in text
    assert text.count("<figcaption>not finite</figcaption>") == 2
    assert page.summary.endswith("; 2 images are not finite")


def test_the_tradeoff_says_so(made, broken, tmp_path, capsys):
    for run in (made, broken):
        score(run, ["copy", "alignment"], quiet=True)
    capsys.readouterr()
    plot_tradeoff([made.path, broken.path], out=tmp_path / "points.png")
    assert LEFT_OUT in capsys.readouterr().err
    with open(tmp_path / "points_points.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["x_n"], row["x_of"]) for row in rows] == [("4", "4"), ("2", "4")]


def test_a_sweep_says_so_and_scores_once(tmp_path, breaks, capsys):
    file = tmp_path / "one.toml"
    file.write_text('[[run]]\nmethod = "breaks"\n')
    out = tmp_path / "out"
    first = sweep(plan_sweep(file, out, **SHORT), out)
    assert "2 are not finite: img_0000_01, img_0001_01" in str(first.status)
    assert first.status.summary.endswith("2 images not finite")
    capsys.readouterr()
    second = sweep(plan_sweep(file, out, **SHORT), out)
    assert second.status.failed == 0 and "scores of" not in capsys.readouterr().out


# --- numbers of methods and detectors ---


def test_infinite_and_missing_numbers_of_methods_are_named():
    rows = [
        {"prompt": "inf", "first_magnitude": "inf", "mitigated": "0.0", "screen_score": ""},
        {"prompt": "b", "first_magnitude": "1.5", "mitigated": "1.0", "screen_score": "2.5"},
    ]
    text = warnings(rows)
    assert "; 1 without the mitigation, since their screen_score is not finite" in text
    assert text.endswith("; 1 with an infinite first_magnitude")


def test_a_threshold_leaves_scores_out(tmp_path):
    rows = [("mem", 1.0), ("mem", "nan"), ("nonmem", 0.5), ("nonmem", 0.2), ("nonmem", "nan")]
    write_csv(tmp_path / "scores.csv", [{"set": name, "score": value} for name, value in rows])
    made = calibrate.threshold(tmp_path / "scores.csv", fpr=0.0)
    text = str(made)
    assert "of 2 ordinary images" in text and "of 1 memorized image" in text
    assert "1 ordinary image left out" in text and "1 memorized image left out" in text


def test_statistics_say_how_many_norms_are_not_finite():
    norms = torch.ones(4, 3)
    norms[1, 2] = torch.nan
    with pytest.raises(ValueError, match="the norms of 1 of 4 images are not finite"):
        measure(dict.fromkeys(("update", "latent", "clean"), norms), {}, {})


def test_means_of_spectra_leave_them_out():
    assert mean_text([2.0, float("nan"), 4.0]) == (
        "3 non-negative eigenvalues in the mean of 2 "
        "(1 of 3 images left out: the eigenvalues are not finite)"
    )
    assert mean_text([float("nan")]).startswith("no number of non-negative eigenvalues")


def test_maps_that_are_not_finite_stay_so():
    maps = scaled_maps(torch.full((1, 2, 4, 4), torch.nan), torch.zeros(1, 2, 4, 4))
    assert maps.isnan().all()
    assert scaled_maps(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)).eq(0).all()


def test_masks_over_such_images_are_named(tmp_path, pipe, monkeypatch, capsys):
    monkeypatch.setattr(
        StableDiffusionDenoiser,
        "decoded",
        lambda self, latents: torch.full((len(latents), 3, 32, 32), torch.nan),
    )
    planned = plan_detection(
        detector="bright_ending",
        save_masks=True,
        output_path=str(tmp_path),
        **SHORT | {"end": 1, "n_samples_per_prompt": 1},
    )
    detect(planned, load=lambda *_, **__: pipe)
    wanted = "2 masks, or the image below, are not finite: mem_0000_00, nonmem_0000_00"
    assert wanted in capsys.readouterr().err


# --- numbers that are typed ---


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400])
@pytest.mark.parametrize("flag", ["rho", "guidance_scale", "memory_budget"])
def test_a_number_that_is_not_finite_is_refused(flag, value):
    with pytest.raises(ValueError, match=f"--{flag} .* is out of range"):
        plan(**SHORT, method="batch_wise", **{flag: value})


@pytest.mark.parametrize("flag", ["seed", "n_samples_per_prompt", "image_length", "batch_size"])
def test_a_whole_number_of_any_length_is_refused(flag):
    with pytest.raises(ValueError, match=rf"--{flag} 10+\.\.\. \(401 digits\) is out of range"):
        plan(**SHORT | {flag: 10**400})


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "1" + 400 * "0"])
def test_a_sweep_file_takes_no_such_number(tmp_path, value):
    file = tmp_path / "one.toml"
    file.write_text(f'[[run]]\nmethod = "batch_wise"\nrho = {value}\n')
    with pytest.raises(ValueError, match="--rho .* is out of range"):
        plan_sweep(file, tmp_path / "out", **SHORT)


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "-inf", "none"])
def test_a_screen_takes_no_such_threshold(value):
    with pytest.raises(ValueError, match="is not DETECTOR:THRESHOLD"):
        plan(**SHORT, method="per_sample", screen=f"noise_norm:{value}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_rate_is_a_share(tmp_path, value):
    with pytest.raises(ValueError, match="is no share"):
        calibrate.threshold(tmp_path, fpr=value)
