"""detect_memorization.py: files, resuming, refusals, prompt sets, masks."""

import functools
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import memorization_suite.pipelines.loading
from memorization_suite.commands import detect as detection
from memorization_suite.commands import detect_plan
from memorization_suite.commands.detect_plan import ScoreFolder
from memorization_suite.commands.detection_job import Job
from memorization_suite.detect_memorization import main
from memorization_suite.detection import DETECTORS
from memorization_suite.pipelines.fingerprints import fingerprint
from memorization_suite.pipelines.stable_diffusion.denoiser import StableDiffusionDenoiser
from memorization_suite.prompts import files as prompt_files
from memorization_suite.runs.files import write_json
from memorization_suite.runs.tables import read_csv
from tests.cli.helpers import change_byte

MEM = ["the great wave", "two cats, in the style of an old master", "a green ring"]
NONMEM = ["three red stars", '<b>& a "blue" circle']


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(memorized prompts as CSV, ordinary ones as text)."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "mem.csv").write_text(
        "Caption;type\n" + "".join(f"{caption};VM\n" for caption in MEM)
    )
    (folder / "nonmem.txt").write_text("\n".join(NONMEM) + "\n")
    return str(folder / "mem.csv"), str(folder / "nonmem.txt")


@pytest.fixture(scope="module")
def loaded():
    """The loader with a memory: one model for all runs."""
    return functools.cache(memorization_suite.pipelines.loading.load_pipeline)


@pytest.fixture
def flags(random_sd_folder, files):
    """What is asked of every run here, by name."""
    return {
        "model_id": random_sd_folder,
        "prompts": files[0],
        "nonmem_prompts": files[1],
        "image_length": 32,
        "n_samples_per_prompt": 2,
        "num_inference_steps": 4,
        "quiet": True,
    }


@pytest.fixture
def detect(random_sd_folder, files, loaded, monkeypatch):
    """detect(out, *flags, code=0)."""
    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)

    def run(out, *more, code=0):
        argv = [
            "--model_id",
            random_sd_folder,
            "--prompts",
            files[0],
            "--nonmem_prompts",
            files[1],
            "--image_length",
            "32",
            "-n",
            "2",
            "--num_inference_steps",
            "4",
            "--quiet",
            "--output_path",
            str(out),
            *more,
        ]
        assert main(argv) == code
        return out

    return run


def test_scores_of_several_detectors(detect, tmp_path, capsys):
    """A row an image, in order, with the caption as it is; the summary names both sets; costs as
    the detectors state them.
    """
    detect(tmp_path, "--detector", "noise_norm,sharpness")
    out = capsys.readouterr().out
    for name, rows in (("noise_norm", 2), ("sharpness", 4)):
        table = read_csv(tmp_path / name / "scores.csv")
        assert list(table[0]) == ["set", "prompt_index", "prompt", "sample_index", "score"]
        assert [(row["set"], row["prompt"], row["sample_index"]) for row in table] == [
            (kind, caption, str(k))
            for kind, captions in (("mem", MEM), ("nonmem", NONMEM))
            for caption in captions
            for k in range(2)
        ]
        assert {int(row["unet_rows"]) for row in read_csv(tmp_path / name / "cost.csv")} == {
            2 * rows
        }
        assert {int(row["pass_unet_rows"]) for row in read_csv(tmp_path / name / "cost.csv")} == {8}
    assert out.count(": AUC ") == 2 and "3 memorized, 2 ordinary prompts" in out
    assert json.loads((tmp_path / "noise_norm" / "config.json").read_text())["command"].startswith(
        "python detect_memorization.py"
    )


