"""Scripts that compare runs: change on equal seeds, distances between sets, summaries."""

import csv
import math
import re
from collections import Counter

import numpy as np
import pytest
import torch

from memorization_suite.commands import distances, summarize
from memorization_suite.commands.score_scripts import run_script
from memorization_suite.metrics.fid import kernel
from memorization_suite.metrics.scripts import CHANGE
from memorization_suite.metrics.summary import Prompts, clusters, line, text_of
from memorization_suite.metrics.summary import summarize as lines_of
from memorization_suite.runs.table import Result, add_results, read_results
from tests.metrics.conftest import Patches, make_run, picture
from tests.metrics.test_scripts import generated, prompts_of, sscd_clip, values
from tests.reference import scores as plain


def test_change_against_the_unmitigated_run(run, tmp_path, patches_file, capsys):
    other = make_run(tmp_path / "runs" / "batch_wise" / "g7_seed2", prompts_of(run), seed=1)
    argv = [
        "--gen_folder",
        str(other.path),
        "--unmitigated",
        str(run.path),
        "--sscd_checkpoint",
        str(patches_file),
        "--quiet",
    ]
    assert run_script(CHANGE, argv) == 0
    out = capsys.readouterr().out
    mitigated = {p: [picture(1000 + 10 * p + k) for k in range(3)] for p in range(4)}
    pairs = {
        p: plain.nemo_sscd_gen(
            Patches(), mitigated[p], [generated(p, k) for k in range(3)], "official320"
        )
        for p in range(4)
    }
    assert values(other, "sscd_gen") == pytest.approx(
        {(p, k): value for p, found in pairs.items() for k, value in enumerate(found)}, abs=1e-4
    )
    medians = sorted(sorted(found)[1] for found in pairs.values())
    assert float(re.search(r"^SSCD_gen: (\S+) ±", out, re.M)[1]) == pytest.approx(
        medians[1], abs=1e-4
    )
    diversity = {
        (p, None): plain.nemo_diversity(Patches(), mitigated[p], "official320") for p in range(4)
    }
    assert values(other, "sscd_pairs") == pytest.approx(diversity, abs=1e-4)


def test_a_run_is_like_itself(run, capsys):
    assert (
        run_script(
            CHANGE,
            ["--gen_folder", str(run.path), "--unmitigated", str(run.path), "--quiet"],
        )
        == 0
    )
    found = values(run, "feature_gen")
    assert len(found) == 12 and all(value == pytest.approx(1, abs=1e-5) for value in found.values())


def test_fid_of_equal_and_of_different_sets(run, tmp_path, capsys):
    real = tmp_path / "real"
    real.mkdir()
    for i in range(12):
        picture(5000 + i, (64, 64)).save(real / f"{i}.png")
    assert distances.main(["--gen_folder", str(run.path), "--real_folder", str(run.path)]) == 0
    same = {
        row.quantity: row.value for row in read_results(run.path) if "_to_g7_seed2_" in row.variant
    }
    assert distances.main(["--gen_folder", str(run.path), "--real_folder", str(real)]) == 0
    other = {
        row.quantity: row.value
        for row in read_results(run.path)
        if "_to_real_n12_n12@" in row.variant
    }
    assert same["frechet_features"] == pytest.approx(0, abs=1e-3) and other["frechet_features"] > 1
    assert other["kernel_features"] > same["kernel_features"]
    assert "fid is not computed" in capsys.readouterr().err
    assert (
        distances.main(
            ["--gen_folder", str(run.path), "--real_folder", str(real), "--require", "fid"]
        )
        == 2
    )
    assert (
        distances.main(["--gen_folder", str(run.path), "--real_folder", str(tmp_path / "nowhere")])
        == 2
    )


def test_kernel_distance_repeats_and_leaves_numpy_alone():
    first, second = (
        torch.randn(30, 8, generator=torch.Generator().manual_seed(k)) + k for k in range(2)
    )
    np.random.seed(1)
    expected = np.random.rand()
    np.random.seed(1)
    assert kernel(first, second) == kernel(first, second) and np.random.rand() == expected


def scored(folder, value, method):
    rows = [
        Result(folder.name, method, prompt, sample, "copy_score", "v", value + 0.1 * prompt)
        for prompt in range(4)
        for sample in range(3)
    ]
    add_results(folder, rows)


def test_summary_of_two_runs(run, tmp_path, capsys):
    other = make_run(tmp_path / "runs" / "batch_wise" / "g7_seed2", prompts_of(run), seed=1)
    assert sscd_clip(run) == 0
    scored(run.path, 0.7, "no_mitigation")
    scored(other.path, 0.2, "batch_wise")
    capsys.readouterr()
    assert summarize.main([str(run.path), str(other.path), "--quantities", "copy_score"]) == 0
    out = capsys.readouterr().out
    assert (
        re.search(r"no_mitigation +g7_seed2 +copy_score +v +all +0.8500 +\[0\.\d+, 0\.\d+\]", out)
        and "12 of 12" in out
    )
    # The same for all prompts: no spread, so no interval.
    assert re.search(r"batch_wise/g7_seed2 +copy_score +v +-0.5000 +- +12", out)


