"""The page in a browser: it sorts, filters, opens pictures, prints whole, fits a phone, and what
axe-core looks for is in order.
"""

import os
import re
from pathlib import Path

import pytest

from memorization_suite import ROOT
from memorization_suite.commands.report import report
from memorization_suite.runs import Key
from tests.browser import needs_browser
from tests.report.conftest import HOSTILE, give_scores, scored

pytestmark = needs_browser
AXE = Path(os.environ.get("AXE_CORE", ROOT / "build/browser/node_modules/axe-core/axe.min.js"))
VIOLATIONS = """axe.run(document).then((result) => ({
  found: result.violations.map((each) => `${each.id}: ${each.nodes[0].html}`),
  passed: result.passes.length,
}))"""
SHOWN = "[...document.querySelectorAll('.gallery tbody tr')].filter((row) => row.offsetParent)"
ROWS = f"{SHOWN}.map((row) => row.dataset.row).join()"
OPENED = "document.getElementById('viewer').open && document.getElementById('viewer-title')"


@pytest.fixture
def page(tmp_path, runs):
    """Row 0 and the wave's first image are copied without a mitigation; per_sample copies one."""
    scored(tmp_path, runs)
    values = ([0.9, 0.8, 0.1, 0.2, 0.95, 0.3, 0.1, 0.1], [0.1, 0.1, 0.76, 0.2, 0.2, 0.3, 0.1, 0.0])
    traces = [
        {**Key(0, 0).columns, "step": step, "timestep": 1, "magnitude": 2 + step}
        for step in range(5)
    ]
    for run, method, copies in zip(runs, ("no_mitigation", "per_sample"), values):
        give_scores(run, method, sscd=copies, subject_probability=[0.2 + 0.1 * copies[0]] * 8)
        run.add("trace", trace=traces)
        run.publish()
    options = {"gt_folder": tmp_path / "gt", "title": HOSTILE}
    return report([tmp_path / "runs"], tmp_path / "page.html", **options).path


def test_filters_and_the_address(browser, page):
    browser.open(page)
    assert browser.text("#count") == "4 of 4 shown" and browser.text("h1") == HOSTILE
    browser.choose("#find", "WAVE")
    assert browser.text("#count") == "1 of 4 shown" and browser.ask(ROWS) == "2"
    browser.choose("#find", "")
    browser.choose("#kind", "VM")
    browser.choose("#copies", "some")
    assert browser.ask(ROWS) == "0,1"
    browser.choose("#copies", "first")
    assert browser.ask(ROWS) == "0"
    words = "[...document.querySelectorAll('#copies option, #order option, #reset')]"
    assert browser.ask(f"{words}.map((each) => each.textContent)") == [
        "all",
        "prompts that no_mitigation copies",
        "at least one copy is shown",
        "no copy is shown",
        "as in the file",
        "most copied first",
        "reset filters",
    ]
    browser.point("#methods label:nth-of-type(2) input", click=True)
    browser.choose("#copies", "some")
    assert browser.ask(ROWS) == "0"
    assert (
        browser.ask("document.querySelector('.gallery thead').innerText.includes('per_sam')")
        is False
    )
    address = browser.ask("location.href")
    assert address.endswith("#kind=VM&copies=some&without=1")
    browser.open(address)
    assert browser.ask(ROWS) == "0" and browser.ask("document.getElementById('kind').value") == "VM"
    browser.point("#reset", click=True)
    assert browser.text("#count") == "4 of 4 shown" and "#" not in browser.ask("location.href")


def test_an_address_with_a_state_goes_to_the_pictures(browser, page):
    browser.resize(1280, 600)
    top = "Math.abs(document.getElementById('pictures').getBoundingClientRect().top)"
    browser.open(page)
    assert browser.ask("scrollY") == 0 and browser.ask(top) > 300
    browser.open(f"{page.resolve().as_uri()}#order=worst&view=single")
    browser.until(f"scrollY > 300 && {top} < 40")


