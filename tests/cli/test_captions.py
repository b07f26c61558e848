"""Captions that are longer than the text encoder reads: said once, and noted in the tables."""

import json
import re

import pytest

import memorization_suite.pipelines.loading
from memorization_suite import detect_memorization
from memorization_suite.commands.captions import READER, cut_of_sets
from memorization_suite.prompts.cut import Cut, cut_line
from memorization_suite.prompts.files import Prompt
from memorization_suite.sampling import Denoiser
from tests.cli.helpers import rows

# Of the test model "red" and "blue" are one token each.
FULL = " ".join(["red"] * 75)
CAPTIONS = ["a green ring", FULL, f"{FULL} Blue blue", FULL]


@pytest.fixture(scope="module")
def long_file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("long") / "long.csv"
    lines = [f'"{caption}","{FULL} blue"' for caption in CAPTIONS]
    path.write_text("Caption,caption1\n" + "".join(f"{line}\n" for line in lines))
    return str(path)


@pytest.fixture
def made(generate, long_file, tmp_path, capsys):
    """made(*flags): (rows of images.csv, what was said of captions)."""

    def run(*flags):
        few = ("--prompts", long_file, "--n_samples_per_prompt", "1", "--num_inference_steps", "2")
        folder = generate(tmp_path, *few, *flags)
        said = [line for line in capsys.readouterr().err.splitlines() if READER in line]
        return rows(folder), said

    return run


def test_cut_captions_are_named_once_and_counted(made):
    table, said = made()
    assert said == [
        "1 of 4 captions are longer than the 75 tokens that the text encoder reads; the rest is "
        "cut: row 2 (77 tokens, without 'Blue blue')"
    ]
    assert [row["cut_tokens"] for row in table] == ["0", "0", "2", "0"]
    assert not any("tokens_lost" in row for row in table)


def test_only_captions_that_are_asked_for(made):
    table, said = made("--end", "2")
    assert len(table) == 2 and not said


@pytest.mark.parametrize("augment", ["rand_word_repeat", "rand_numb_add", "rand_word_add"])
def test_words_that_a_method_adds_and_that_are_cut_off(made, augment):
    table, (_, said) = made("--method", "random_tokens", "--augment", augment)
    lost = [int(float(row["tokens_lost"])) for row in table]
    assert lost[0] == 0 and min(lost[1:]) >= 4
    assert [row["cut_tokens"] for row in table] == ["0", "0", "2", "0"]
    assert said == (
        f"random_tokens/g7_aug{augment}_rep4_seed2: in 3 of 4 images the caption with "
        f"what was added is longer than the text encoder reads, and loses {min(lost[1:])} to "
        f"{max(lost)} tokens at its end (tokens_lost in images.csv): "
        "img_0001_00, img_0002_00, img_0003_00"
    )


def test_a_method_for_which_a_caption_leaves_no_room(made):
    table, (_, said) = made("--method", "clip_padding")
    assert [int(float(row["padding_tokens"])) for row in table][1:] == [0, 0, 0]
    assert said == (
        "clip_padding/g7_padexclamation_end1_share0_seed2: in 3 of 4 images the caption fills the "
        "text encoder, so there is no padding to change (padding_tokens in images.csv): "
        "img_0001_00, img_0002_00, img_0003_00"
    )


def test_several_methods_at_once(made):
    flags = ("--method", "random_tokens+clip_padding", "--augment", "rand_word_repeat")
    table, said = made(*flags)
    assert len(said) == 3 and all(
        re.match(r"random_tokens\+clip_padding/g7\S+: in 3 of 4", line) for line in said[1:]
    )


def test_other_captions_are_named_where_a_method_reads_them(made):
    _, said = made("--method", "prss")
    assert len(said) == 2 and said[1].startswith(
        "4 of 4 alternative captions are longer than the 75 tokens that the text encoder reads; "
        "the rest is cut: alternative 1 of row 0 (76 tokens, without 'blue')"
    )


def test_a_detection_says_it_of_each_set_and_notes_it(
    base, long_file, prompt_file, loaded, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)
    flags = [*base, "--prompts", prompt_file, "--nonmem_prompts", long_file]
    assert detect_memorization.main([*flags, "--output_path", str(tmp_path)]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if READER in line]
    assert line.startswith("1 of 4 nonmem captions are longer")
    manifest = json.loads((tmp_path / "noise_norm" / "manifest.json").read_text())
    assert manifest["cut_tokens"] == {"nonmem": {"2": 2}}


def test_a_study_says_it(base, long_file, loaded, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)
    place = base.index("-b")
    flags = base[:place] + base[place + 2 :]
    flags += ["--n_samples_per_prompt", "1", "--prompts", long_file, "--start", "2", "--end", "3"]
    argv = ["tokens", *flags, "--num_steps", "1", "--output_path", str(tmp_path)]
    assert detect_memorization.main(argv) == 0
    assert re.search(r"^1 of 1 caption is longer .* row 2 ", capsys.readouterr().err, re.M)
    manifest = json.loads((tmp_path / "tokens" / "manifest.json").read_text())
    assert manifest["cut_tokens"] == {"prompts": {"2": 2}}


def test_a_model_whose_tokens_are_not_known():
    assert cut_of_sets(Denoiser(), {"mem": [Prompt(0, "a " * 1000)]}) == {}


def test_many_and_long_ones_are_shortened():
    cut = [Cut(f"row {i}", 90, 15, f"{'a word ' * 20}and the end") for i in range(7)]
    line = cut_line(cut, 500, READER)
    assert line.startswith("7 of 500 captions") and line.endswith("and the end') and 2 more")
    assert len(line) < 700 and line.count("row ") == 5
