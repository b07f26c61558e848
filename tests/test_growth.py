"""A run that gets more images a prompt, or a detection more prompts, goes on."""

import functools
import io
import json

import numpy as np
import pytest
from PIL import Image

from memorization_suite import tiny
from memorization_suite.commands.detect import detect
from memorization_suite.commands.detect_plan import ScoreFolder, plan_detection
from memorization_suite.commands.generate import generate
from memorization_suite.commands.generate_plan import plan
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.prompts.files import read_prompts
from memorization_suite.prompts.sets import captions_hash
from memorization_suite.runs.files import write_json
from memorization_suite.runs.growth import Growing, grown, parts_of
from memorization_suite.runs.identity import differing
from memorization_suite.runs.tables import read_csv

N = "n_samples_per_prompt"


def test_a_number_grows_and_what_it_was_is_noted():
    manifest = {"identity": {N: 4, "seed": 2}}
    assert differing(manifest["identity"], {N: Growing(10), "seed": 2}) == {}
    assert differing(manifest["identity"], {N: Growing(2), "seed": 2}) == {N: 2}
    assert differing(manifest["identity"], {N: 10, "seed": 2}) == {N: 10}
    more = grown(manifest, {N: Growing(10), "seed": 2})
    assert more == {"identity": {N: 10, "seed": 2}, "grown": {N: [4]}}
    again = grown(more, {N: Growing(12), "seed": 2})
    assert again["grown"] == {N: [4, 10]}
    assert parts_of(again, N) == [range(4), range(4, 10), range(10, 12)]
    assert parts_of(manifest, N) == [range(4)]


@pytest.fixture(scope="module")
def load():
    """The loader with a memory: one model for all runs."""
    return functools.cache(load_pipeline)


def images(place, samples, load, **more):
    """A run folder with so many images of each of the first two prompts."""
    typed = {"model_id": "tiny", "num_inference_steps": 4, "end": 2, "batch_size": 2, "quiet": True}
    typed |= {"output_path": str(place), "preset": "none", N: samples, **more}
    return generate(plan(**typed), load=load).path


def read(path):
    return json.loads(path.read_text())


def pictures(run):
    return {path.name: path.read_bytes() for path in run.glob("img_*.png")}


def test_a_run_gets_more_images_of_each_prompt(tmp_path, load):
    """What is there stays; a lost one of either part is made again to the same bytes."""
    run = images(tmp_path, 2, load)
    before = pictures(run)
    assert images(tmp_path, 5, load) == run
    after = pictures(run)
    assert len(after) == 10 and before.items() <= after.items()
    manifest = read(run / "manifest.json")
    assert manifest["identity"][N] == 5 and manifest["grown"] == {N: [2]}
    assert manifest["images"] == 10
    for name in ("img_0000_01.png", "img_0001_03.png"):
        (run / name).unlink()
    images(tmp_path, 5, load)
    assert pictures(run) == after
    whole = pictures(images(tmp_path / "at_once", 5, load))
    assert whole.keys() == after.keys()
    assert max(map(difference, whole.values(), map(after.get, whole))) <= 1


def difference(one, other):
    """Largest difference of two PNGs, in grey levels."""
    arrays = [np.asarray(Image.open(io.BytesIO(data))).astype(int) for data in (one, other)]
    return abs(arrays[0] - arrays[1]).max()


def test_fewer_images_are_another_run(tmp_path, load):
    """Their means would be of other images."""
    images(tmp_path, 3, load)
    with pytest.raises(ValueError, match=f"{N}: 3 there, 2 now.*--output_path"):
        images(tmp_path, 2, load)
    scores(tmp_path / "scores", load, end=1, n_samples_per_prompt=2)
    with pytest.raises(ValueError, match=f"{N}: 2 there, 1 now"):
        scores(tmp_path / "scores", load, end=2, n_samples_per_prompt=1)


@pytest.mark.parametrize(
    "more",
    [
        {"rng": "official"},
        {"method": "prompt_embedding", "official": "joint_norm", "optim_iters": 1},
        {"method": "sail", "official": "same_candidates", "max_steps": 1, "restarts": 0},
    ],
    ids=["rng", "joint_norm", "same_candidates"],
)
def test_images_that_depend_on_their_number_are_not_mixed(tmp_path, load, more):
    images(tmp_path, 1, load, end=1, **more)
    with pytest.raises(ValueError, match=f"{N}: 1 there, 2 now.*--output_path"):
        images(tmp_path, 2, load, end=1, **more)


# --- detection ---


def asked(place, **more):
    """Flags of a small detection."""
    typed = {"model_id": "tiny", "num_inference_steps": 4, "quiet": True, "batch_size": 2}
    return {**typed, "nonmem_prompts": "", "preset": "none", "output_path": str(place), **more}


def scores(place, load, **more):
    """Rows of scores.csv of each detector."""
    done = detect(plan_detection(**asked(place, **more)), load=load)
    return {name: read_csv(folder.path / "scores.csv") for name, folder in done.folders.items()}


def test_a_detection_gets_more_prompts(tmp_path, load):
    part = scores(tmp_path, load, end=2, n_samples_per_prompt=1)
    more = scores(tmp_path, load, end=4, n_samples_per_prompt=1)
    assert more == scores(tmp_path / "at_once", load, end=4, n_samples_per_prompt=1)
    assert len(part["noise_norm"]) == 4 and len(more["noise_norm"]) == 8
    fewer = detect(plan_detection(**asked(tmp_path, end=1, n_samples_per_prompt=1)), load=load)
    assert fewer.summary.endswith("(with 6 prompts beyond --end)")
    assert all(row in more["noise_norm"] for row in part["noise_norm"])