def test_prompts_that_share_a_training_image_count_once(run):
    assert sscd_clip(run) == 0
    with open(run.path / "references.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["sha256"] in rows[1]["sha256"].split()
    add_results(
        run.path,
        [
            Result("r", "m", prompt, 0, "q", "v", value)
            for prompt, value in ((0, 1.0), (1, 0.0), (2, 0.0), (3, 0.0))
        ],
    )
    (whole,) = [line for line in lines_of(run.path) if line.quantity == "q" and line.split == "all"]
    assert (
        whole.mean == 0.25
        and whole.distinct == pytest.approx((0.5 + 0 + 0) / 3)
        and (whole.n, whole.total) == (4, 12)
    )


def test_an_interval_needs_prompts_that_differ(run):
    """Of one training image, or of one value, there is none; a share of none has the exact one."""
    assert sscd_clip(run) == 0
    values = {0: 0.8, 1: 0.9, 2: 0.2, 3: 0.2}
    rows = [
        Result("r", "m", prompt, 0, "copy_score", "v", value) for prompt, value in values.items()
    ]
    rows += [Result("r", "m", prompt, 0, "other", "v", 0.1) for prompt in range(4)]
    add_results(run.path, rows)
    lines = {
        (line.quantity, line.split): line for line in lines_of(run.path) if line.variant == "v"
    }
    vm, tm = lines["copy_score", "VM"], lines["copy_score", "TM"]
    assert vm.mean == pytest.approx(0.85) and vm.copies.mean == 1
    assert math.isnan(vm.low) and math.isnan(vm.copies.low)  # prompts 0 and 1 share one
    assert math.isnan(tm.low) and tm.copies.low == 0
    assert tm.copies.high == pytest.approx(1 - 0.025**0.5)
    assert lines["copy_score", "all"].low < lines["copy_score", "all"].high
    assert math.isnan(lines["other", "all"].low)


def test_an_exact_interval_is_of_distinct_training_images():
    """Twenty prompts of two training images are two observations."""
    prompts = Prompts(Counter(range(20)), {}, {prompt: prompt % 2 for prompt in range(20)})
    rows = [Result("r", "m", prompt, 0, "copy_score", "v", 0.1) for prompt in range(20)]
    found = line(rows[0], rows, "all", prompts)
    assert (found.copies.low, found.copies.high) == (0, pytest.approx(1 - 0.025**0.5))


def test_clusters_join_through_others():
    assert clusters({0: {"a"}, 1: {"b"}, 2: {"a", "b"}, 3: set(), 4: {"c"}, 5: {"b"}}) == {
        0: 0,
        1: 0,
        2: 0,
        3: 3,
        4: 4,
        5: 0,
    }


def test_a_line_says_what_a_plain_summary_says(run):
    assert sscd_clip(run) == 0
    rows = [
        Result("r", "m", prompt, sample, "sscd", "v", 0.1 * prompt + 0.22 * sample)
        for prompt in range(4)
        for sample in range(3)
    ]
    add_results(run.path, rows)
    whole, *_ = [line for line in lines_of(run.path) if line.quantity == "sscd"]
    expected = plain.summary([row.value for row in rows])
    assert whole.mean == pytest.approx(expected["mean"]) and whole.percentile_95 == pytest.approx(
        expected["percentile_95"]
    )
    assert {limit: share.mean for limit, share in whole.shares.items()} == {
        0.5: pytest.approx(expected["above_0.5"]),
        0.7: pytest.approx(expected["above_0.7"]),
    }


def test_every_type_of_prompts_has_a_line(run):
    assert sscd_clip(run) == 0
    add_results(
        run.path,
        [Result("r", "m", 0, sample, "q", "v", 0.5) for sample in range(3)]
        + [
            Result("r", "m", 1, None, "whole_prompt", "v", 2.0),
            Result("r", "m", None, None, "whole_run", "v", 1.5),
        ],
    )
    lines = {(line.quantity, line.split): line for line in lines_of(run.path)}
    assert {
        split: (lines["q", split].n, lines["q", split].total) for split in ("all", "TM", "VM")
    } == {"all": (3, 12), "TM": (0, 6), "VM": (3, 6)}
    assert [
        (lines["whole_prompt", split].n, lines["whole_prompt", split].total)
        for split in ("all", "TM", "VM")
    ] == [(1, 4), (0, 2), (1, 2)]
    assert [split for quantity, split in lines if quantity == "whole_run"] == ["all"] and lines[
        "whole_run", "all"
    ].total == 1
    empty = lines["q", "TM"]
    assert (
        all(
            math.isnan(value)
            for value in (empty.mean, empty.low, empty.high, empty.distinct, empty.percentile_95)
        )
        and empty.shares == {}
    )
    assert re.search(
        r"^m +r +q +v +TM +- +- +- +0 of 6$", text_of([lines["q", "all"], empty]), re.M
    )


def test_a_summary_needs_results(run, capsys):
    assert summarize.main([str(run.path)]) == 2 and "no results.csv" in capsys.readouterr().err
