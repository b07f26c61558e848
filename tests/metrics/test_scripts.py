"""The metric scripts as commands: official lines, results.csv, what is missing, what is refused."""

import re
import shutil
import statistics

import numpy as np
import pytest
import torch
from PIL import Image

from memorization_suite.commands.score_scripts import run_script
from memorization_suite.metrics.scripts import COPIES, PREFERENCE
from memorization_suite.runs import Key
from memorization_suite.runs.files import sha256_of
from memorization_suite.runs.table import read_results
from tests.metrics.conftest import CAPTIONS, Patches, picture
from tests.reference import scores as plain


def prompts_of(run):
    return run.path.parents[2] / "four.csv"


def gt_of(run):
    return run.path.parents[2] / "gt"


def common(run) -> list[str]:
    return ["--gen_folder", str(run.path), "--gt_folder", str(gt_of(run)), "--quiet"]


def sscd_clip(run, *more):
    return run_script(COPIES, [*common(run), *map(str, more)])


def lpips_reward(run, *more):
    return run_script(PREFERENCE, [*common(run), *map(str, more)])


def values(run, quantity):
    return {
        (row.prompt_index, row.sample_index): row.value
        for row in read_results(run.path)
        if row.quantity == quantity
    }


def generated(prompt: int, sample: int):
    """The image that make_run(seed=0) writes."""
    return picture(10 * prompt + sample)


REFERENCES = {0: [900], 1: [900, 901], 2: [902, 903]}


def test_sscd_and_clip_to_the_end(run, sscd_file, sscd_model, clip_file, capsys):
    import open_clip

    assert (
        sscd_clip(
            run,
            "--sscd_checkpoint",
            sscd_file,
            "--clip_checkpoint",
            clip_file,
            "--prompts",
            prompts_of(run),
        )
        == 0
    )
    out, error = capsys.readouterr()
    model, _, preprocess = open_clip.create_model_and_transforms(
        "ViT-B-32", pretrained=str(clip_file)
    )
    model.eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    references = {
        prompt: [picture(seed, (60, 50)) for seed in seeds] for prompt, seeds in REFERENCES.items()
    }
    sscd = {
        (p, k): plain.sscd_score(sscd_model, generated(p, k), references[p], "official320")
        for p in references
        for k in range(3)
    }
    clip = {
        (p, k): plain.clip_score(model, preprocess, tokenizer, generated(p, k), CAPTIONS[p])
        for p in range(4)
        for k in range(3)
    }
    assert values(run, "sscd") == pytest.approx(sscd, abs=1e-4) and values(
        run, "clip_gen"
    ) == pytest.approx(clip, abs=1e-4)
    nearest = {
        p: max(
            found,
            key=lambda image, p=p: plain.sscd_score(
                sscd_model, generated(p, 0), [image], "official320"
            ),
        )
        for p, found in references.items()
    }
    gt = {
        (p, None): plain.clip_score(model, preprocess, tokenizer, nearest[p], CAPTIONS[p])
        for p in references
    }
    assert values(run, "clip_gt") == pytest.approx(gt, abs=1e-4)
    for title, expected in (
        ("Mean SSCD score: ", sscd),
        ("Mean CLIP score (gt): ", gt),
        ("Mean CLIP score (gen): ", clip),
    ):
        printed = re.search(rf"^{re.escape(title)}(\S+)$", out, re.M)
        assert float(printed[1]) == pytest.approx(statistics.mean(expected.values()), abs=1e-4)
    assert "9 of 12" in out and "VM" in out and "[" in out
    assert "references: 3 of 4 prompts" in error and "prompt 3 (103)" in error
    (variant,) = {row.variant for row in read_results(run.path) if row.quantity == "sscd"}
    assert (
        variant == f"disc_mixup@{sha256_of(sscd_file)[:8]}_official320"
    )  # not the published weights, and it says so


def test_another_preset_adds_rows_and_keeps_the_others(run, patches_file):
    for preset in ("official320", "wen224"):
        assert sscd_clip(run, "--sscd_checkpoint", patches_file, "--sscd_preset", preset) == 0
    before = [row for row in read_results(run.path) if row.quantity == "sscd"]
    assert (
        sorted(row.variant.split("_", 2)[2] for row in before)
        == ["official320"] * 9 + ["wen224"] * 9
    )
    assert sscd_clip(run, "--sscd_checkpoint", patches_file) == 0
    assert {row for row in read_results(run.path) if row.quantity == "sscd"} == set(before)


