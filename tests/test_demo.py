"""examples/demo.py: which captions it shows, what it says of them, and quick beside full."""

import csv
import re
from collections import Counter

import pytest

from memorization_suite import tiny
from memorization_suite.examples import demo
from memorization_suite.metrics.copy_score import THRESHOLD
from memorization_suite.metrics.embedded import read_captions
from memorization_suite.metrics.intervals import is_copy

shipped = pytest.mark.skipif(
    not tiny.MODELS["tiny"].is_dir(), reason="the weights of tiny are not in this checkout"
)


def kinds(captions) -> Counter:
    return Counter((caption.kind, caption.group) for caption in captions)


def test_a_part_has_every_kind_and_group_in_proportion():
    captions = read_captions(tiny.prompts("tiny"))
    chosen = demo.some_of_each(captions)
    assert (len(chosen), len(captions)) == (20, 64)
    found = kinds(chosen)
    assert found["VM", "A"] == 3 and found["VM", "B"] == 9
    assert set(found) == set(kinds(captions))
    assert [caption.row for caption in chosen] == sorted({caption.row for caption in chosen})
    assert set(kinds(demo.some_of_each(read_captions(tiny.prompts("tiny-v"))))) == set(
        kinds(read_captions(tiny.prompts("tiny-v")))
    )


def test_its_prompt_file_keeps_the_columns(tmp_path):
    whole = tiny.prompts("tiny")
    file = demo.chosen_file(demo.Demo(out=tmp_path))
    assert file == tmp_path / "tiny_memorized_test_20of64.csv"
    with open(whole, encoding="utf-8") as one, open(file, encoding="utf-8") as other:
        rows = list(csv.DictReader(one, delimiter=";"))
        part = list(csv.DictReader(other, delimiter=";"))
    assert len(part) == 20 and all(row in rows for row in part)
    assert demo.chosen_file(demo.Demo(out=tmp_path, full=True)) == whole
    assert demo.chosen_file(demo.Demo(out=tmp_path, prompts=3)) == whole


def test_what_is_said_of_the_captions():
    captions = read_captions(tiny.prompts("tiny"))
    settings = demo.Demo()
    some = demo.told(captions[:20], settings)
    assert some == "20 of the 64 test captions; make demo FULL=1 makes all"
    assert demo.told(captions, settings) == "all 64 test captions"


def check_page(page: str, printed: str) -> None:
    """It shows each image with its score, and says what it is."""
    scores = [
        float(text.replace("\N{MINUS SIGN}", "-"))
        for text in re.findall(r"<figcaption>(\N{MINUS SIGN}?\d\.\d{3})", page)
    ]
    assert len(scores) == 6
    assert page.count("<figure") == 2 * (1 + 3)
    copies = page.count('class="copy"')
    assert copies == sum(is_copy(score, THRESHOLD) for score in scores)
    assert page.count('class="free"') == 6 - copies
    assert "not Stable Diffusion" in printed and "They are not Stable Diffusion's" in page
    assert all(title in printed for title in demo.METHODS)
    assert all(name in page for name in ("no_mitigation", "batch_wise", "per_sample"))


@shipped
def test_quick_and_full_share_a_folder(tmp_path, capsys, monkeypatch):
    """Each has its own runs, and goes on with them; the page is of the last."""
    monkeypatch.setattr(demo, "some_of_each", lambda captions: captions[38:40])
    quick = ["--samples", "1", "--out", str(tmp_path)]
    assert demo.main(quick) == 0
    said = capsys.readouterr()
    assert "\n2 of the 64 test captions; make demo FULL=1 makes all, 1 images each" in said.out
    page = (tmp_path / "report.html").read_text()
    check_page(page, said.out)
    assert (tmp_path / "picture.png").stat().st_size > 1000
    assert "2 of the 64 test captions; make demo FULL=1 makes all" in page
    assert said.err.splitlines()[-1].startswith("next: python -m webbrowser file://")
    runs = {path.parent for path in tmp_path.rglob("manifest.json")}
    assert {run.parents[1].name for run in runs} == {"tiny_memorized_test_2of64_s1_b8"}
    before = {file: file.read_bytes() for run in runs for file in run.glob("*.png")}

    assert demo.main([*quick, "--prompts", "1"]) == 0
    assert [*tmp_path.glob("tiny_memorized_test_s1_b8/no_mitigation/g*_seed2")]
    assert "1 of the 64 test captions" in (tmp_path / "report.html").read_text()
    capsys.readouterr()

    assert demo.main(quick) == 0
    assert capsys.readouterr().out.count("(nothing to make)") == 3
    assert all(file.read_bytes() == content for file, content in before.items())
    assert (tmp_path / "report.html").read_text() == page


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--samples", "0"], "--samples 0 is out of range"),
        (["--prompts", "0"], "--prompts 0 is out of range"),
        (["--prompts", "65"], "--prompts 65: there are 64"),
        (["--model_id", "sd"], "invalid choice: 'sd'"),
        (["--ful"], "did you mean --full?"),
    ],
)
def test_wrong_arguments_are_a_line(argv, told, tmp_path, capsys):
    try:
        code = demo.main([*argv, "--out", str(tmp_path)])
    except SystemExit as leave:
        code = leave.code
    said = capsys.readouterr()
    assert code == 2 and not said.out and said.err.count("\n") == 1 and told in said.err
