"""detect_memorization.py evaluate: the table, evaluation.csv, plots, warnings, and refusals with
exit code 2.
"""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from memorization_suite import detect_memorization
from memorization_suite.commands.evaluate import evaluate
from memorization_suite.detection.evaluation import roc
from memorization_suite.detection.evaluation.roc_plots import file_stems
from memorization_suite.detection.evaluation.summary import SWAPPED, report_line, summarize
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.store import SCHEMA
from tests.detect import scalars

CAPTIONS = [f'prompt "{i}", of nothing' for i in range(30)]


def main(argv):
    """Exit code of detect_memorization.py evaluate."""
    return detect_memorization.main(["evaluate", *argv])


def scores(shift, seed=0, n=30):
    """Scores of memorized and of ordinary prompts."""
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, n).tolist(), rng.normal(0, 1, n).tolist()


def write_scores(folder, memorized, ordinary, samples=2):
    """A detector's folder with scores.csv; the images of a prompt differ, their mean is the score
    that was given.
    """
    folder.mkdir(parents=True)
    rows = [
        {
            "set": kind,
            "prompt_index": i,
            "prompt": CAPTIONS[i],
            "sample_index": k,
            "score": value + (k - (samples - 1) / 2),
        }
        for kind, values in (("mem", memorized), ("nonmem", ordinary))
        for i, value in enumerate(values)
        for k in range(samples)
    ]
    write_csv(folder / "scores.csv", rows)
    return folder


@pytest.fixture
def folders(tmp_path):
    """Two detectors below tmp_path/detections, and a folder that is none."""
    (tmp_path / "detections" / "prompt_sets").mkdir(parents=True)
    return [
        write_scores(tmp_path / "detections" / name, *scores(shift))
        for name, shift in (("noise_norm", 2.0), ("attention", 0.5))
    ]


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def refused(capsys, argv, told):
    """argv gives exit code 2 and one line on stderr that says `told`."""
    try:
        code = main([str(word) for word in argv])
    except SystemExit as leave:
        code = leave.code
    out, error = capsys.readouterr()
    assert code == 2 and not out, error
    assert (
        error.count("\n") == 1
        and error.startswith("detect_memorization.py evaluate: ")
        and "Traceback" not in error
    )
    assert told in error


def test_a_line_for_each_detector(folders, tmp_path, capsys):
    assert main([str(tmp_path / "detections"), "--out", str(tmp_path / "out")]) == 0
    out, error = capsys.readouterr()
    lines = out.splitlines()
    assert (
        lines[0].split("  ")[0] == "detector"
        and "TPR@1%FPR" in lines[0]
        and "TPR@3%FPR" in lines[0]
    )
    assert [line.split()[0] for line in lines[1:3]] == ["attention", "noise_norm"] and not error
    for row, shift in zip(table(tmp_path / "out" / "evaluation.csv"), (0.5, 2.0)):
        positives, negatives = scores(shift)
        assert float(row["auc"]) == pytest.approx(scalars.auc(positives, negatives))
        assert float(row["tpr_at_0.03"]) == scalars.tpr_at(positives, negatives, 0.03) and float(
            row["accuracy"]
        ) == scalars.accuracy(positives, negatives)
        assert 0 <= float(row["auc_low"]) < float(row["auc"]) < float(row["auc_high"]) <= 1
        assert (row["positives"], row["negatives"], row["rule"], row["type"]) == (
            "30",
            "30",
            "at_most",
            "",
        )
        assert float(row["resolution"]) == pytest.approx(1 / 30)
    for name in ("roc.png", "roc_log.png", "scores_attention.png", "scores_noise_norm.png"):
        assert Image.open(tmp_path / "out" / name).size[0] > 400
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "evaluation.csv",
        "roc.png",
        "roc_log.png",
        "scores_attention.png",
        "scores_noise_norm.png",
    }


def test_what_one_would_do_next(folders, tmp_path):
    assert evaluate(files=folders).following == []
    drawn = evaluate(files=folders, out=tmp_path / "out")
    assert drawn.following[-1] == (tmp_path / "out" / "roc.png").as_uri()