def test_lpips_and_image_reward_to_the_end(
    run, alexnet_file, reward_file, reward_state, tokenizer_folder, capsys
):
    import lpips

    from memorization_suite.metrics.image_reward import ImageReward
    from memorization_suite.metrics.lpips_diversity import LpipsDiversity
    from tests.reference.image_reward import image_reward

    assert (
        lpips_reward(
            run,
            "--alexnet",
            alexnet_file,
            "--image_reward_checkpoint",
            reward_file,
            "--image_reward_tokenizer",
            tokenizer_folder,
        )
        == 0
    )
    out = capsys.readouterr().out
    package = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    package.load_state_dict(LpipsDiversity(alexnet_file).model.state_dict())
    diversity = [
        plain.lpips_diversity(package, [generated(p, k) for k in range(3)]) for p in range(4)
    ]
    tokenizer = ImageReward(reward_file, tokenizer_folder).tokenizer
    reward = {
        (p, k): image_reward(reward_state, tokenizer, generated(p, k), CAPTIONS[p])
        for p in range(4)
        for k in range(3)
    }
    assert values(run, "image_reward") == pytest.approx(reward, abs=1e-4)
    assert float(re.search(r"^LPIPS mean :  (\S+)$", out, re.M)[1]) == pytest.approx(
        statistics.mean(diversity), abs=1e-5
    )
    assert float(
        re.search(r"^Mean Image-reward \(gen, Overall\): (\S+)$", out, re.M)[1]
    ) == pytest.approx(statistics.mean(reward.values()), abs=1e-4)


def test_without_checkpoints_the_offline_scores_are_computed(run, capsys):
    assert sscd_clip(run) == 0 and lpips_reward(run) == 0
    out, error = capsys.readouterr()
    assert "Mean SSCD" not in out and "LPIPS mean" not in out
    for metric in ("sscd", "clip", "lpips", "image_reward"):
        (line,) = [
            line for line in error.splitlines() if line.startswith(f"{metric} is not computed: ")
        ]
        assert "checkpoints/" in line and "python download/fetch.py" in line
    assert {row.quantity for row in read_results(run.path)} == {
        "copy_score",
        "feature_similarity",
        "feature_diversity",
    }
    for metric in ("alignment", "localized", "quality"):
        assert f"{metric} has no value for this run" in error


@pytest.mark.parametrize(
    ("score", "metric"),
    [
        (sscd_clip, "sscd"),
        (sscd_clip, "clip"),
        (lpips_reward, "lpips"),
        (lpips_reward, "image_reward"),
    ],
)
def test_what_is_required_must_be_there(run, capsys, score, metric):
    assert score(run, "--require", metric) == 2
    error = capsys.readouterr().err
    assert (
        f"{metric} cannot be computed" in error
        and error.count("\n") == 1
        and not (run.path / "results.csv").exists()
    )


def test_an_unknown_metric_is_named(run, capsys):
    assert sscd_clip(run, "--require", "fid") == 2
    assert (
        "--require fid: compute_sscd_orig_clip_score.py has sscd, clip, copy, localized, alignment"
        in capsys.readouterr().err
    )


def test_a_file_that_is_no_checkpoint(run, tmp_path, alexnet_file, capsys):
    (tmp_path / "bad.pt").write_bytes(b"nonsense")
    for score, flag in (
        (sscd_clip, "--sscd_checkpoint"),
        (sscd_clip, "--clip_checkpoint"),
        (lpips_reward, "--alexnet"),
    ):
        assert score(run, flag, tmp_path / "bad.pt") == 2
        error = capsys.readouterr().err
        assert (
            "bad.pt cannot be loaded as" in error
            and error.count("\n") == 1
            and "weights_only" not in error
        )
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "bad.pt")
    assert lpips_reward(run, "--alexnet", tmp_path / "bad.pt") == 2


