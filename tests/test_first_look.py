"""examples/first_look.py: short, quick, one picture, the images of generate_images.py."""

import re
from pathlib import Path

import pytest
from PIL import Image

from memorization_suite import generate_images, tiny
from memorization_suite.examples import first_look
from memorization_suite.metrics.embedded import read_captions
from memorization_suite.pipelines.models import load_preset

EXAMPLE = Path(first_look.__file__)
shipped = pytest.mark.skipif(
    not tiny.MODELS["tiny"].is_dir(), reason="the weights of tiny are not in this checkout"
)


@pytest.fixture
def few(monkeypatch):
    """10 optimization steps at most in the place of 100."""
    _, preset = load_preset("auto", "tiny")
    preset["per_sample"]["optim_iters"] = 10
    monkeypatch.setattr(first_look.models, "load_preset", lambda *args: ("", preset))


def test_fits_on_a_page():
    assert len(EXAMPLE.read_text().splitlines()) < 100


@shipped
def test_numbers_and_a_picture(tmp_path, monkeypatch, capsys):
    """The typical caption: copies without, none with adjusted noise; what to do next."""
    monkeypatch.chdir(tmp_path)
    assert first_look.main(["--images", "2"]) == 0
    said = capsys.readouterr()
    caption, plain, adjusted, where = said.out.splitlines()
    assert caption == "caption: The Yukon Guide to Your Restless Avocado"
    facts = r": magnitudes (\d\.\d\d) (\d\.\d\d), copies (\d) of 2, NFE (\d+) an image"
    before = re.fullmatch("no mitigation" + facts, plain)
    after = re.fullmatch("adjusted noise" + facts, adjusted)
    assert before[3] == "2" and after[3] == "0"
    assert float(before[1]) > 1.5 and float(after[1]) <= 0.47
    assert before[4] == "100" and 100 < int(after[4]) < 150
    assert where.startswith("first_look.png") and "not Stable Diffusion" in where
    assert said.err.endswith("next: make demo\n")
    picture = Image.open("first_look.png")
    assert picture.width > 3 * 224 and picture.height > 2 * 224


@shipped
def test_the_images_are_those_of_a_run(tmp_path, monkeypatch, few):
    """Up to rounding, pixel by pixel."""
    monkeypatch.chdir(tmp_path)
    drawn = []
    monkeypatch.setattr(
        first_look, "draw", lambda *args, **more: drawn.append(args) or Image.new("L", (1, 1))
    )
    assert first_look.main(["--images", "1"]) == 0
    argv = ["--model_id", "tiny", "--start", "33", "--end", "34", "-n", "1", "--quiet"]
    assert generate_images.main(argv) == 0
    (run,) = Path("generated_images").glob("*/*")
    _, rows = drawn[0]
    _, (_, tile) = rows[0]
    expected = Image.open(run / "img_0033_00.png")
    assert list(tile.image.getdata()) == list(expected.getdata())


@shipped
def test_a_caption_of_ones_own_has_no_copies(tmp_path, monkeypatch, capsys, few):
    monkeypatch.chdir(tmp_path)
    assert first_look.main(["a red lantern in the rain", "--images", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("caption: a red lantern in the rain\n") and "copies" not in out
    assert Image.open("first_look.png").width < 2 * 224 + 40


def test_a_memorized_caption_may_be_typed():
    captions = read_captions(tiny.prompts("tiny"))
    assert first_look.find(captions[45].text, None) == captions[45]
    assert first_look.find("", 45) == captions[45]
    assert first_look.find("", None) == captions[first_look.TYPICAL]
    assert captions[first_look.TYPICAL].group == "B"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--images", "0"], "--images 0 is out of range"),
        (["--images", "9"], "--images 9 is out of range"),
        (["--images", "nan"], "invalid int value: 'nan'"),
        (["--row", "64"], "--row 0 to 63"),
        (["--row", "-1"], "--row -1 is out of range"),
        (["a caption", "--row", "1"], "give a caption, or --row"),
        (["--imagse", "2"], "did you mean --images?"),
    ],
)
def test_wrong_arguments_are_a_line(argv, told, capsys, monkeypatch):
    monkeypatch.setattr(first_look, "first_look", lambda *args: pytest.fail("it began"))
    try:
        code = first_look.main(argv)
    except SystemExit as leave:
        code = leave.code
    said = capsys.readouterr()
    assert code == 2 and not said.out and said.err.count("\n") == 1 and told in said.err
