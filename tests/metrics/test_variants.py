"""Other checkpoints and models than the default: the right one is loaded, from the right place, and
the variant says so.
"""

import shutil

import pytest
import torch
from torchvision.transforms import Compose

from memorization_suite.download.assets import named, path_of
from memorization_suite.metrics.clip_score import VARIANTS, ClipMetric
from memorization_suite.metrics.sscd import PRESETS, SscdMetric
from memorization_suite.runs.files import sha256_of
from memorization_suite.runs.table import read_results
from tests.metrics.conftest import picture
from tests.metrics.test_scripts import REFERENCES, generated, sscd_clip, values
from tests.reference import scores as plain
from tests.reference.sscd_model import random_sscd, save_scripted


def test_sscd_disc_large(run, checkpoints, capsys):
    model = random_sscd(0, large=True)
    path = checkpoints / "large.pt"
    save_scripted(model, path)
    assert (
        sscd_clip(
            run,
            "--sscd",
            "sscd_disc_large",
            "--sscd_checkpoint",
            path,
            "--sscd_preset",
            "wen224",
            "--num_samples",
            "1",
        )
        == 0
    )
    expected = plain.sscd_score(
        model, generated(0, 0), [picture(REFERENCES[0][0], (60, 50))], "wen224"
    )
    assert len(values(run, "sscd")) == 3 and values(run, "sscd")[0, 0] == pytest.approx(
        expected, abs=1e-4
    )
    assert {row.variant for row in read_results(run.path) if row.quantity == "sscd"} == {
        f"disc_large@{sha256_of(path)[:8]}_wen224"
    }


def test_the_default_file_of_disc_large(run, patches_file, capsys):
    assert sscd_clip(run, "--sscd", "sscd_disc_large", "--require", "sscd") == 2
    assert (
        "checkpoints/sscd_disc_large.torchscript.pt is not here: python download/fetch.py "
        "sscd_disc_large" in capsys.readouterr().err
    )
    path_of("sscd_disc_large").parent.mkdir(parents=True)
    shutil.copy(patches_file, path_of("sscd_disc_large"))
    assert sscd_clip(run, "--sscd", "sscd_disc_large", "--require", "sscd") == 0
    assert {row.variant for row in read_results(run.path) if row.quantity == "sscd"} == {
        "disc_large_official320"
    }


def test_every_preset_and_variant_can_be_typed():
    for preset in PRESETS:
        assert SscdMetric(sscd_preset=preset).sscd_preset == preset
    for variant in VARIANTS:
        assert ClipMetric(clip=variant).clip == variant


@pytest.mark.parametrize("variant", VARIANTS)
def test_clip_variants(run, monkeypatch, variant, capsys):
    """The right model for each, from the file that download/ fetches; that file is the one
    open_clip itself names for the training.
    """
    import open_clip

    architecture, training = VARIANTS[variant]
    asset = named(f"clip_{variant}")
    assert open_clip.get_pretrained_cfg(architecture, training)["hf_hub"] == f"{asset.repo}/"
    assert asset.path == f"checkpoints/open_clip/{architecture}_{training}"
    asked = []

    def create(*args, **options):
        asked.append((args, options["pretrained"]))
        return StandIn(), None, Compose([lambda image: torch.ones(3, 4, 4)])

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    monkeypatch.setattr(
        open_clip,
        "get_tokenizer",
        lambda name: asked.append(name) or (lambda texts: torch.ones(len(texts), 5)),
    )
    assert (
        sscd_clip(run, "--clip", variant, "--require", "clip") == 2
        and f"download/fetch.py {asset.name}" in capsys.readouterr().err
    )
    path = path_of(asset.name)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert sscd_clip(run, "--clip", variant, "--require", "clip") == 0
    assert asked == [((architecture,), str(path)), architecture]
    assert {
        row.variant: row.value for row in read_results(run.path) if row.quantity == "clip_gen"
    } == {f"{variant}@{sha256_of(path)[:8]}": pytest.approx(1)}


class StandIn(torch.nn.Module):
    """Takes open_clip's place: one embedding for everything."""

    def encode_image(self, images):
        return torch.ones(len(images), 2)

    def encode_text(self, tokens):
        return torch.ones(len(tokens), 2)
