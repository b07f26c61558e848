"""Scores are of the training images, masks, checkpoints and runs that are there now; what was
replaced under the same name is not taken over without a word.
"""

import csv
import json
import shutil

import pytest
import torch

from memorization_suite.commands import score as score_command
from memorization_suite.commands.score_scripts import run_script
from memorization_suite.download.assets import path_of
from memorization_suite.metrics.base import METRICS, is_against
from memorization_suite.metrics.image_reward import ImageRewardMetric
from memorization_suite.metrics.scripts import CHANGE
from memorization_suite.metrics.sscd import SscdMetric
from memorization_suite.runs import hashes
from memorization_suite.runs.files import sha256_of
from memorization_suite.runs.table import read_results
from tests.metrics.conftest import make_run, picture
from tests.metrics.test_scripts import gt_of, prompts_of, sscd_clip, values

MODEL = {"model_id": "sha256 1", "unet_id": None, "scheduler": "ddim", "num_inference_steps": 50}


def quantities(run, prompt: int) -> set[str]:
    return {row.quantity for row in read_results(run.path) if row.prompt_index == prompt}


def coverage(run) -> dict[str, dict]:
    with open(run.path / "references.csv", newline="") as file:
        return {row["prompt_index"]: row for row in csv.DictReader(file)}


def test_scores_of_a_training_image_that_was_replaced_go(run, patches_file, capsys):
    """Of this prompt, of what is not scored now, with a line; all others stay."""
    sscd_clip(run, "--metrics", "sscd", "copy", "diversity", "--sscd_checkpoint", patches_file)
    before = {q: values(run, q) for q in ("sscd", "copy_score", "feature_diversity")}
    picture(4321, (60, 50)).save(gt_of(run) / "100" / "0.png")
    capsys.readouterr()
    sscd_clip(run, "--metrics", "diversity")
    assert "older values" not in capsys.readouterr().err
    sscd_clip(run, "--metrics", "copy")
    told = (
        "the training images of 1 prompt (first: prompt 0) are others than at an earlier scoring: "
        "3 older values of sscd are taken out of results.csv; score them again"
    )
    assert told in capsys.readouterr().err.splitlines()
    assert values(run, "sscd") == {key: v for key, v in before["sscd"].items() if key[0] != 0}
    assert values(run, "copy_score").keys() == before["copy_score"].keys()
    assert values(run, "copy_score")[0, 0] != before["copy_score"][0, 0]
    assert values(run, "feature_diversity") == before["feature_diversity"]
    assert coverage(run)["0"]["sha256"] == sha256_of(gt_of(run) / "100" / "0.png")
    sscd_clip(run, "--metrics", "sscd", "--sscd_checkpoint", patches_file)
    assert "older values" not in capsys.readouterr().err
    assert values(run, "sscd").keys() == before["sscd"].keys()


@pytest.mark.parametrize("change", ["one more", "one less", "none"])
def test_other_sets_of_training_images(run, patches_file, capsys, change):
    sscd_clip(run, "--metrics", "sscd", "--sscd_checkpoint", patches_file)
    folder = gt_of(run) / "101"
    if change == "one more":
        picture(5, (60, 50)).save(folder / "more.png")
    elif change == "one less":
        (folder / "1.png").unlink()
    else:
        shutil.rmtree(folder)
    sscd_clip(run, "--metrics", "copy")
    assert "(first: prompt 1)" in capsys.readouterr().err
    assert "sscd" in quantities(run, 0) & quantities(run, 2) and "sscd" not in quantities(run, 1)


def test_other_names_of_the_same_images_change_nothing(run, patches_file, capsys):
    sscd_clip(run, "--metrics", "sscd", "--sscd_checkpoint", patches_file)
    before = values(run, "sscd")
    folder = gt_of(run) / "101"
    (folder / "0.png").rename(folder / "z.png")
    sscd_clip(run, "--metrics", "copy")
    assert "older values" not in capsys.readouterr().err and values(run, "sscd") == before


