"""Reading scores.csv and the official detectors' outputs; what is wrong with a file is said with
its name.
"""

import json

import numpy as np
import pytest
import torch

from memorization_suite.detection.evaluation.score_files import read_scores
from memorization_suite.runs.files import write_csv


def row(kind="mem", prompt=0, text="a cat", sample=0, score=1.0):
    return {
        "set": kind,
        "prompt_index": prompt,
        "prompt": text,
        "sample_index": sample,
        "score": score,
    }


def wen_line(values, prompt="a cat", **more):
    return (
        json.dumps(
            {"uncond_noise_norm": values, "text_noise_norm": values, "prompt": prompt} | more
        )
        + "\n"
    )


def test_our_format_means_over_the_images_of_a_prompt(tmp_path):
    texts = {0: 'a "cat", with; signs', 1: "two\nlines"}
    write_csv(
        tmp_path / "scores.csv",
        [
            row(kind, p, texts[p], k, 10 * p + k + (kind == "mem"))
            for kind in ("nonmem", "mem")
            for p in (1, 0)
            for k in range(3)
        ],
    )
    found = read_scores(tmp_path / "scores.csv")
    assert {
        kind: [(one.row, one.score, one.prompt) for one in scores] for kind, scores in found.items()
    } == {
        "mem": [(0, 2, texts[0]), (1, 12, texts[1])],
        "nonmem": [(0, 1, texts[0]), (1, 11, texts[1])],
    }


def test_one_set_and_scores_that_are_no_numbers(tmp_path):
    write_csv(
        tmp_path / "scores.csv",
        [row(score="nan"), row(sample=1), row(prompt=2, score="-inf"), row(prompt=1, score=0.25)],
    )
    found = read_scores(tmp_path / "scores.csv")
    assert list(found) == ["mem"] and [one.row for one in found["mem"]] == [0, 1, 2]
    assert [one.score for one in found["mem"]] == pytest.approx(
        [np.nan, 0.25, -np.inf], nan_ok=True
    )


def test_wen_means_over_images_and_the_first_steps(tmp_path):
    rng = np.random.default_rng(0)
    tracks = rng.uniform(1, 9, (5, 4, 50))  # prompts, images, steps
    path = tmp_path / "memorized_prompts.jsonl"
    path.write_text(
        "".join(wen_line(track.tolist(), f"prompt {i}") for i, track in enumerate(tracks)),
        encoding="utf-8",
    )
    for steps in (None, 1, 10, 50):
        scores = read_scores(path, steps=steps)[""]
        notebook = [np.mean(np.mean(track[:4, 0 : steps or 50], axis=0)) for track in tracks]
        assert [one.score for one in scores] == pytest.approx(notebook, abs=1e-12)
    assert [(one.row, one.prompt) for one in scores] == [(i, f"prompt {i}") for i in range(5)]


def test_another_field_of_a_jsonl(tmp_path):
    path = tmp_path / "bright_ending.jsonl"
    path.write_text(wen_line([[1.0]], text_noise_norm_masked=[[7.0], [9.0]]), encoding="utf-8")
    assert read_scores(path, field="text_noise_norm_masked")[""][0].score == 8
    with pytest.raises(
        ValueError,
        match=r"no field 'nonsense'.*'text_noise_norm', 'text_noise_norm_masked' \(--field\)",
    ):
        read_scores(path, field="nonsense")


@pytest.mark.parametrize(
    "saved",
    [
        torch.tensor([[1.0, 3.0], [2.0, 6.0]]),
        torch.tensor([[1.0, 3.0], [2.0, 6.0]], dtype=torch.bfloat16),
        [[1.0, 3.0], [2, 6]],
        [torch.tensor([1.0, 3.0]), torch.tensor([2.0, 6.0])],
    ],
)
def test_sail_means_over_the_first_steps(tmp_path, saved):
    torch.save(saved, tmp_path / "sd1_mem_gen4.pt")
    assert [one.score for one in read_scores(tmp_path / "sd1_mem_gen4.pt")[""]] == [2, 4]
    assert [one.score for one in read_scores(tmp_path / "sd1_mem_gen4.pt", steps=1)[""]] == [1, 2]