def test_a_detection_of_an_earlier_version_goes_on(tmp_path, load):
    """Its manifest has the hash of the prompts up to --end."""
    scores(tmp_path, load, end=2, n_samples_per_prompt=1)
    path = tmp_path / "noise_norm" / "manifest.json"
    manifest = read(path)
    prompts = read_prompts(tiny.prompts("tiny"))
    manifest["identity"]["mem_prompts"] = captions_hash(prompts[:2])
    write_json(path, manifest)
    assert len(scores(tmp_path, load, end=3, n_samples_per_prompt=1)["noise_norm"]) == 6
    assert read(path)["identity"]["mem_prompts"] == captions_hash(prompts)
    manifest["identity"]["mem_prompts"] = captions_hash(prompts[1:3])
    write_json(path, manifest)
    with pytest.raises(ValueError, match="mem_prompts"):
        scores(tmp_path, load, end=3, n_samples_per_prompt=1)


def test_a_detection_gets_more_images_of_each_prompt(tmp_path, load):
    """The first ones keep their scores; costs add up; masks of the new ones are made."""
    typed = {"detector": "noise_norm,bright_ending", "end": 2, "save_masks": True}
    before = scores(tmp_path, load, n_samples_per_prompt=1, **typed)
    after = scores(tmp_path, load, n_samples_per_prompt=3, **typed)
    whole = scores(tmp_path / "at_once", load, n_samples_per_prompt=3, **typed)
    for name, rows in after.items():
        kept = [row for row in rows if row["sample_index"] == "0"]
        assert kept == before[name]
        assert [row["sample_index"] for row in rows] == ["0", "1", "2"] * 4
        for row, other in zip(rows, whole[name]):
            assert float(row["score"]) == pytest.approx(float(other["score"]), rel=1e-4)
        costs = [read_csv(place / name / "cost.csv") for place in (tmp_path, tmp_path / "at_once")]
        for column in ("prompt_index", "unet_rows", "pass_unet_rows"):
            assert [row[column] for row in costs[0]] == [row[column] for row in costs[1]]
    assert len(list((tmp_path / "bright_ending" / "masks").glob("*.npy"))) == 12


def test_prompts_and_images_grow_in_turns(tmp_path, load):
    """No prompt loses scores or counts its cost twice, whatever was there of its batch."""
    common = {"batch_size": 2, "detector": "noise_norm"}
    for samples, end in ((1, 3), (2, 3), (2, 4), (3, 1), (3, 4)):
        table = scores(tmp_path, load, n_samples_per_prompt=samples, end=end, **common)
    rows = [(row["set"], row["prompt_index"], row["sample_index"]) for row in table["noise_norm"]]
    assert rows == [
        (name, str(prompt), str(k))
        for name in ("mem", "nonmem")
        for prompt in range(4)
        for k in range(3)
    ]
    costs = read_csv(tmp_path / "noise_norm" / "cost.csv")
    assert {row["unet_rows"] for row in costs} == {"6"} and len(costs) == 8


@pytest.mark.parametrize("last", ["cost", "scores"])
def test_a_kill_while_a_detection_grows_counts_no_image_twice(tmp_path, load, monkeypatch, last):
    """last: the table whose part is the last that is written; the costs lie before the scores."""
    typed = {"detector": "noise_norm", "end": 1}
    scores(tmp_path, load, n_samples_per_prompt=1, **typed)
    add_part = ScoreFolder.add_part

    def dying(folder, name, rows):
        add_part(folder, name, rows)
        if name.startswith(last):
            raise KeyboardInterrupt

    monkeypatch.setattr(ScoreFolder, "add_part", dying)
    with pytest.raises(KeyboardInterrupt):
        scores(tmp_path, load, n_samples_per_prompt=3, **typed)
    monkeypatch.setattr(ScoreFolder, "add_part", add_part)
    table = scores(tmp_path, load, n_samples_per_prompt=4, **typed)["noise_norm"]
    assert [row["sample_index"] for row in table] == ["0", "1", "2", "3"] * 2
    costs = read_csv(tmp_path / "noise_norm" / "cost.csv")
    assert [(row["images"], row["unet_rows"], row["pass_unet_rows"]) for row in costs] == [
        ("4", "8", "8")
    ] * 2


def test_a_row_that_is_lost_between_others_is_made_again(tmp_path, load):
    """Of a detection that grew; the cost stays."""
    typed = {"detector": "noise_norm", "end": 1}
    scores(tmp_path, load, n_samples_per_prompt=2, **typed)
    before = scores(tmp_path, load, n_samples_per_prompt=4, **typed)
    tables = {name: tmp_path / "noise_norm" / f"{name}.csv" for name in ("scores", "cost")}
    lines = tables["scores"].read_text().splitlines(keepends=True)
    tables["scores"].write_text("".join([*lines[:2], *lines[3:]]))
    costs = tables["cost"].read_text()
    assert scores(tmp_path, load, n_samples_per_prompt=4, **typed) == before
    assert tables["cost"].read_text() == costs


def test_scores_among_a_prompts_images_are_not_mixed(tmp_path, load):
    typed = {"detector": "seed_similarity", "end": 1}
    scores(tmp_path, load, n_samples_per_prompt=2, **typed)
    with pytest.raises(ValueError, match=f"{N}: 2 there, 3 now"):
        scores(tmp_path, load, n_samples_per_prompt=3, **typed)