def test_the_viewer_says_what_its_figures_mean(browser, tmp_path, runs):
    numbers = {"first_magnitude": 2.5, "reached": 1.0, "failed": 0.0, "moved": 3.5, "norm": 9}
    keys = [Key(prompt, sample) for prompt in range(4) for sample in range(2)]
    runs[1].add("all", images=[{**key.columns, "unet_evals": 5, **numbers} for key in keys])
    traces = [
        {**Key(0, 0).columns, "step": step, "timestep": 1, "magnitude": step} for step in range(3)
    ]
    runs[1].add("trace", trace=traces)
    runs[1].publish()
    page = report([runs[1].path], tmp_path / "page.html", gt_folder=tmp_path / "gt").path
    browser.open(f"{page.resolve().as_uri()}#image=0.0.0")
    facts = "[...document.querySelectorAll('#viewer-facts div')].map((e) => [e.innerText, e.title])"
    told = {text.replace("\n", " "): title for text, title in browser.ask(facts)}
    for text, words in {
        "magnitude before 2.5": "before the method changed anything",
        "target reached yes": "came down to its target",
        "search failed no": "not finite",
        "distance from the noise 3.5": "from the one that was drawn",
        "norm of the noise 9": "initial noise",
    }.items():
        assert words in told[text], told
    assert browser.text("#viewer-curve .title") == "magnitude"
    assert "with and without the caption" in browser.text("#viewer-curve title")
    folded = "document.querySelector('#viewer .settings')"
    assert browser.ask(f"{folded}.open") is False
    assert "model_id" in browser.text("#viewer-settings")
    assert "model_id" not in browser.text("#viewer-facts")


def test_the_worst_pictures(browser, page):
    browser.open(page)
    browser.choose("#view", "single")
    browser.choose("#order", "worst")
    captions = "[...document.querySelectorAll('#sheet figcaption')].map((e) => e.textContent)"
    first = browser.ask(captions)[:3]
    assert [re.match(r"(.+): (0\.\d+)", text).groups() for text in first] == [
        ("no_mitigation, image 1", "0.950"),
        ("no_mitigation, image 1", "0.900"),
        ("no_mitigation, image 2", "0.800"),
    ]
    # The wave's training image is no picture; that of row 0 stands beside both of its images.
    training = "[...document.querySelectorAll('#sheet figure')].slice(0, 3).map(%s)"
    sources = browser.ask(training % "(e) => e.querySelector('img.training')?.src ?? ''")
    own = browser.ask("document.querySelector('.gallery figure[data-at=\"t.0\"] img').src")
    assert sources == ["", own, own]
    assert browser.text("#sheet small.training") == "no training image"
    browser.choose("#copies", "some")
    assert browser.text("#count") == "4 of 16 pictures"
    browser.choose("#view", "")
    browser.choose("#copies", "")
    assert browser.ask(ROWS) == "2,0,1,3"
    browser.choose("#order", "")
    assert browser.ask(ROWS) == "0,1,2,3"


def test_a_picture_opens_and_the_arrows_go_on(browser, page):
    browser.open(page)
    browser.point('figure[data-at="0.0.0"] button', click=True)
    title = f"{OPENED}.textContent"
    assert browser.ask(title) == "no_mitigation g7_seed2, row 0, image 1"
    assert browser.text("#viewer-note") == "a copy of the training image: 0.900 · 0.290"
    facts = browser.text("#viewer-facts")
    assert "sscd0.900" in facts and "NFE100" in facts and "img_0000_00.png" in facts
    assert browser.ask("document.querySelectorAll('#viewer-training img').length") == 1
    assert browser.ask("document.querySelectorAll('#viewer-curve polyline').length") == 1
    browser.key("ArrowDown")
    assert browser.ask(title) == "per_sample g7_seed2, row 0, image 1"
    assert browser.ask("document.querySelectorAll('#viewer-curve polyline').length") == 2
    browser.key("ArrowRight")
    assert browser.ask(title) == "per_sample g7_seed2, row 0, image 2"
    for _ in range(2):
        browser.key("ArrowLeft")
    assert browser.ask(title) == "no_mitigation g7_seed2, row 0, image 2"
    address = browser.ask("location.href")
    browser.key("Escape")
    browser.until("!document.getElementById('viewer').open")
    browser.until("document.activeElement.closest('figure')?.dataset.at === '0.0.0'")
    browser.open(address)
    assert browser.ask(title) == "no_mitigation g7_seed2, row 0, image 2"