def test_sail_as_its_own_evaluation_reads_it(tmp_path):
    saved = torch.rand(50, 1, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    torch.save(saved, tmp_path / "x.pt")
    assert [one.score for one in read_scores(tmp_path / "x.pt")[""]] == saved.mean(
        dim=1
    ).float().tolist()


def test_a_dict_and_lists_of_numbers(tmp_path):
    torch.save({"mem": torch.tensor([3.0, float("nan")]), "nonmem": [1, 2.5]}, tmp_path / "both.pt")
    found = read_scores(tmp_path / "both.pt")
    assert [one.score for one in found["mem"]] == pytest.approx([3, np.nan], nan_ok=True) and [
        one.score for one in found["nonmem"]
    ] == [1, 2.5]


class Unsafe:
    """Would run code while being loaded."""

    def __reduce__(self):
        return (pytest.fail, ("code in a score file was run",))


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        (Unsafe(), "cannot be read as tensors alone"),
        ({"mem": Unsafe()}, "cannot be read as tensors alone"),
        ({"weight": torch.ones(2), "bias": torch.ones(2)}, "dict with 'weight', 'bias'"),
        ({}, "holds no scores"),
        ("text", "holds str"),
        (torch.tensor(1.0), "holds Tensor"),
        (torch.zeros(0, 3), "holds no scores"),
        (torch.zeros(3, 0), "0 steps"),
        (torch.ones(2, 2, 2), "is no number"),
        (torch.ones(2, dtype=torch.bool), "'True' is no number"),
        (torch.ones(2, dtype=torch.complex64), "no number"),
        ([[1.0, 2.0], [1.0]], "different numbers of steps"),
        ([1.0, [1.0]], "different numbers of steps"),
        (["a"], "is no number"),
    ],
)
def test_bad_tensors_are_refused(tmp_path, saved, told):
    torch.save(saved, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="x.pt") as error:
        read_scores(tmp_path / "x.pt")
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "holds no scores"),
        ("\n \n", "holds no scores"),
        ("{", "line 1: not JSON"),
        (wen_line([[1.0]]) + "[]\n", "line 2: no field 'text_noise_norm'"),
        ("[" * 100_000, "line 1: not JSON"),
        (wen_line([]), "no field"),
        (wen_line([1.0, 2.0]), "no field"),
        (wen_line([[]]), "0 steps"),
        (wen_line([[1.0, 2.0], [1.0]]), "different numbers of steps"),
        (wen_line([["1.0"]]), "'1.0' is no number"),
        (wen_line([[None]]), "is no number"),
        (wen_line([[True]]), "is no number"),
        (wen_line([[10**400]]), "too large"),
        ('{"text_noise_norm": {"a": 1}}', "no field"),
    ],
)
def test_bad_lines_are_refused(tmp_path, lines, told):
    (tmp_path / "x.jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match="x.jsonl") as error:
        read_scores(tmp_path / "x.jsonl")
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no column 'set'"),
        ("set,prompt_index,prompt,sample_index,score\n", "holds no scores"),
        ("set,prompt_index,score\nmem,0,1\n", "no column 'prompt'"),
        (
            "set,prompt_index,prompt,sample_index,score\nall,0,a,0,1\n",
            "line 2: the set 'all' is neither mem nor nonmem",
        ),
        ("set,prompt_index,prompt,sample_index,score\nmem,0,a,0,high\n", "must be numbers"),
        (
            "set,prompt_index,prompt,sample_index,score\nmem,0,a,0,1\nmem,0,a,0,2\n",
            "line 3: a second score",
        ),
        ("set,prompt_index,prompt,sample_index,score\nmem,0,a,0,1\nmem,0,b,1,2\n", "two texts"),
        ("set,prompt_index,prompt,sample_index,score\nmem,0,a,0\n", "not as many fields"),
        ("set,prompt_index,prompt,sample_index,score\nmem,0,a,0,1,2\n", "not as many fields"),
        ("set,prompt_index,prompt,sample_index,score\nmem,-1,a,0,1\n", "at least 0"),
        ('set,prompt_index,prompt,sample_index,score\nmem,0,"a,0,1\n', "line"),
        ("\0", "binary file"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, told):
    (tmp_path / "scores.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="scores.csv") as error:
        read_scores(tmp_path / "scores.csv")
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.csv", "cannot read"),
        ("missing.jsonl", "cannot read"),
        ("missing.pt", "cannot read"),
        ("scores.npy", "is no score file"),
        ("folder.pt", "no file"),
        ("latin.csv", "not UTF-8"),
        ("noise.pt", "cannot be read as tensors alone"),
        ("empty.pt", "cannot be read as tensors alone"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, told):
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "latin.csv").write_bytes("é".encode("latin-1"))
    (tmp_path / "noise.pt").write_bytes(bytes(range(256)))
    (tmp_path / "empty.pt").touch()
    with pytest.raises(ValueError, match=name) as error:
        read_scores(tmp_path / name)
    assert told in str(error.value)


def test_steps_need_a_file_with_steps(tmp_path):
    write_csv(tmp_path / "scores.csv", [row()])
    (tmp_path / "x.jsonl").write_text(wen_line([[1.0, 2.0]]), encoding="utf-8")
    torch.save([1.0, 2.0], tmp_path / "x.pt")
    for name, told in (
        ("scores.csv", "--steps is for files"),
        ("x.jsonl", "--steps 3 asks for more"),
        ("x.pt", "one value per prompt"),
    ):
        with pytest.raises(ValueError, match=told):
            read_scores(tmp_path / name, steps=3)