def test_a_mask_that_was_replaced(run, tmp_path, patches_file, capsys):
    masks = tmp_path / "masks"
    masks.mkdir()
    picture(1).convert("L").save(masks / "101.png")
    sscd_clip(run, "--masks", masks, "--sscd_checkpoint", patches_file)
    assert coverage(run)["1"]["mask_sha256"] == sha256_of(masks / "101.png")
    picture(2).convert("L").save(masks / "101.png")
    sscd_clip(run, "--masks", masks, "--metrics", "localized")
    told = capsys.readouterr().err
    assert "the masks of 1 prompt" in told and "ls_sscd" in told
    assert "ls_sscd" not in quantities(run, 1)
    assert {"ls_l2", "sscd"} <= quantities(run, 1)  # sscd reads no mask


def test_a_folder_without_any_training_image_changes_nothing(run, tmp_path, capsys):
    """A wrong --gt_folder is no news of training images."""
    sscd_clip(run, "--metrics", "copy")
    before = [row for row in read_results(run.path) if row.quantity == "copy_score"]
    listed = coverage(run)
    (tmp_path / "empty").mkdir()
    sscd_clip(run, "--metrics", "localized", "--gt_folder", tmp_path / "empty")
    assert "older values" not in capsys.readouterr().err
    assert [row for row in read_results(run.path) if row.quantity == "copy_score"] == before
    assert coverage(run) == listed


def test_pieces_of_other_training_images_are_not_joined(run, monkeypatch, capsys):
    monkeypatch.setattr("memorization_suite.metrics.runs.CHUNK", 3)
    sscd_clip(run, "--metrics", "copy", "--shard", "1/2")
    picture(4321, (60, 50)).save(gt_of(run) / "100" / "0.png")
    sscd_clip(run, "--metrics", "copy", "--shard", "2/2")
    assert not (run.path / "results.csv").exists()
    assert "those missing: 1/2" in capsys.readouterr().err


def test_a_table_of_an_earlier_version_has_no_masks(run, patches_file, capsys):
    sscd_clip(run, "--metrics", "sscd", "--sscd_checkpoint", patches_file)
    rows = list(coverage(run).values())
    with open(run.path / "references.csv", "w", newline="") as file:
        names = [name for name in rows[0] if name != "mask_sha256"]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    before = values(run, "sscd")
    sscd_clip(run, "--metrics", "copy")
    assert "older values" not in capsys.readouterr().err and values(run, "sscd") == before


def test_which_quantities_compare_with_training_images():
    every = {quantity.name for metric in METRICS.values() for quantity in metric.quantities}
    against = {name for name in every if is_against(name, "references")}
    named = {"sscd", "ls_sscd", "ls_gated", "copy_score", "feature_similarity", "ls_l2"}
    assert against == {*named, "ls_features", "clip_gt"}
    assert not is_against("of_no_metric", "references")


# --- checkpoints ---


