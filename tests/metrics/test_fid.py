"""Distances between sets of images: values, what is stored, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from memorization_suite.commands import distances
from memorization_suite.download.assets import path_of
from memorization_suite.metrics.fid import frechet, kernel
from memorization_suite.runs import Key
from memorization_suite.runs.files import sha256_of
from memorization_suite.runs.table import read_results
from tests.metrics.conftest import picture
from tests.metrics.test_scripts import generated
from tests.reference import set_distances as plain
from tests.reference.inception import Inception as TorchScriptForm
from tests.reference.inception import (
    clip_features,
    inception_features,
    random_inception,
    save_traced,
)


def features(n: int, d: int, seed: int) -> torch.Tensor:
    """Correlated, positive, with another scale and place for each seed."""
    rng = np.random.default_rng(seed)
    return torch.tensor(
        np.maximum(
            rng.normal(0.2 * seed, 1 + 0.3 * seed, (n, d)) @ rng.normal(0, 1, (d, d)) / np.sqrt(d),
            0,
        ),
        dtype=torch.float32,
    )


@pytest.fixture(scope="module")
def inception_model():
    return random_inception(0)


@pytest.fixture(scope="module")
def inception_file(checkpoints, inception_model):
    path = checkpoints / "inception-2015-12-05.pt"
    save_traced(inception_model, path)
    return path


@pytest.fixture(scope="module")
def narrow_file(checkpoints):
    """Another network of that form, with few features."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 31, stride=67), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    path = checkpoints / "narrow.pt"
    save_traced(TorchScriptForm(layers).eval(), path)
    return path


@pytest.fixture
def real(tmp_path):
    folder = tmp_path / "real"
    folder.mkdir()
    for i in range(6):
        real_picture(i).save(folder / f"{i:02d}.png")
    return folder


def real_picture(i: int):
    """Higher or wider than large, larger and smaller than what the networks read."""
    return picture(5000 + i, [(64, 56), (30, 90), (330, 310)][i % 3])


def compute(run, real, *more):
    return distances.main(
        ["--gen_folder", str(run.path), "--real_folder", str(real), *map(str, more)]
    )


def stored(run) -> dict[str, tuple[str, float]]:
    return {row.quantity: (row.variant, row.value) for row in read_results(run.path)}


# --- distances


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 24), (60, 60, 8), (40, 300, 33)])
def test_frechet_distance_is_that_of_the_matrix_root(n, m, d):
    from cleanfid.fid import frechet_distance

    first, second = features(n, d, 1), features(m, d, 2)
    a, b = first.double().numpy(), second.double().numpy()
    found = frechet(first, second)
    assert found == pytest.approx(plain.frechet(a, b), rel=1e-8) and found > 0.1
    assert found == pytest.approx(
        frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)),
        rel=1e-8,
    )
    assert found == pytest.approx(frechet(second, first), rel=1e-8)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 9), (30, 12)])
def test_frechet_distance_of_sets_smaller_than_their_width(n, m):
    first, second = features(n, 40, 1), features(m, 40, 2)
    assert frechet(first, second) == pytest.approx(
        plain.frechet_of_few(first.double().numpy(), second.double().numpy()), rel=1e-8
    )
    assert frechet(first, first) == pytest.approx(0, abs=1e-8)
    assert frechet(first.double(), first.double() + 0.5) == pytest.approx(40 * 0.25, rel=1e-8)


def test_the_plain_ways_agree():
    first, second = (features(n, 6, n).double().numpy() for n in (20, 30))
    assert plain.frechet_of_few(first, second) == pytest.approx(
        plain.frechet(first, second), rel=1e-8
    )


def test_kernel_distance_is_the_unbiased_estimate():
    first, second = features(14, 6, 1), features(14, 6, 2)
    a, b = first.double().numpy(), second.double().numpy()
    assert kernel(first, second) == pytest.approx(plain.mmd(a, b), rel=1e-8)
    assert kernel(first, first) < 0 < kernel(first, second)  # unbiased: below 0 for equal sets


def test_kernel_distance_of_sets_of_other_sizes_is_a_mean_over_subsets():
    first, second = features(9, 6, 1), features(13, 6, 2)
    assert kernel(first, second, seed=3) == pytest.approx(
        plain.kid(first.double().numpy(), second.double().numpy(), 3), rel=1e-8
    )


# --- the script


def test_fid_and_clip_fid_to_the_end(run, real, inception_file, inception_model, clip_file, capsys):
    import open_clip

    clip = open_clip.create_model("ViT-B-32-quickgelu", pretrained=str(clip_file)).eval()
    assert (
        compute(
            run,
            real,
            "--num_samples",
            "1",
            "--inception_checkpoint",
            inception_file,
            "--clip_checkpoint",
            clip_file,
        )
        == 0
    )
    ours, theirs = [generated(p, 0) for p in range(4)], [real_picture(i) for i in range(6)]
    found, out = stored(run), capsys.readouterr().out
    for name, path, embed in (
        (
            "inception_v3_clean",
            inception_file,
            lambda image: inception_features(inception_model, image),
        ),
        ("clip_vit_b_32_openai", clip_file, lambda image: clip_features(clip, image)),
    ):
        a, b = (np.stack([embed(image) for image in images]) for images in (ours, theirs))
        prefix = "clip_" if "clip" in name else ""
        assert a.shape[1] == (512 if prefix else 2048)
        for quantity, expected in (
            (f"{prefix}fid", plain.frechet_of_few(a, b)),
            (f"{prefix}kid", plain.kid(a, b, 0)),
        ):
            variant, value = found[quantity]
            assert value == pytest.approx(expected, rel=1e-4), quantity
            assert (
                variant.rpartition("@")[0] == f"{name}@{sha256_of(path)[:8]}_to_real_n4_n6"
                and f"{quantity} ({variant}): " in out
            )