@pytest.mark.parametrize(
    "flag", ["--sscd_checkpoint", "--clip_checkpoint", "--gt_folder", "--masks"]
)
def test_what_was_typed_must_be_there(run, tmp_path, capsys, flag):
    assert sscd_clip(run, flag, tmp_path / "not_here") == 2
    assert f"{flag} {tmp_path / 'not_here'} is not there" in capsys.readouterr().err
    other = prompts_of(run) if flag in ("--gt_folder", "--masks") else tmp_path
    assert sscd_clip(run, flag, other) == 2 and f"{flag} {other} is no f" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["banana", "cuda:99"])
def test_a_device_that_is_not_there(run, capsys, device):
    assert (
        sscd_clip(run, "--device", device) == 2 and f"--device {device}" in capsys.readouterr().err
    )


def test_a_required_metric_must_give_a_value(run, capsys):
    assert sscd_clip(run, "--require", "alignment") == 2
    assert "alignment has no value for this run" in capsys.readouterr().err


def test_a_table_of_someone_else(run, capsys):
    (run.path / "results.csv").write_text("a;b\n1;2\n")
    assert sscd_clip(run) == 2 and "results.csv is no table of results" in capsys.readouterr().err


def test_scores_of_fewer_images_replace_those_of_more(run):
    assert lpips_reward(run) == 0 and len(values(run, "feature_diversity")) == 12
    assert (
        lpips_reward(run, "--num_samples", "2") == 0 and len(values(run, "feature_diversity")) == 8
    )


def test_scored_from_inside_its_folder(run, monkeypatch):
    monkeypatch.chdir(run.path)
    assert run_script(PREFERENCE, ["-f", ".", "-p", str(prompts_of(run)), "--quiet"]) == 0
    assert {(row.run, row.method) for row in read_results(run.path)} == {
        ("g7_seed2", "no_mitigation")
    }


def test_masks(run, tmp_path, patches_file):
    mask = np.zeros((40, 48), np.uint8)
    mask[5:30, 10:40] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "101.png")
    assert sscd_clip(run, "--masks", tmp_path / "masks", "--sscd_checkpoint", patches_file) == 0
    references, soft = [picture(seed, (60, 50)) for seed in REFERENCES[1]], mask / np.float32(255)
    for quantity, pair in (
        ("ls_l2", plain.ls_l2),
        ("ls_sscd", lambda *args: plain.ls_sscd(Patches(), *args, "official320")),
    ):
        expected = {
            (1, k): max(pair(generated(1, k), reference, soft) for reference in references)
            for k in range(3)
        }
        assert values(run, quantity) == pytest.approx(expected, abs=1e-4)
    assert {row.variant for row in read_results(run.path) if row.quantity == "copy_score"} == {
        "ncc32_shift1_masks"
    }


def with_copies(run) -> dict[tuple[int, int], Image.Image]:
    """Images 1_0 and 2_1 become near copies of training images; all images by key."""
    for key, seed in ((Key(1, 0), 901), (Key(2, 1), 902)):
        run.save_image(
            key,
            Image.blend(
                picture(seed, (60, 50)).resize((48, 40)), generated(key.prompt, key.sample), 0.3
            ),
        )
    return {
        (p, k): Image.open(run.image_path(Key(p, k))).convert("RGB")
        for p in range(4)
        for k in range(3)
    }


def test_gated_similarity_is_of_images_near_a_training_image_alone(run, tmp_path, patches_file):
    images, mask = with_copies(run), np.zeros((40, 48), np.uint8)
    mask[5:30, 10:40] = 255
    (tmp_path / "masks").mkdir()
    for index in (101, 102):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    assert sscd_clip(run, "--masks", tmp_path / "masks", "--sscd_checkpoint", patches_file) == 0
    expected = {}
    for (prompt, sample), image in images.items():
        pairs = [
            plain.ls_gated(
                Patches(), image, picture(seed, (60, 50)), mask / np.float32(255), "official320"
            )
            for seed in (REFERENCES[prompt] if prompt in (1, 2) else [])
        ]
        if near := [value for value in pairs if value == value]:
            expected[prompt, sample] = max(near)
    assert set(expected) == {(1, 0), (2, 1)} and values(run, "ls_gated") == pytest.approx(
        expected, abs=1e-4
    )
    (gated,) = {row.variant for row in read_results(run.path) if row.quantity == "ls_gated"}
    assert gated == f"disc_mixup@{sha256_of(patches_file)[:8]}_official320"


