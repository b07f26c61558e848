"""A page of more pictures than a file holds: they lie beside it and are loaded when seen."""

import csv
import re
import sys
from urllib.parse import unquote

import pytest

from memorization_suite.commands.report import pictures, report
from memorization_suite.make_report import main
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.files import sha256_of
from tests.browser import needs_browser
from tests.metrics.conftest import picture

PROMPTS = 70
SHOWN = "document.querySelectorAll('.gallery tbody tr.on').length"


@pytest.fixture
def limit(monkeypatch):
    """Three pictures are many here."""
    monkeypatch.setattr("memorization_suite.commands.report.page.MOST", 3)


def page_of(tmp_path, runs, *argv):
    argv = [str(tmp_path / "runs"), "--gt_folder", str(tmp_path / "gt"), *argv]
    assert main([*argv, "--out", str(tmp_path / "page.html"), "--quiet"]) == 0
    return (tmp_path / "page.html").read_text()


def test_pictures_lie_beside_the_page(tmp_path, runs, limit, capsys):
    text = page_of(tmp_path, runs)
    out = capsys.readouterr().out
    folder = tmp_path / "page_files"
    assert f"; its pictures are in {folder}, 0." in out and "data:image" not in text
    files = sorted(path.relative_to(tmp_path).as_posix() for path in folder.rglob("*.png"))
    assert len(files) == 16 + 2 and files[0] == "page_files/run0/img_0000_00.png"
    assert all(text.count(f'src="{file}"') == 1 for file in files)
    assert not list(tmp_path.glob(".*.part"))


def test_any_name_of_a_page_is_an_address(tmp_path):
    made = pictures.PictureFiles(tmp_path / "50% a:b #1?.html")
    picture(1, (8, 8)).save(tmp_path / "own.png")
    url = made.add(tmp_path / "own.png", "run0/img_0000_00").url
    made.close()
    assert url == "50%25%20a%3Ab%20%231%3F_files/run0/img_0000_00.png"
    assert (tmp_path / unquote(url)).is_file()


def test_one_file_where_it_is_asked_for(tmp_path, runs, limit):
    text = page_of(tmp_path, runs, "--self_contained")
    assert text.count('src="data:image') == 18 and not (tmp_path / "page_files").exists()


def test_the_next_page_takes_the_place_of_the_last(tmp_path, runs, limit):
    page_of(tmp_path, runs)
    page_of(tmp_path, runs, "--max_runs", "1")
    assert sorted(path.name for path in (tmp_path / "page_files").iterdir()) == [
        "page.json",
        "run0",
        "training",
    ]
    page_of(tmp_path, runs, "--self_contained")
    assert not (tmp_path / "page_files").exists()


def test_a_folder_of_somebody_else_stays(tmp_path, runs, limit, capsys):
    (tmp_path / "page_files").mkdir()
    (tmp_path / "page_files" / "thesis.txt").write_text("mine")
    argv = [str(tmp_path / "runs"), "--out", str(tmp_path / "page.html")]
    assert main(argv) == 2 and "is no page's" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
    assert [path.name for path in (tmp_path / "page_files").iterdir()] == ["thesis.txt"]


def test_large_pictures_have_a_small_and_a_large_file(tmp_path):
    made = pictures.PictureFiles(tmp_path / "page.html")
    picture(1, (900, 600)).save(tmp_path / "large.png")
    shown = made.add(tmp_path / "large.png", "run0/img_0000_00")
    made.close()
    sizes = {}
    for name in (shown.url, shown.large):
        with pictures.Image.open(tmp_path / name) as image:
            sizes[name] = image.size
    assert sizes == {
        "page_files/run0/img_0000_00_small.jpeg": (192, 128),
        "page_files/run0/img_0000_00.jpeg": (768, 512),
    }
    assert made.size == sum((tmp_path / name).stat().st_size for name in sizes)


def test_fewer_pictures_in_a_page_are_larger(tmp_path):
    picture(1, (900, 600)).save(tmp_path / "large.png")
    sizes = {}
    for total in (50, 400, 1900, 9000):
        url = pictures.Pictures(total).add(tmp_path / "large.png", "a").url
        sizes[total] = len(url)
    assert sizes[50] > sizes[400] > sizes[1900] == sizes[9000]


def test_prompts_that_nobody_limits(tmp_path, runs, monkeypatch):
    """Two runs of two images a prompt."""
    gather = sys.modules["memorization_suite.commands.report.gather"]
    monkeypatch.setattr(gather, "MOST_PICTURES", 9)
    assert "2 of 4 prompts, the first 2 images" in page_of(tmp_path, runs)
    assert "4 of 4 prompts, the first 1 image " in page_of(tmp_path, runs, "--samples", "1")
    assert "4 of 4 prompts" in page_of(tmp_path, runs, "--max_prompts", "4")


@pytest.fixture
def many(tmp_path):
    """A run of many prompts, an image each."""
    file = tmp_path / "many.csv"
    with open(file, "w", newline="") as table:
        writer = csv.writer(table, delimiter=";")
        writer.writerow(["", "Caption"])
        writer.writerows((i, f"caption number {i}") for i in range(PROMPTS))
    folder = RunFolder(tmp_path / "runs" / "no_mitigation" / "g7_seed2")
    identity = {"prompts_sha256": sha256_of(file), "n_samples_per_prompt": 1, "seed": 2}
    identity["method"] = "no_mitigation"
    folder.prepare(identity)
    folder.start(identity, config={"prompts": str(file), "model_id": "somewhere/else"})
    keys = [Key(i, 0) for i in range(PROMPTS)]
    for key in keys:
        folder.save_image(key, picture(key.prompt, (8, 8)))
    folder.add("all", images=[{**key.columns, "prompt": "", "finite": 1} for key in keys])
    folder.finish(images=PROMPTS, of=PROMPTS)
    return folder


@needs_browser
def test_a_part_is_shown_at_a_time_and_all_is_printed(tmp_path, many, limit, browser):
    page = report([many.path], tmp_path / "page.html").path
    browser.resize(1280, 700)
    browser.open(page)
    assert browser.ask(SHOWN) == 30 and browser.text("#count") == "70 of 70 shown"
    browser.until("[...document.images].some((image) => image.complete && image.naturalWidth)")
    loaded = [url for url in browser.asked if "page_files" in url]
    assert 0 < len(loaded) < PROMPTS
    browser.choose("#find", "number 6")
    assert browser.text("#count") == "11 of 70 shown" and browser.ask(SHOWN) == 11
    part = browser.pdf()
    assert len(re.findall(rb"/Subtype\s*/Image", part)) == 11
    browser.choose("#find", "")
    browser.ask(f"addEventListener('beforeprint', () => {{ window.printed = {SHOWN}; }})")
    whole = browser.pdf()
    assert browser.ask("window.printed") == PROMPTS
    assert len(re.findall(rb"/Subtype\s*/Image", whole)) == PROMPTS
    assert browser.text("#count") == "70 of 70 shown"
    browser.point("#more", click=True)
    browser.until(f"{SHOWN} > 30")