def test_a_prompt_whose_pass_was_made_smaller_says_so(detect, tmp_path, monkeypatch):
    """With the least rows of its images; without such a prompt there is no column."""
    predict = StableDiffusionDenoiser.predict
    calls = []

    def short_of_memory(self, x, *told):
        if len(x) > 1:  # one row is the check of the schedule
            calls.append(len(x))
            if len(calls) in (1, 3):
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return predict(self, x, *told)

    usual = read_csv(detect(tmp_path / "usual") / "noise_norm" / "cost.csv")
    assert "forward_rows" not in usual[0]
    monkeypatch.setattr(StableDiffusionDenoiser, "predict", short_of_memory)
    table = read_csv(detect(tmp_path, "--batch_size", "3") / "noise_norm" / "cost.csv")
    # Two rows an image, two images a prompt: a batch of three prompts, and one of two.
    assert calls == [12, 6, 6, 4, 2, 8]
    assert [row["forward_rows"] for row in table] == ["6", "4", "4", "", ""]


def test_a_stopped_run_goes_on_to_the_same_bytes(detect, tmp_path, monkeypatch):
    whole = (detect(tmp_path / "a") / "noise_norm" / "scores.csv").read_bytes()
    make = Job.make
    made = []

    def stop_after_two(self, missing, name, prompts, samples):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(prompts)
        make(self, missing, name, prompts, samples)

    with monkeypatch.context() as patch:
        patch.setattr(Job, "make", stop_after_two)
        detect(tmp_path / "b", code=1)
    assert len(read_csv(tmp_path / "b" / "noise_norm" / "scores.csv")) == 4
    detect(tmp_path / "b")
    assert (tmp_path / "b" / "noise_norm" / "scores.csv").read_bytes() == whole
    assert sorted(path.name for path in (tmp_path / "b" / "noise_norm").iterdir()) == [
        "config.json",
        "cost.csv",
        "manifest.json",
        "scores.csv",
    ]


def test_parts_of_a_killed_run_are_used(detect, tmp_path):
    """As after SIGKILL: batches lie in .parts, no table is there."""
    folder = detect(tmp_path) / "noise_norm"
    whole = (folder / "scores.csv").read_bytes()
    (folder / ".parts").mkdir()
    for table in ("scores", "cost"):
        shutil.move(folder / f"{table}.csv", folder / ".parts" / f"{table}_mem_000000.csv")
    detect(tmp_path)
    assert (folder / "scores.csv").read_bytes() == whole and not (folder / ".parts").exists()