def test_figures_of_the_types_of_prompts(run, patches_file, capsys):
    """Prompts 0 and 1 are VM, 2 and 3 are TM; 3 has no training image."""
    images = with_copies(run)
    assert sscd_clip(run, "--sscd_checkpoint", patches_file) == 0
    table = {
        line.split()[4]: line
        for line in capsys.readouterr().out.splitlines()
        if re.match(r"no_mitigation +g7_seed2 +sscd ", line)
    }
    for split, prompts, counted in (
        ("all", (0, 1, 2), "9 of 12"),
        ("VM", (0, 1), "6 of 6"),
        ("TM", (2,), "3 of 6"),
    ):
        scores = {
            p: [
                plain.sscd_score(
                    Patches(),
                    images[p, k],
                    [picture(seed, (60, 50)) for seed in REFERENCES[p]],
                    "official320",
                )
                for k in range(3)
            ]
            for p in prompts
        }
        figures = plain.summary([value for found in scores.values() for value in found])
        mean = statistics.mean(statistics.mean(found) for found in scores.values())
        # Both prompts of VM share a training image, which makes them one observation.
        interval = r"\[-?0\.\d{4}, 0\.\d{4}\]" if split == "all" else "-"
        distinct = (
            mean
            if split != "all"
            else statistics.mean(
                [statistics.mean(scores[0] + scores[1]), statistics.mean(scores[2])]
            )
        )
        n, total = counted.split(" of ")
        of_how_many = f" (of {n} images)" if n != total else ""
        cells = [
            f"{mean:.4f}",
            interval,
            f"{distinct:.4f}",
            f"{figures['percentile_95']:.4f}",
            f">=0.5: {figures['above_0.5']:.1%}, >=0.7: {figures['above_0.7']:.1%}{of_how_many}",
            counted,
        ]
        assert re.search(
            rf" {split} +"
            + r" +".join(cell if cell == interval else re.escape(cell) for cell in cells)
            + "$",
            table[split],
        )
    assert ">=0.5: 33.3%" in table["TM"] and ">=0.5: 16.7%" in table["VM"]


def test_a_type_of_which_nothing_was_scored_is_said(run, tmp_path, patches_file, capsys):
    shutil.rmtree(gt_of(run) / "102")
    assert sscd_clip(run, "--sscd_checkpoint", patches_file) == 0
    (line,) = [
        line
        for line in capsys.readouterr().out.splitlines()
        if re.match(r"no_mitigation +g7_seed2 +sscd .* TM ", line)
    ]
    assert re.search(r" TM +- +- +- +0 of 6$", line)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--gen_folder", "x", "--num_samples", "0"],
        ["--gen_folder", "x", "--num_samples", "many"],
        ["--gen_folder", "x", "--sscd_preset", "y"],
        ["--gen_folder", "x", "-z"],
    ],
)
def test_wrong_arguments(argv, capsys):
    try:
        code = run_script(COPIES, argv)
    except SystemExit as left:
        code = left.code
    assert code == 2 and capsys.readouterr().err.count("\n") == 1


def test_a_folder_that_cannot_be_scored(run, tmp_path, capsys):
    run.image_path(Key(0, 0)).write_bytes(b"x")
    assert (
        sscd_clip(run) == 2
        and "img_0000_00.png is no PNG" in capsys.readouterr().err
        and not (run.path / "results.csv").exists()
    )
    assert run_script(COPIES, ["--gen_folder", str(tmp_path / "nowhere")]) == 2


def test_missing_training_images_are_said_and_the_old_coverage_stays(
    run, tmp_path, capsys, monkeypatch
):
    assert sscd_clip(run) == 0
    before = (run.path / "references.csv").read_text()
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    assert run_script(COPIES, ["--gen_folder", str(run.path), "--quiet"]) == 0
    assert "copy is not computed: there are no training images in" in capsys.readouterr().err
    assert (run.path / "references.csv").read_text() == before and "references: " not in before


def test_a_script_that_reads_no_training_images_keeps_what_is_known_of_them(run):
    next((gt_of(run) / "101").glob("*.png")).write_bytes(b"x")
    assert sscd_clip(run) == 0
    known = (run.path / "references.csv").read_text()
    assert "is no whole picture" in known
    assert lpips_reward(run) == 0 and (run.path / "references.csv").read_text() == known