def test_magnitudes_that_are_no_numbers_have_no_point(browser, tmp_path, runs):
    magnitudes = {0: (2, "nan", "", "inf", 6), 1: ("nan", "nan")}
    traces = [
        {**Key(0, sample).columns, "step": step, "timestep": 1, "magnitude": value}
        for sample, values in magnitudes.items()
        for step, value in enumerate(values)
    ]
    runs[0].add("trace", trace=traces)
    runs[0].publish()
    page = report([runs[0].path], tmp_path / "page.html", gt_folder=tmp_path / "gt").path
    browser.open(f"{page.resolve().as_uri()}#image=0.0.0")
    lines = "document.querySelectorAll('#viewer-curve polyline')"
    curves = f"[...{lines}].map((line) => line.getAttribute('points'))"
    (curve,) = browser.ask(curves)
    assert [place.partition(",")[0] for place in curve.split()] == ["58.0", "352.0"]
    assert browser.text("#viewer-curve .tick:last-of-type") == "step 4"
    browser.key("ArrowRight")
    assert browser.ask(curves) == []


def test_an_address_of_no_picture_opens_nothing(browser, page):
    browser.open(f"{page.resolve().as_uri()}#image=constructor")
    assert browser.text("#count") == "4 of 4 shown"
    assert not browser.ask("document.getElementById('viewer').open")


def test_the_keyboard_alone(browser, page):
    browser.open(page)
    browser.ask("document.querySelector('figure[data-at=\"1.1.0\"] button').focus()")
    browser.key("Enter")
    assert browser.ask(f"{OPENED}.textContent") == "per_sample g7_seed2, row 1, image 1"
    assert browser.text("#viewer-caption") == HOSTILE
    assert browser.ask("document.getElementById('viewer').contains(document.activeElement)")
    browser.key("Escape")
    browser.until("location.hash === ''")
    assert browser.ask("document.activeElement.closest('figure').dataset.at") == "1.1.0"
    browser.ask("document.querySelector('.point').focus()")
    assert browser.text("#tip").startswith("no_mitigation g7_seed2\nsscd 0.431 [")
    assert browser.ask("!document.getElementById('tip').hidden")
    browser.key("Escape")
    assert browser.ask("document.getElementById('tip').hidden")
    heading = "document.querySelector('.numbers th:nth-child(2) button')"
    browser.ask(f"{heading}.focus()")
    browser.key(" ")
    assert browser.ask(f"{heading}.closest('th').getAttribute('aria-sort')") == "ascending"


def test_tables_sort(browser, page):
    browser.open(page)
    names = "[...document.querySelectorAll('.heat tbody th')].map((e) => e.firstChild.textContent)"
    browser.point(".heat thead tr:nth-child(2) th button", click=True)
    assert browser.ask(names) == ["per_sample", "no_mitigation"]
    browser.point(".heat thead tr:nth-child(2) th button", click=True)
    assert browser.ask(names) == ["no_mitigation", "per_sample"]
    browser.point(".heat thead th[rowspan] button", click=True)
    browser.point(".heat thead th[rowspan] button", click=True)
    assert browser.ask(names) == ["per_sample", "no_mitigation"]


def test_hovering_tells_intervals_and_settings(browser, page):
    browser.open(page)
    browser.point(".heat tbody td")
    assert re.fullmatch(
        r"no_mitigation g7_seed2\n38 \[\d+, \d+\]\n8 of 8 images", browser.text("#tip")
    )
    browser.point(".chart .point circle:last-of-type")
    assert "subject_probability 0.290" in browser.text("#tip")
    browser.point("h1")
    assert browser.ask("document.getElementById('tip').hidden")