def test_values_of_more_images_than_features(run, real, narrow_file):
    assert compute(run, real, "--inception_checkpoint", narrow_file) == 0
    model = torch.jit.load(narrow_file)
    a, b = (
        np.stack([inception_features(model, image).ravel() for image in images])
        for images in (
            [generated(p, k) for p in range(4) for k in range(3)],
            [real_picture(i) for i in range(6)],
        )
    )
    assert stored(run)["fid"][1] == pytest.approx(plain.frechet(a, b), rel=1e-4)
    assert stored(run)["kid"][1] == pytest.approx(plain.kid(a, b, 0), rel=1e-4)


def test_another_file_in_the_place_of_the_published_one_is_told(
    run, real, narrow_file, monkeypatch
):
    path = path_of("inception_v3")
    path.parent.mkdir(parents=True)
    shutil.copy(narrow_file, path)
    monkeypatch.chdir(path.parent)
    for typed in ((), ("--inception_checkpoint", path), ("--inception_checkpoint", path.name)):
        assert compute(run, real, *typed) == 0
    own = sha256_of(path)[:8]
    assert {
        row.variant.rpartition("@")[0] for row in read_results(run.path) if row.quantity == "fid"
    } == {f"inception_v3_clean@{own}_to_real_n12_n6"}


def test_another_folder_of_the_same_name_is_told(run, real, tmp_path):
    """The real images are in the variant: not their folder, but what is in it."""
    again = shutil.copytree(real, tmp_path / "again" / real.name)
    assert compute(run, real) == compute(run, again) == 0
    assert len({row.variant for row in read_results(run.path)}) == 1
    shutil.copy(again / "00.png", again / "01.png")
    assert compute(run, again) == 0
    assert len({row.variant for row in read_results(run.path)}) == 2


def test_a_run_needs_no_prompt_file_but_must_be_whole(run, real, capsys):
    (run.path.parents[2] / "four.csv").unlink()
    assert compute(run, real) == 0
    run.image_path(Key(1, 2)).unlink()
    assert compute(run, real) == 2 and "lacks 1 images of 3 a prompt" in capsys.readouterr().err
    assert compute(run, real, "--num_samples", "2") == 0 and compute(run, real, "--incomplete") == 0
    assert {row.variant.split("_to_real_")[1][:-9] for row in read_results(run.path)} == {
        "n12_n6",
        "n8_n6",
        "n11_n6",
    }
    (run.path / "montage.png").write_bytes(b"")
    assert compute(run, real) == 2 and "montage.png is no image of a run" in capsys.readouterr().err


def test_what_is_refused(run, real, tmp_path, capsys):
    def refused(told, *argv):
        assert distances.main([str(arg) for arg in argv]) == 2
        said = capsys.readouterr()
        assert told in said.err and said.err.count("\n") == 1 and not said.out

    gen, there = ("--gen_folder", run.path), ("--real_folder", real)
    refused("nowhere is no folder", *gen, "--real_folder", tmp_path / "nowhere")
    refused("nowhere is no folder", "--gen_folder", tmp_path / "nowhere", *there)
    (tmp_path / "one").mkdir()
    picture(0).save(tmp_path / "one" / "0.png")
    refused("one has 1 image; 2 or more are needed", *gen, "--real_folder", tmp_path / "one")
    refused("are for run folders", "--gen_folder", real, *there, "--num_samples", "1")
    refused(
        "fid cannot be computed: checkpoints/inception-2015-12-05.pt is not here: python "
        "download/fetch.py inception_v3",
        *gen,
        *there,
        "--require",
        "fid",
    )
    refused(
        "--require sscd: compute_fid.py has fid, clip_fid, features",
        *gen,
        *there,
        "--require",
        "sscd",
    )
    refused("--clip_checkpoint", *gen, *there, "--clip_checkpoint", tmp_path / "nowhere.pt")
    (run.path / "results.csv").write_text("a;b\n1;2\n")
    refused("is no table of results", *gen, *there)
    manifest = json.loads((run.path / "manifest.json").read_text())
    (run.path / "manifest.json").write_text(json.dumps(manifest | {"finished": None}))
    refused("is not finished", *gen, *there)


@pytest.mark.parametrize("flag", ["--inception_checkpoint", "--clip_checkpoint"])
def test_a_file_that_is_no_checkpoint(run, real, tmp_path, capsys, flag):
    (tmp_path / "bad.pt").write_bytes(b"nonsense")
    assert compute(run, real, flag, tmp_path / "bad.pt") == 2
    error = capsys.readouterr().err
    assert "bad.pt cannot be loaded as" in error and error.count("\n") == 1


def test_a_broken_picture_is_named(run, real, capsys):
    (real / "03.png").write_bytes((real / "03.png").read_bytes()[:60])
    assert compute(run, real) == 2 and "03.png is no whole picture" in capsys.readouterr().err


def test_other_formats_are_said(run, real, capsys):
    picture(1).save(real / "12.JPG")
    assert compute(run, real) == 0 and "different file formats" in capsys.readouterr().err