def test_a_checkpoint_that_was_replaced_in_place_has_another_variant(
    run, patches_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(hashes, "SETTLED", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = shutil.copy(patches_file, tmp_path / "sscd.pt")
    sscd_clip(run, "--metrics", "sscd", "--sscd_checkpoint", file)
    loaded = torch.jit.load(file)
    torch.jit.save(loaded, file, _extra_files={"x": "y"})
    sscd_clip(run, "--metrics", "sscd", "--sscd_checkpoint", file)
    variants = {row.variant for row in read_results(run.path) if row.quantity == "sscd"}
    assert len(variants) == 2
    assert f"disc_mixup@{sha256_of(file)[:8]}_official320" in variants


def checkpoint_of(metric, number: int = 0):
    return metric.checkpoints(None)[number]


def test_what_lies_where_download_puts_the_published_file(tmp_path):
    """Its name stays if its sum is the published one, or nobody knows that."""
    for name, told in (("sscd_disc_mixup", "@"), ("sscd_disc_large", "")):
        path_of(name).parent.mkdir(parents=True, exist_ok=True)
        path_of(name).write_bytes(b"another")
        variant = checkpoint_of(SscdMetric(sscd=name)).variant("it")
        assert variant == (f"it@{sha256_of(path_of(name))[:8]}" if told else "it")
    first_seen = {"sscd_disc_large": {"source": "x", "date": "x", "files": {"": 64 * "0"}}}
    (path_of("sscd_disc_large").parent / "first_seen.json").write_text(json.dumps(first_seen))
    assert "@" in checkpoint_of(SscdMetric(sscd="sscd_disc_large")).variant("it")


def test_another_tokenizer_of_image_reward_is_told(tokenizer_folder, tmp_path):
    metric = ImageRewardMetric(image_reward_tokenizer=tokenizer_folder)
    first = checkpoint_of(metric, 1).variant("tokenizer")
    assert first.startswith("tokenizer@")
    copy = shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")
    (copy / "README.md").write_text("x")
    metric = ImageRewardMetric(image_reward_tokenizer=copy)
    assert checkpoint_of(metric, 1).variant("tokenizer") == first
    (copy / "vocab.txt").write_text((copy / "vocab.txt").read_text().replace("red", "der"))
    assert checkpoint_of(metric, 1).variant("tokenizer") != first


# --- the run to compare with ---


def note(run, **values) -> None:
    """Puts values into the identity of a run."""
    file = run.path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["identity"] |= {**MODEL, **values}
    file.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, ""),
        ({"model_id": "sha256 2"}, "model_id"),
        ({"num_inference_steps": 20}, "num_inference_steps"),
        ({"unet_id": "sha256 3"}, "unet_id"),
        ({"model_id": "folder model, sha256 9"}, ""),  # of an earlier version, which cannot tell
    ],
)
def test_an_unmitigated_run_of_another_model_is_told(run, tmp_path, capsys, values, told):
    other = make_run(tmp_path / "runs" / "batch_wise" / "g7_seed2", prompts_of(run), seed=1)
    note(other)
    note(run, **values)
    argv = ["--gen_folder", str(other.path), "--unmitigated", str(run.path), "--quiet"]
    assert run_script(CHANGE, [*argv, "--metrics", "feature_change"]) == 0
    error = capsys.readouterr().err
    (variant,) = {row.variant for row in read_results(other.path) if row.quantity == "feature_gen"}
    assert ("was not made as this run" in error) == bool(told) and told in error
    assert variant.startswith("efficientnet_lite0_192_to_no_mitigation_g7_seed2")
    assert ("@" in variant) == bool(told)


def test_the_line_is_among_the_notes_of_the_function(run, patches_file):
    score_command.score(run, ["sscd"], sscd_checkpoint=patches_file, gt_folder=gt_of(run))
    picture(4321, (60, 50)).save(gt_of(run) / "100" / "0.png")
    notes = score_command.score(run, ["copy"], gt_folder=gt_of(run)).notes
    assert any("are taken out of results.csv" in line for line in notes)


def test_an_unmitigated_run_that_may_be_of_another_model_is_told(run, tmp_path, capsys):
    """A hub id and a hash do not compare, but were typed otherwise."""
    other = make_run(tmp_path / "runs" / "batch_wise" / "g7_seed2", prompts_of(run), seed=1)
    for each, model, typed in ((other, "sha256 1", "models/mine"), (run, "a/b@0123", "a/b")):
        note(each, model_id=model)
        config = json.loads((each.path / "config.json").read_text())
        (each.path / "config.json").write_text(json.dumps(config | {"model_id": typed}))
    argv = ["--gen_folder", str(other.path), "--unmitigated", str(run.path), "--quiet"]
    assert run_script(CHANGE, [*argv, "--metrics", "feature_change"]) == 0
    told = "may be of another model (model_id models/mine and a/b, which may be the same)"
    assert told in capsys.readouterr().err
