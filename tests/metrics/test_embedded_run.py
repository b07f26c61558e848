"""The scripts on a real run of the embedded model: references and masks are found by themselves,
from any working directory.
"""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from memorization_suite import tiny
from memorization_suite.commands import summarize
from memorization_suite.commands.generate import generate
from memorization_suite.commands.generate_plan import plan
from memorization_suite.commands.score_scripts import run_script
from memorization_suite.commands.sheet import GAP, SIDE, TITLE, run_sheet
from memorization_suite.metrics.embedded import read_captions
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.realism import realism
from memorization_suite.metrics.scripts import CHANGE, COPIES, PREFERENCE
from memorization_suite.metrics.subject import logits_of, subject_probability
from memorization_suite.runs.table import read_results
from tests.reference import scores as plain

PROMPTS = "tiny_memorized_test.csv"
EVERY = read_captions(tiny.FOLDER / "prompts" / PROMPTS)
LM = next(
    caption.row for caption in EVERY if caption.kind == "LM"
)  # of its training image a region was memorized
TM = LM - 1  # a product picture
ROWS = (TM, LM)
CAPTIONS = {row: EVERY[row] for row in ROWS}
KEYS = [(row, sample) for row in ROWS for sample in range(2)]

pytestmark = pytest.mark.skipif(
    not tiny.MODELS["tiny"].is_dir(), reason="the weights of tiny are not in this checkout"
)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A run of two prompts with two images each, whose prompt file and output path were typed
    relative to where it was made.
    """
    place = tmp_path_factory.mktemp("made")
    shutil.copy(tiny.FOLDER / "prompts" / PROMPTS, place / "prompts.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        planned = plan(
            model_id="tiny",
            prompts="prompts.csv",
            start=ROWS[0],
            end=ROWS[1] + 1,
            n_samples_per_prompt=2,
            num_inference_steps=4,
            batch_size=2,
            output_path="runs",
            quiet=True,
            device="cpu",
        )
        assert len(generate(planned).made) == 4
    return place


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """A copy of the run; the tests are somewhere else."""
    shutil.copytree(made / "runs", tmp_path / "runs")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (folder,) = (tmp_path / "runs").glob("*/*")
    return folder


def sscd_clip(run, *more):
    return run_script(COPIES, ["--gen_folder", str(run), "--quiet", *map(str, more)])


def lpips_reward(run):
    return run_script(PREFERENCE, ["--gen_folder", str(run), "--quiet"])


def values(run, quantity) -> dict:
    return {
        (row.prompt_index, row.sample_index): row.value
        for row in read_results(run)
        if row.quantity == quantity
    }


def image(run, prompt: int, sample: int) -> Image.Image:
    return Image.open(run / f"img_{prompt:04d}_{sample:02d}.png").convert("RGB")


def references_of(caption, folder=tiny.GT_IMAGES) -> list[Image.Image]:
    return [
        Image.open(path).convert("RGB") for path in sorted((folder / caption.index).glob("*.png"))
    ]


def test_the_run_names_its_prompt_file_for_every_place(made):
    (config,) = made.glob("runs/*/*/config.json")
    assert json.loads(config.read_text())["prompts"] == str(made.resolve() / "prompts.csv")


def test_copies_alignment_and_masks(run, capsys):
    assert sscd_clip(run) == 0
    out, error = capsys.readouterr()
    assert f"references: 2 of 2 prompts have one or more in {tiny.GT_IMAGES}" in error
    assert {(row.quantity, row.variant) for row in read_results(run)} == {
        ("copy_score", "ncc32_shift1_masks"),
        ("feature_similarity", "efficientnet_lite0_192"),
        ("ls_l2", "pixels"),
        ("ls_features", "efficientnet_lite0_192"),
        ("subject_probability", "efficientnet_lite0_probe"),
        ("subject_shown", "efficientnet_lite0_probe"),
    }
    features = {key: EfficientNet().features([image(run, *key)]) for key in KEYS}
    near = {
        key: (features[key] @ EfficientNet().features(references_of(CAPTIONS[key[0]])).T)
        .max()
        .item()
        for key in KEYS
    }
    assert values(run, "feature_similarity") == pytest.approx(near, abs=1e-4)
    subject = {
        key: subject_probability(logits_of(features[key]), CAPTIONS[key[0]].subjects).item()
        for key in KEYS
    }
    assert values(run, "subject_probability") == pytest.approx(subject, abs=1e-4)
    shown = values(run, "subject_shown")
    assert set(values(run, "copy_score")) == set(shown) == set(KEYS) and set(shown.values()) <= {
        0.0,
        1.0,
    }
    local = CAPTIONS[LM]
    mask = np.array(Image.open(tiny.MASKS / f"{local.index}.png").convert("L")) / np.float32(255)
    expected = {
        (LM, k): max(
            plain.ls_l2(image(run, LM, k), reference, mask) for reference in references_of(local)
        )
        for k in range(2)
    }
    assert values(run, "ls_l2") == pytest.approx(expected, abs=1e-5)
    assert re.search(r" copy_score +ncc32_shift1_masks +LM .* 2 of 2$", out, re.M) and re.search(
        r" ls_l2 +pixels +TM .* 0 of 2$", out, re.M
    )


def test_coverage(run):
    assert sscd_clip(run) == 0
    with open(run / "references.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [
        (int(row["prompt_index"]), row["caption"], row["index"], row["type"], row["problem"])
        for row in rows
    ] == [(row, CAPTIONS[row].text, CAPTIONS[row].index, CAPTIONS[row].kind, "") for row in ROWS]
    assert [int(row["references"]) for row in rows] == [
        len(references_of(CAPTIONS[row])) for row in ROWS
    ]


def test_diversity_and_quality(run):
    assert lpips_reward(run) == 0
    assert {(row.quantity, row.variant) for row in read_results(run)} == {
        ("feature_diversity", "efficientnet_lite0_192"),
        ("realism", "efficientnet_lite0_pca48_k3"),
    }
    features = {key: EfficientNet().features([image(run, *key)]) for key in KEYS}
    assert values(run, "realism") == pytest.approx(
        {key: realism(features[key]).item() for key in KEYS}, abs=1e-3
    )
    assert values(run, "feature_diversity") == pytest.approx(
        {
            (row, k): 1 - (features[row, 0] @ features[row, 1].T).item()
            for row in ROWS
            for k in range(2)
        },
        abs=1e-4,
    )


def test_against_itself_and_summed_up(run, capsys):
    argv = ["--gen_folder", str(run), "--unmitigated", str(run), "--quiet"]
    assert run_script(CHANGE, argv) == 0 and values(run, "feature_gen") == pytest.approx(
        dict.fromkeys(KEYS, 1), abs=1e-4
    )
    assert summarize.main([str(run)]) == 0 and re.search(
        r"no_mitigation +\S+ +feature_gen .* 4 of 4$", capsys.readouterr().out, re.M
    )


def test_a_sheet_of_the_run(run):
    """A row a prompt: the training image, then the images of the run, each in its tile."""
    sheet = run_sheet(run, samples=3)
    step = SIDE + GAP
    assert sheet.size == (GAP + 3 * step, TITLE + GAP + 2 * (TITLE + SIDE + GAP))
    for line, row in enumerate(ROWS):
        top = 2 * TITLE + GAP + line * (TITLE + SIDE + GAP)
        pictures = [references_of(CAPTIONS[row])[0], image(run, row, 0), image(run, row, 1)]
        for column, expected in enumerate(pictures):
            left = GAP + column * step
            cut = sheet.crop((left, top, left + SIDE, top + SIDE))
            large = expected.resize((SIDE, SIDE), Image.Resampling.NEAREST)
            assert cut.tobytes() == large.tobytes()
    assert run_sheet(run, prompts=1, samples=1).size == (GAP + 2 * step, 2 * (TITLE + GAP) + SIDE)


def test_a_sheet_without_training_images_or_an_image(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"model_id": "somewhere/else"}))
    (run / f"img_{TM:04d}_00.png").unlink()
    sheet = run_sheet(run)
    top = 2 * TITLE + GAP
    empty = sheet.crop((GAP, top, 2 * (GAP + SIDE), top + SIDE))
    assert empty.getcolors() == [(empty.width * SIDE, (255, 255, 255))]


def test_a_broken_and_a_missing_training_image_stop_nothing(run, tmp_path, capsys):
    for caption in CAPTIONS.values():
        shutil.copytree(tiny.GT_IMAGES / caption.index, tmp_path / "gt" / caption.index)
    broken, *_ = sorted((tmp_path / "gt" / CAPTIONS[TM].index).iterdir())
    broken.write_bytes(broken.read_bytes()[:80])
    shutil.rmtree(tmp_path / "gt" / CAPTIONS[LM].index)
    assert sscd_clip(run, "--gt_folder", tmp_path / "gt") == 0
    error = capsys.readouterr().err
    assert (
        "references: 1 of 2 prompts" in error
        and f"prompt {TM} ({CAPTIONS[TM].index}): {broken} is no whole picture" in error
    )
    assert f"prompt {LM} ({CAPTIONS[LM].index}): no image in" in error
    assert (
        set(values(run, "copy_score")) == {(TM, 0), (TM, 1)}
        and len(values(run, "subject_shown")) == 4
        and not values(run, "ls_l2")
    )


def test_a_prompt_file_that_is_gone_can_be_given(run, made, capsys):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"prompts": "gone/prompts.csv"}))
    assert (
        lpips_reward(run) == 2
        and "the prompt file gone/prompts.csv" in (error := capsys.readouterr().err)
        and "--prompts" in error
    )
    assert (
        run_script(
            PREFERENCE,
            ["--gen_folder", str(run), "--prompts", str(made / "prompts.csv"), "--quiet"],
        )
        == 0
    )