def test_the_same_command_writes_the_same_bytes(folders, tmp_path):
    for out in ("a", "b"):
        assert (
            main([str(folders[0] / "scores.csv"), str(folders[0]), "--out", str(tmp_path / out)])
            == 0
        )
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert len(table(tmp_path / "a" / "evaluation.csv")) == 1  # the same file by two names


@pytest.mark.parametrize("rule", roc.RULES)
def test_the_rule_and_the_rates_are_used(folders, tmp_path, capsys, rule):
    assert (
        main(
            [str(folders[1]), "--rule", rule, "--fpr", "0.1", "0.3", "--out", str(tmp_path / "out")]
        )
        == 0
    )
    row = table(tmp_path / "out" / "evaluation.csv")[0]
    assert [float(row[f"tpr_at_{rate}"]) for rate in (0.1, 0.3)] == pytest.approx(
        [scalars.tpr_at(*scores(0.5), rate, rule) for rate in (0.1, 0.3)]
    )
    assert f"rule {rule}" in capsys.readouterr().out and "tpr_at_0.01" not in row


def test_what_the_rule_nearest_reads_is_said(tmp_path, capsys):
    """Of 72 ordinary prompts the nearest rate to 1 % is 1/72; an interval may be of no use."""
    ordinary = [float(i) for i in range(71)] + [99.0]
    folder = write_scores(tmp_path / "near", [71.5] * 29 + [100.0], [0.0], samples=1)
    write_csv(
        folder / "scores.csv",
        (
            {"set": kind, "prompt_index": i, "prompt": "x", "sample_index": 0, "score": score}
            for kind, some in (("mem", [71.5] * 29 + [100.0]), ("nonmem", ordinary))
            for i, score in enumerate(some)
        ),
    )
    out = tmp_path / "out"
    assert main([str(folder), "--rule", "nearest", "--fpr", "0.01", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "] at 1.39%" in said and "the interval may reach from 0 to 1" in said
    (row,) = table(out / "evaluation.csv")
    assert float(row["fpr_at_0.01"]) == 1 / 72 and row["rule"] == "nearest"
    assert main([str(folder), "--out", str(out)]) == 0
    assert "may reach" not in capsys.readouterr().out


def test_rates_that_differ_late_have_a_column_each(folders, tmp_path):
    rates = ["0.1", "0.1000000001"]
    assert main([str(folders[0]), "--fpr", *rates, "--out", str(tmp_path / "out")]) == 0
    assert {f"tpr_at_{rate}" for rate in rates} <= set(table(tmp_path / "out/evaluation.csv")[0])


def test_a_figure_without_an_interval_says_why(tmp_path, capsys):
    for name, sets in (("constant", ([1.0] * 30, [1.0] * 30)), ("one", ([2.0], [0.0, 3.0]))):
        write_scores(tmp_path / name, *sets, samples=1)
        assert main([str(tmp_path / name)]) == 0
        out = capsys.readouterr().out
        assert "[0.5" not in out and "no interval: fewer than two prompts, or no spread" in out


def test_detectors_of_other_models_or_samplers_are_not_compared_silently(folders, capsys):
    for folder, steps in zip(folders, (50, 20)):
        config = {"model_id": "tiny", "num_inference_steps": steps, "seed": steps}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert main([str(folder) for folder in folders]) == 0
    assert capsys.readouterr().err == (
        "attention was not scored as noise_norm (num_inference_steps 20 and 50): their figures are "
        "not comparable\n"
    )


@pytest.mark.parametrize(
    ("models", "configs", "told"),
    [
        ("aa", [{"model_id": "models/sd"}, {"model_id": "/there/models/sd"}], ""),
        ("ab", [{"model_id": "sd"}, {"model_id": "sd"}], "model_id sha256 b and sha256 a"),
        ("aa", [{"dtype": "fp32"}, {"dtype": "bf16"}], "dtype bf16 and fp32"),
        ("aa", [{"guidance_scale": 7.5, "num_steps": 1}, {"guidance_scale": 3.0}], ""),
        (
            "aa",
            [{"guidance_scale": 7.5, "num_steps": 2}, {"guidance_scale": 3.0, "num_steps": 2}],
            "guidance_scale 3.0 and 7.5",
        ),
    ],
)
def test_what_detectors_are_compared_by(tmp_path, capsys, models, configs, told):
    """The model's content, the precision, and the guidance only beyond the first step."""
    folders = [write_scores(tmp_path / name, *scores(2.0)) for name in ("one", "two")]
    for folder, model, config in zip(folders, models, configs):
        made = {"detector": "noise_norm", "num_inference_steps": 50} | config
        (folder / "config.json").write_text(json.dumps(made), encoding="utf-8")
        identity = {"model_id": f"sha256 {model}", "detector": "noise_norm"}
        manifest = {"schema": SCHEMA, "identity": identity, "environments": [], "finished": "2030"}
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert main([str(folder) for folder in folders]) == 0
    error = capsys.readouterr().err
    assert (f"two was not scored as one ({told})" in error) == bool(told)


@pytest.mark.parametrize("wrong", ["sign", "sets"])
def test_a_wrong_sign_or_swapped_sets_are_reported_not_mended(tmp_path, capsys, wrong):
    memorized, ordinary = scores(2.0)
    given = (
        ([-score for score in memorized], [-score for score in ordinary])
        if wrong == "sign"
        else (ordinary, memorized)
    )
    folder = write_scores(tmp_path / "backwards", *given)
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    assert f"backwards: {SWAPPED}\n" == capsys.readouterr().err
    auc = float(table(tmp_path / "out" / "evaluation.csv")[0]["auc"])
    assert auc == pytest.approx(1 - scalars.auc(memorized, ordinary)) and auc < 0.5
    assert SWAPPED in report_line(folder / "scores.csv")


def test_scores_that_are_no_numbers_are_counted_and_left_out(tmp_path, capsys):
    memorized, ordinary = scores(1.0)
    folder = write_scores(
        tmp_path / "some",
        [float("nan"), *memorized[1:]],
        [float("inf"), float("-inf"), *ordinary[2:]],
        samples=1,
    )
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    error = capsys.readouterr().err
    assert (
        "some: 1 of 30 memorized prompts are left out" in error
        and "some: 2 of 30 ordinary prompts are left out" in error
    )
    row = table(tmp_path / "out" / "evaluation.csv")[0]
    assert (
        row["positives"],
        row["negatives"],
        row["left_out_positives"],
        row["left_out_negatives"],
    ) == ("29", "28", "1", "2")
    assert float(row["auc"]) == pytest.approx(scalars.auc(memorized[1:], ordinary[2:]))


def test_a_set_without_a_number_has_no_figures():
    summary = summarize([float("nan")] * 3, [1.0, 2.0])
    assert (
        summary["auc"] is summary["tpr_at_0.01"] is summary["accuracy_low"] is None
        and summary["left_out_positives"] == 3
    )
    single = summarize([1.0], [0.0, 2.0])
    assert single["auc"] == 0.5 and single["auc_low"] is None


def test_by_type_against_the_same_ordinary_prompts(folders, tmp_path, capsys):
    types = ["VM"] * 10 + ["TM"] * 18 + [""] * 2
    write_csv(
        tmp_path / "mem.csv",
        ({"Caption": caption, "type": kind} for caption, kind in zip(CAPTIONS, types)),
    )
    assert (
        main(
            [
                str(folders[0]),
                "--by",
                "type",
                "--prompts",
                str(tmp_path / "mem.csv"),
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    rows = table(tmp_path / "out" / "evaluation.csv")
    assert [(row["type"], row["positives"], row["negatives"]) for row in rows] == [
        ("", "30", "30"),
        ("TM", "18", "30"),
        ("VM", "10", "30"),
        ("none", "2", "30"),
    ]
    memorized, ordinary = scores(2.0)
    assert float(rows[2]["auc"]) == pytest.approx(scalars.auc(memorized[:10], ordinary))
    assert "VM" in capsys.readouterr().out


def test_types_need_the_prompts_that_were_scored(folders, tmp_path, capsys):
    write_csv(
        tmp_path / "other.csv", ({"Caption": f"another {i}", "type": "VM"} for i in range(30))
    )
    write_csv(
        tmp_path / "short.csv", ({"Caption": caption, "type": "VM"} for caption in CAPTIONS[:10])
    )
    write_csv(tmp_path / "plain.csv", ({"Caption": caption} for caption in CAPTIONS))
    for name, told in (
        ("other.csv", "'another 0'"),
        ("short.csv", "has 10 prompts"),
        ("plain.csv", "has no types"),
        ("no.csv", "cannot read"),
    ):
        refused(capsys, [folders[0], "--by", "type", "--prompts", tmp_path / name], told)


def test_official_files_of_a_set_each(tmp_path, capsys):
    rng = np.random.default_rng(0)
    tracks = {
        "memorized_prompts": rng.uniform(3, 9, (12, 4, 50)),
        "non_memorized_prompts": rng.uniform(1, 6, (15, 4, 50)),
    }
    for name, track in tracks.items():
        lines = [
            json.dumps(
                {"uncond_noise_norm": one.tolist(), "text_noise_norm": one.tolist(), "prompt": "x"}
            )
            for one in track
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, scale in (("sd1_mem_gen4", 2.0), ("sd1_nmem_gen4", 1.0)):
        torch.save(
            scale * torch.rand(20, 1, generator=torch.Generator().manual_seed(0)),
            tmp_path / f"{name}.pt",
        )
    wen = [
        "--memorized",
        tmp_path / "memorized_prompts.jsonl",
        "--ordinary",
        tmp_path / "non_memorized_prompts.jsonl",
    ]
    sail = [
        "--memorized",
        tmp_path / "sd1_mem_gen4.pt",
        "--ordinary",
        tmp_path / "sd1_nmem_gen4.pt",
    ]
    assert (
        main(
            [
                str(word)
                for word in [
                    *wen,
                    *sail,
                    "--steps",
                    1,
                    "--rule",
                    "nearest",
                    "--out",
                    tmp_path / "out",
                ]
            ]
        )
        == 0
    )
    first, second = table(tmp_path / "out" / "evaluation.csv")
    means = [track[:, :, :1].mean((1, 2)) for track in tracks.values()]
    assert float(first["auc"]) == pytest.approx(scalars.auc(*means)) and (
        first["positives"],
        first["negatives"],
    ) == ("12", "15")
    assert (second["detector"], second["ordinary_prompts"], second["positives"]) == (
        "sd1_mem_gen4",
        "sd1_nmem_gen4",
        "20",
    )
    out, error = capsys.readouterr()
    assert (
        "non_memorized_prompts" in out
        and "sd1_mem_gen4 was not scored on the same prompts as memorized_prompts" in error
    )


def test_our_scores_with_other_ordinary_prompts(folders, tmp_path, capsys):
    others = write_scores(tmp_path / "lexica" / "noise_norm", scores(1.0, seed=5)[0], [])
    assert (
        main(
            [
                str(word)
                for word in [
                    "--memorized",
                    folders[0] / "scores.csv",
                    "--ordinary",
                    others / "scores.csv",
                    "--out",
                    tmp_path / "out",
                ]
            ]
        )
        == 0
    )
    row = table(tmp_path / "out" / "evaluation.csv")[0]
    assert float(row["auc"]) == pytest.approx(scalars.auc(scores(2.0)[0], scores(1.0, seed=5)[0]))
    capsys.readouterr()
    refused(capsys, [others], "holds no scores of ordinary prompts (set nonmem)")


def test_the_ordinary_prompts_are_named(folders, tmp_path, capsys):
    (folders[0] / "config.json").write_text(
        json.dumps({"prompts": "prompts/mem.csv", "nonmem_prompts": "hub:some/set:text"}),
        encoding="utf-8",
    )
    (folders[1] / "config.json").write_text("[]", encoding="utf-8")
    assert main([str(tmp_path / "detections"), "--out", str(tmp_path / "out")]) == 0
    assert [row["ordinary_prompts"] for row in table(tmp_path / "out" / "evaluation.csv")] == [
        "",
        "hub:some/set:text",
    ]
    assert "set:text" in capsys.readouterr().out


def test_odd_names_stay_apart_and_harmless(tmp_path, capsys):
    names = ["a/x", "b/x", "c/_$\\frac$ <b>\x1b[1m", "d/ü", "e/é"]
    for name in names:
        write_scores(tmp_path / name, *scores(1.0))
    assert main([*(str(tmp_path / name) for name in names), "--out", str(tmp_path / "out")]) == 0
    assert [row["detector"] for row in table(tmp_path / "out" / "evaluation.csv")] == [
        "a/x",
        "b/x",
        "_$\\frac$ <b>?[1m",
        "ü",
        "é",
    ]
    assert "\x1b" not in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").glob("scores_*")) == [
        "scores__-frac-b-1m.png",
        "scores_a-x.png",
        "scores_b-x.png",
        "scores_detector.png",
        "scores_detector_2.png",
    ]
    assert file_stems(["X", "x", "..", "x" * 500])[1:] == ["x_2", "detector", "x" * 80]


def test_equal_and_wide_scores_can_be_drawn(tmp_path):
    for name, sets in (
        ("constant", ([1.0] * 30, [1.0] * 30)),
        ("wide", ([1e-3] * 15 + [1e30] * 15, [1e-3] * 30)),
        ("few", ([1.0, 2.0], [0.0])),
    ):
        write_scores(tmp_path / name, *sets, samples=1)
        assert main([str(tmp_path / name), "--out", str(tmp_path / name / "out")]) == 0
        assert (tmp_path / name / "out" / f"scores_{name}.png").stat().st_size > 3000


def test_evaluation_from_python(folders, capsys):
    evaluation = evaluate(files=folders, fpr=0.1, rule="nearest")
    assert [row["detector"] for row in evaluation.rows] == ["noise_norm", "attention"]
    assert evaluation.rows[0]["auc"] == scalars.auc(*scores(2.0))
    text = str(evaluation)
    assert text.count("\n") == 3 and "TPR@10%FPR" in text and "rule nearest" in text
    assert capsys.readouterr() == ("", "") and not evaluation.warnings
    with pytest.raises(ValueError, match="there is no flag 'rules'.*Did you mean rule"):
        evaluate(files=folders, rules="nearest")


def test_the_line_of_the_detection_command(folders, tmp_path):
    line = report_line(folders[0] / "scores.csv")
    assert line.startswith(f"AUC {scalars.auc(*scores(2.0)):.3f} [") and line.endswith(
        "(30 memorized, 30 ordinary prompts)"
    )
    assert "TPR@1%FPR" in line and "TPR@3%FPR" in line
    alone = write_scores(tmp_path / "alone", scores(1.0)[0], [])
    assert (
        report_line(alone / "scores.csv")
        == "no AUC: it needs --prompts and --nonmem_prompts; here are 30 prompts"
    )


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--rule", "closest"], "--rule"),
        (["--fpr", "0"], "false-positive rate of 0.0"),
        (["--fpr", "1"], "rate of 1.0"),
        (["--fpr", "nan"], "--fpr nan"),
        (["--fpr"], "--fpr"),
        (["--seed", "-1"], "--seed"),
        (["--steps", "0"], "--steps 0"),
        (["--steps", "1"], "--steps is for files"),
        (["--by", "type"], "go together"),
        (["--prompts", "x.csv"], "go together"),
        (["--by", "color"], "--by"),
        (["--memorized", "x.pt"], "go together"),
        (["--memorized", "x.pt", "--ordinary", "y.pt"], "x.pt"),
        (["--memorized", "x.pt", "--ordinary", "x.pt"], "same file"),
        (["nowhere"], "nowhere is not there"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_arguments_are_refused(folders, tmp_path, capsys, more, told):
    refused(
        capsys,
        [folders[0], *more, *(["--out", tmp_path / "out"] if more != ["--fpr"] else [])],
        told,
    )
    assert not (tmp_path / "out").exists()


def test_wrong_files_are_refused(folders, tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "scores.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (tmp_path / "one.jsonl").write_text(
        '{"text_noise_norm": [[1.0]], "prompt": "x"}\n', encoding="utf-8"
    )
    refused(capsys, [], "give score files")
    refused(capsys, [*folders, tmp_path / "bad"], "bad/scores.csv has no column 'set'")
    refused(capsys, [tmp_path / "one.jsonl"], "holds one set of prompts")
    refused(capsys, [folders[0], "--out", tmp_path / "one.jsonl"], "cannot be used as a folder")
    assert main([str(tmp_path / "detections" / "prompt_sets")]) == 2
    assert "prompt_sets holds no scores.csv: left out" in capsys.readouterr().err
    assert main([str(tmp_path / "detections" / "prompt_sets"), str(folders[0])]) == 0
    assert "prompt_sets holds no scores.csv: left out" in capsys.readouterr().err