def test_a_half_made_folder_of_an_older_checkout_goes_on(
    detect, tmp_path, monkeypatch, random_sd_folder
):
    """Its manifest, as detect_memorization.py wrote it before its flags were declared once, and the
    parts of its first batch.
    """
    whole = detect(tmp_path / "whole", "-b", "2") / "noise_norm"
    folder = tmp_path / "half" / "noise_norm"
    (folder / ".parts").mkdir(parents=True)
    hashes = [
        hashlib.sha256("\0".join(captions).encode()).hexdigest()[:16] for captions in (MEM, NONMEM)
    ]
    identity = {
        "model_id": fingerprint(random_sd_folder),
        "nonmem_count": 500,
        "image_length": 32,
        "n_samples_per_prompt": 2,
        "num_inference_steps": 4,
        "guidance_scale": 7.5,
        "seed": 0,
        "scheduler": "ddim",
        "dtype": "fp32",
        "rng": "per_image",
        "detector": "noise_norm",
        "detector_settings": {"num_steps": 1},
        "device": "cpu",
        "mem_prompts": hashes[0],
        "nonmem_prompts": hashes[1],
    }
    stored = json.loads((whole / "manifest.json").read_text())
    assert stored["identity"] == identity
    write_json(folder / "manifest.json", stored | {"finished": None})
    for table, lines in (("scores", 1 + 4), ("cost", 1 + 2)):
        text = (whole / f"{table}.csv").read_text().splitlines(keepends=True)
        (folder / ".parts" / f"{table}_mem_000000.csv").write_text("".join(text[:lines]))
    made = []
    make = Job.make

    def noted(self, missing, name, prompts, samples):
        made.append((name, [prompt.row for prompt in prompts]))
        make(self, missing, name, prompts, samples)

    monkeypatch.setattr(Job, "make", noted)
    detect(tmp_path / "half", "-b", "2")
    assert made == [("mem", [2]), ("nonmem", [0, 1])]
    assert (folder / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    assert not (folder / ".parts").exists()


def test_detection_from_python(flags, tmp_path, loaded):
    """The same job as a function; the model may come from the caller."""
    plan = detect_plan.plan_detection(
        **flags, detector="noise_norm,bright_ending", output_path=str(tmp_path), num_steps=2
    )
    assert [detector.name for detector in plan.detectors] == ["noise_norm", "bright_ending"]
    made = detection.detect(plan, load=loaded)
    assert list(made.folders) == ["noise_norm", "bright_ending"]
    assert len(made.folders["noise_norm"].rows("scores")) == 10
    assert made.summary.startswith(f"{tmp_path / 'noise_norm' / 'scores.csv'}: AUC ")
    assert made.summary.count("\n") == 1
    assert made.folders["noise_norm"].is_finished()
    manifest = made.folders["noise_norm"].manifest()
    assert manifest["identity"]["detector_settings"] == {"num_steps": 2}


def test_a_prompt_file_is_read_once(flags, tmp_path, monkeypatch):
    read = []
    read_text = prompt_files.read_text

    def counted(path, *more):
        read.append(str(path))
        return read_text(path, *more)

    monkeypatch.setattr(prompt_files, "read_text", counted)
    plan = detect_plan.plan_detection(**flags, output_path=str(tmp_path))
    assert plan.identity(plan.detectors[0]) and read == [flags["prompts"], flags["nonmem_prompts"]]


def test_a_preset_sets_the_sampler_alone(flags, tmp_path):
    """Guidance, images per prompt and batches are the detection's own."""
    (tmp_path / "preset.toml").write_text(
        "[generate]\nnum_inference_steps = 7\nguidance_scale = 3.0\nbatch_size = 5\n"
        "n_samples_per_prompt = 9\n[noise_norm]\nnum_steps = 3\n"
    )
    for name in ("num_inference_steps", "n_samples_per_prompt"):
        del flags[name]
    settings = flags | {"preset": str(tmp_path / "preset.toml"), "output_path": str(tmp_path)}
    plan = detect_plan.plan_detection(**settings)
    used = plan.settings
    assert (used.num_inference_steps, plan.detectors[0].num_steps) == (7, 3)
    assert (used.guidance_scale, used.batch_size, used.n_samples_per_prompt) == (7.5, 1, 4)


def test_another_run_is_not_mixed_in(detect, tmp_path, capsys):
    detect(tmp_path)
    detect(tmp_path, "--seed", "1", code=2)
    assert "holds another run (seed: 0 there, 1 now)" in capsys.readouterr().err
    detect(tmp_path, "--seed", "1", "--overwrite")


def test_scores_of_another_model_are_not_mixed_in(detect, random_sd_folder, tmp_path, capsys):
    """A model of the same name whose last bytes are others, and other prompts."""
    runs = detect(tmp_path / "my scores", "--detector", "noise_norm")
    copy = shutil.copytree(random_sd_folder, tmp_path / "B" / Path(random_sd_folder).name)
    words = ("--detector", "noise_norm", "--model_id")
    detect(runs, *words, str(copy))
    change_byte(copy / "unet" / "diffusion_pytorch_model.safetensors", -1)
    capsys.readouterr()
    detect(runs, *words, str(copy), code=2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "noise_norm holds another run (model_id: " in error
    place = f"my scores_{copy.name}"
    assert f"--output_path '{tmp_path / place}', or --overwrite" in error
    (tmp_path / "six.txt").write_text("another one\n")
    detect(runs, "--detector", "noise_norm", "--prompts", str(tmp_path / "six.txt"), code=2)
    error = capsys.readouterr().err
    assert f"{tmp_path / 'six.txt'} (" in error and "my scores_six.txt'" in error


def test_masks_lie_beside_the_scores(detect, tmp_path):
    detect(tmp_path, "--detector", "bright_ending", "--save_masks")
    names = {
        f"{kind}_{row:04d}_{k:02d}"
        for kind, rows in (("mem", 3), ("nonmem", 2))
        for row in range(rows)
        for k in range(2)
    }
    assert {path.stem for path in (tmp_path / "bright_ending" / "masks").iterdir()} == names
    assert {path.stem for path in (tmp_path / "bright_ending" / "overlays").iterdir()} == names
    mask = np.load(tmp_path / "bright_ending" / "masks" / "mem_0000_00.npy", allow_pickle=False)
    assert mask.shape == (8, 8) and mask.dtype == np.float32 and (mask >= 0).all()
    assert Image.open(tmp_path / "bright_ending" / "overlays" / "mem_0000_00.png").size == (
        256,
        256,
    )


def test_all_leaves_out_what_lacks_a_file_and_says_so(detect, tmp_path, capsys):
    detect(tmp_path, "--detector", "all", "--end", "1")
    assert {path.name for path in tmp_path.iterdir()} == set(DETECTORS) - {"stability"}
    assert "left out of all: stability needs --statistics FILE" in capsys.readouterr().err


def test_official_noise_is_the_same_for_every_prompt(detect, tmp_path, files):
    same = tmp_path / "same.txt"
    same.write_text("the great wave\nthe great wave\n")
    detect(tmp_path, "--rng", "official", "--prompts", str(same))
    scores = [
        float(row["score"])
        for row in read_csv(tmp_path / "noise_norm" / "scores.csv")
        if row["set"] == "mem"
    ]
    assert scores[:2] == pytest.approx(scores[2:], rel=1e-5) and scores[0] != scores[1]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--detector", "nose_norm"], "there is no detector 'nose_norm'"),
        (["--detector", "nose_norm"], "Did you mean noise_norm?"),
        (["--num_steps", "5"], "--num_steps 5 is more than the 4 steps"),
        (["--layer", "1"], "--detector noise_norm does not take --layer"),
        (["--detector", "stability"], "needs --statistics FILE"),
        (["--prompts", "nothing.csv"], "cannot read the prompt file"),
        (["--nonmem_prompts", "hub:a"], "is written hub:NAME:COLUMN"),
        (["-n", "0"], "--n_samples_per_prompt 0 is out of range"),
        (["--guidance_scale", "nan"], "must be a finite number"),
    ],
)
def test_wrong_arguments_are_refused_before_a_model_is_loaded(
    detect, tmp_path, capsys, monkeypatch, flags, told
):
    monkeypatch.setattr(
        memorization_suite.pipelines.loading,
        "load_pipeline",
        lambda *args, **kwargs: pytest.fail("a model was loaded"),
    )
    detect(tmp_path, *flags, code=2)
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and "Traceback" not in error