def test_both_colors_and_a_phone(browser, page):
    browser.open(page)
    ink = "getComputedStyle(document.body).backgroundColor"
    browser.colors("light")
    light = browser.ask(ink)
    browser.colors("dark")
    assert browser.ask(ink) != light
    browser.point("#colors", click=True)
    assert browser.text("#colors") == "Colors: light" and browser.ask(ink) == light
    browser.resize(390, 800, phone=True)
    assert browser.ask("document.documentElement.scrollWidth") <= 390
    browser.point('figure[data-at="0.0.0"] button', click=True)
    assert browser.ask("document.getElementById('viewer').getBoundingClientRect().width") <= 390


def test_a_phone_shows_every_point_and_breaks_no_name(browser, page):
    browser.resize(390, 800, phone=True)
    browser.open(page)
    every = "[...document.querySelectorAll('#trade-off .point')]"
    points = f"{every}.filter((each) => each.checkVisibility())"
    boxes = f"{points}.map((e) => e.querySelector('circle, polyline').getBoundingClientRect())"
    found = browser.ask(f"{boxes}.map((box) => [box.left, box.right])")
    assert len(found) == 2 and all(left >= 0 and right <= 390 for left, right in found)
    # A line begins where a word may break: after "_", "/" or a space.
    starts = """(selector) => [...document.querySelectorAll(selector)].flatMap((element) => {
      const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
      let before = null, last = "", found = [];
      for (let node = walker.nextNode(); node; node = walker.nextNode())
        for (let i = 0; i < node.length; i++) {
          const range = document.createRange();
          range.setStart(node, i);
          range.setEnd(node, i + 1);
          const top = range.getBoundingClientRect().top;
          const isLater = before !== null && top > before + 3;
          if (isLater && !/[_/ ]/.test(last)) found.push(element.textContent);
          [before, last] = [top, node.data[i]];
        }
      return found;
    })"""
    names = ".gallery thead th > small, .numbers td:first-child > small"
    assert browser.ask(f"({starts})('{names}')") == []
    assert browser.ask("document.querySelectorAll('.gallery thead wbr').length") > 0


def test_all_of_it_is_printed(browser, page):
    browser.open(page)
    whole = browser.pdf()
    browser.choose("#kind", "VM")
    browser.ask(
        "window.printed = 0; addEventListener('beforeprint', () => { window.printed = 1; })"
    )
    part = browser.pdf()
    assert browser.ask("window.printed") == 1
    pages = len(re.findall(rb"/Type\s*/Page\b", whole))
    assert pages >= 2 and len(part) < len(whole)


def test_without_scripts_all_is_there(browser, page):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(page)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.ask(ROWS) == "0,1,2,3"
    assert not browser.ask("document.getElementById('find').offsetParent")
    assert browser.ask("getComputedStyle(document.querySelector('.heat small')).display") == "block"


def test_nothing_is_asked_of_the_network(browser, page):
    browser.open(page)
    browser.point('figure[data-at="0.0.0"] button', click=True)
    beyond = [url for url in browser.asked if not url.startswith(("data:", "about:"))]
    assert {url.partition("#")[0] for url in beyond} == {page.resolve().as_uri()}


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not here, see .ci/run")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, page, scheme):
    browser.open(page)
    browser.colors(scheme)
    browser.ask(AXE.read_text() + "; 0")
    shown = {
        "": "document.getElementById('count').textContent === '4 of 4 shown'",
        "image=0.0.0": "document.getElementById('viewer').open",
        "view=single&order=worst": "!document.getElementById('sheet').hidden",
    }
    for opened, is_shown in shown.items():
        browser.ask(f"location.hash = {opened!r}")
        browser.until(is_shown)
        result = browser.ask(VIOLATIONS)
        assert result["found"] == [] and result["passed"] > 20