def test_a_hub_data_set_is_sampled_once_and_kept(detect, tmp_path, monkeypatch, capsys):
    """A folder of CSV is a data set by name too. Empty and repeated texts are passed over; the
    sample is written and read again.
    """
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.csv").write_text(
        "Prompt,n\n" + "".join(f"a red star {i},1\n" for i in range(20)) + ",1\na red star 3,1\n"
    )
    source = f"hub:{data}:Prompt"
    detect(tmp_path / "out", "--nonmem_prompts", source, "--nonmem_count", "5")
    (sample,) = (tmp_path / "out" / "prompt_sets").iterdir()
    captions = [row["Caption"] for row in read_csv(sample)]
    assert len(set(captions)) == 5 and set(captions) <= {f"a red star {i}" for i in range(20)}
    shutil.rmtree(data)
    detect(tmp_path / "out", "--nonmem_prompts", source, "--nonmem_count", "5")
    assert "5 ordinary prompts" in capsys.readouterr().out
    detect(tmp_path / "other", "--nonmem_prompts", source, code=2)
    assert "cannot load the data set" in capsys.readouterr().err


def test_lists_every_detector(capsys):
    assert main(["--list_detectors"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in DETECTORS) and "--statistics" in out


def test_help_shows_the_flags_of_the_detector_that_is_typed(capsys):
    with pytest.raises(SystemExit):
        main(["--detector", "sharpness", "--help"])
    out = capsys.readouterr().out
    assert "--step_length" in out and "--statistics" not in out


def test_pieces_are_the_scores_of_one_process(detect, tmp_path, capsys):
    """Three and two prompts with -b 2: the batches are mem 0 1, mem 2, nonmem 0 1."""
    whole = detect(tmp_path / "whole", "-b", "2") / "noise_norm"
    for place, number in enumerate((2, 1), 1):
        folder = detect(tmp_path / "pieces", "-b", "2", "--shard", f"{number}/2") / "noise_norm"
        told = "other pieces are not made yet" in capsys.readouterr().out
        assert ScoreFolder(folder).is_finished() == (place == 2) and told == (place == 1)
    assert (folder / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    assert not (folder / ".parts").exists()


def test_an_evaluation_ends_a_whole_detection_and_tells_of_a_piece(detect, tmp_path, capsys):
    folder = detect(tmp_path / "pieces", "-b", "2", "--shard", "1/2") / "noise_norm"
    assert main(["evaluate", str(folder), "--quiet"]) == 0
    assert f"{folder} is not finished: it has 4 prompts so far" in capsys.readouterr().err
    detect(tmp_path / "pieces", "-b", "2", "--shard", "2/2")
    (folder / ".parts").mkdir()
    (folder / "scores.csv").rename(folder / ".parts" / "scores_mem_000000.csv")
    write_json(folder / "manifest.json", ScoreFolder(folder).manifest() | {"finished": None})
    assert main(["evaluate", str(folder), "--quiet"]) == 0
    assert ScoreFolder(folder).is_finished() and (folder / "scores.csv").exists()


@pytest.mark.parametrize("damage", ["cut", "gone", "rows", "cost"])
def test_what_a_detection_lost_is_made_again(detect, tmp_path, capsys, damage):
    """Masks, their pictures, scores: the same bytes; reading the scores meanwhile says so."""
    words = ("--detector", "bright_ending", "--save_masks")
    folder = detect(tmp_path, *words) / "bright_ending"
    files = {file: file.read_bytes() for file in folder.glob("*/*") if file.suffix != ".json"}
    scores = (folder / "scores.csv").read_bytes()
    if damage == "cut":
        for name in ("masks/mem_0000_01.npy", "overlays/mem_0001_00.png"):
            (folder / name).write_bytes(files[folder / name][:90])
    elif damage == "gone":
        (folder / "masks" / "nonmem_0001_00.npy").unlink()
    else:
        table = folder / ("scores.csv" if damage == "rows" else "cost.csv")
        table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:-1]))
    capsys.readouterr()
    detect_plan.look_at(folder)
    assert ("has lost scores" in capsys.readouterr().err) == (damage == "rows")
    detect(tmp_path, *words)
    assert ("2 files are damaged" in capsys.readouterr().err) == (damage == "cut")
    assert {file: file.read_bytes() for file in files} == files
    assert (folder / "scores.csv").read_bytes() == scores


def test_masks_that_are_asked_for_later_are_made(detect, tmp_path):
    folder = detect(tmp_path, "--detector", "bright_ending") / "bright_ending"
    assert not (folder / "masks").exists()
    detect(tmp_path, "--detector", "bright_ending", "--save_masks")
    assert len(list((folder / "masks").iterdir())) == 10


@pytest.mark.parametrize("detector", ["tile_distance", "seed_similarity"])
def test_a_detector_that_compares_images_needs_two(detector):
    typed = {"model_id": "tiny", "n_samples_per_prompt": 1, "end": 2}
    with pytest.raises(ValueError, match=f"--detector {detector} compares .* needs -n 2 or more"):
        detect_plan.plan_detection(**typed, detector=detector)
    assert detector in detect_plan.plan_detection(**typed, detector="all").left_out
    enough = detect_plan.plan_detection(**typed | {"n_samples_per_prompt": 2}, detector="all")
    assert detector not in enough.left_out
