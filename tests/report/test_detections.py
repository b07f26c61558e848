"""Detectors on the page: figures by kind, curves, errors that all make, masks, and their origin."""

import json

import numpy as np
import pytest

from memorization_suite.commands.evaluate import evaluate
from memorization_suite.commands.report import report
from memorization_suite.commands.report.detection_charts import histogram, roc_chart
from memorization_suite.commands.report.detection_tables import best_of
from memorization_suite.commands.report.detections import (
    best_threshold,
    mistakes,
    read_detections,
)
from memorization_suite.commands.sweeps.record import Member, Record
from memorization_suite.make_report import main
from memorization_suite.runs.files import write_csv
from tests.browser import needs_browser
from tests.metrics.conftest import picture
from tests.report.conftest import HOSTILE, scored

MEMORIZED = [("a red square", "VM"), (HOSTILE, "VM"), ("the great wave", "TM"), ("a ring", "TM")]
ORDINARY = ["an ordinary day", "a plain wall", "two people", "a dog"]


def detection(folder, detector, memorized, ordinary, *, masks=(), prompts=""):
    """A finished detection of two images a prompt, whose scores are those of the prompts."""
    (folder / "overlays").mkdir(parents=True)
    sets = {"mem": ([caption for caption, _ in MEMORIZED], memorized)}
    if ordinary:
        sets["nonmem"] = (ORDINARY, ordinary)
    scores, costs = [], []
    for name, (captions, values) in sets.items():
        for i, (caption, value) in enumerate(zip(captions, values)):
            row = {"set": name, "prompt_index": i, "prompt": caption}
            scores += [{**row, "sample_index": k, "score": value} for k in range(2)]
            costs.append({"set": name, "prompt_index": i, "unet_rows": 4})
    write_csv(folder / "scores.csv", scores)
    write_csv(folder / "cost.csv", costs)
    for stem in masks:
        picture(1, (8, 8)).save(folder / "overlays" / f"{stem}.png")
    identity = {"detector": detector, "model_id": "sha256 0123"}
    environment = {"python": "3.11.7", "packages": {"torch": "2.0"}, "commit": "abc123"}
    manifest = {"schema": 1, "identity": identity, "environments": [environment]}
    manifest |= {"started": "2026-01-02T03:04:05+00:00", "finished": "2026-01-02T03:05:05+00:00"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    config = {"command": f"python detect_memorization.py --detector={detector}"}
    config |= {"model_id": "somewhere/else", "prompts": str(prompts), "n_samples_per_prompt": 2}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def of_other_prompts(folder):
    """A detection whose first captions are others."""
    detection(folder, folder.name, [4, 3, 2, 1], [1, 2, 3, 4])
    scores = folder / "scores.csv"
    scores.write_text(scores.read_text().replace("a red square", "a blue square"))
    return read_detections([folder])[0]


@pytest.fixture
def detections(tmp_path):
    """Two detectors; both take the ring for ordinary and the dog for memorized."""
    prompts = tmp_path / "memorized.csv"
    write_csv(prompts, [{"Caption": caption, "type": kind} for caption, kind in MEMORIZED])
    folder = tmp_path / "detections"
    masks = ["mem_0000_00", "mem_0002_01", "nonmem_0003_00"]
    detection(folder / "good", "good", [9, 8, 7, 2], [1, 3, 2, 8.5], prompts=prompts, masks=masks)
    detection(folder / "fair", "fair", [5, 4, 6, 1], [2, 1, 5.5, 7], prompts=prompts)
    return folder


def test_figures_are_those_of_evaluate(detections):
    good, fair = sorted(
        read_detections([detections / "good", detections / "fair"]),
        key=lambda one: one.name != "good",
    )
    options = {"by": "type", "prompts": detections.parent / "memorized.csv"}
    rows = evaluate(files=(detections / "good",), **options).rows
    assert [row["type"] for row in good.rows] == ["", "TM", "VM"] and good.rows == rows
    assert good.nfe == 2.0 and fair.has_both


def test_the_threshold_has_the_best_accuracy(detections):
    for each in read_detections([detections / "good", detections / "fair"]):
        threshold = best_threshold(each.scored)
        hits = sum(score.score >= threshold for score in each.scored.memorized)
        alarms = sum(score.score >= threshold for score in each.scored.ordinary)
        accuracy = 1 - (alarms / 4 + 1 - hits / 4) / 2
        assert accuracy == pytest.approx(each.rows[0]["accuracy"])


def test_prompts_that_all_get_wrong(detections):
    found = mistakes(read_detections([detections / "good", detections / "fair"]))
    assert [(each.kind, each.type, each.caption) for each in found] == [
        ("memorized", "TM", "a ring"),
        ("ordinary", "", "a dog"),
    ]
    assert found[0].scores == (2, 1)


def test_scores_that_are_no_numbers_are_not_wrong(tmp_path):
    nan = float("nan")
    folder = detection(tmp_path / "one", "one", [nan, 8, 7, 2], [1, 3, nan, 2.5])
    found = mistakes(read_detections([folder]))
    assert [each.caption for each in found] == ["a ring"]


def test_best_is_one_of_several_that_compare(tmp_path):
    values = {"a": [9, 8, 7, 6], "b": [9, 8, 7, 6], "c": [1, 9, 8, 7]}
    for name, memorized in values.items():
        detection(tmp_path / name, name, memorized, [1, 2, 3, 4])
    a, b, c = read_detections([tmp_path / name for name in values])
    assert best_of([a, c])["name"] == "a"
    assert best_of([a]) is None and best_of([a, b, c]) is None
    assert best_of([a, of_other_prompts(tmp_path / "d")]) is None


def test_charts(detections):
    every = read_detections([detections / "good", detections / "fair"])
    chart = roc_chart(every)
    assert [line.name.split()[0] for line in chart.lines] == ["good", "fair", "chance"]
    assert chart.lines[0].band and "AUC" in chart.lines[0].tip[1]
    bars = histogram(every[0]).bars
    shares = [float(tip.split()[1]) for *_, color, tip in bars if color == 1]
    assert sum(shares) == pytest.approx(100)


def test_the_page_of_detectors_alone(tmp_path, detections, capsys):
    out = tmp_path / "page.html"
    assert main([str(detections), "--out", str(out), "--title", HOSTILE]) == 0
    assert "page.html: 2 detectors, 0." in capsys.readouterr().out
    page = out.read_text()
    assert "onerror=alert(1)>" not in page and page.count("<script") == 2
    assert "<b>good</b> tells memorized from ordinary prompts best" in page
    for words in ("template (TM)", "every detector gets wrong", "--detector=good", "torch 2.0"):
        assert words in page
    assert "sha256 0123" in page and "abc123" in page and "2026-01-02 03:05:05 UTC" in page
    assert page.count('alt="mask of good') == 3 and "trade-off" not in page
    assert not (tmp_path / "page_scores.csv").exists()


def test_masks_of_detectors_in_folders_of_one_name(tmp_path, monkeypatch):
    monkeypatch.setattr("memorization_suite.commands.report.page.MOST", 1)
    for number in range(2):
        folder = tmp_path / str(number) / "scores"
        detection(folder, "one", [1, 2, 3, 4], [], masks=["mem_0000_00", "mem_0001_00"])
        for stem in ("mem_0000_00", "mem_0001_00"):
            picture(number, (8, 8)).save(folder / "overlays" / f"{stem}.png")
    report([tmp_path], tmp_path / "page.html")
    files = sorted((tmp_path / "page_files").rglob("*.png"))
    assert [path.parent.name for path in files] == ["masks0", "masks0", "masks1", "masks1"]
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_masks_say_what_they_are(tmp_path):
    masks = ["mem_0003_00", "mem_0003_01", "mem_0000_00"]
    folder = detection(tmp_path / "one", "one", [1, 2, 3, 4], [], masks=masks)
    scores = folder / "scores.csv"
    scores.write_text(scores.read_text().replace("a ring,1,4", "a ring,1,4.5"))
    (folder / "masks").mkdir()
    np.save(folder / "masks" / "mem_0003_01.npy", np.array([[0.25, 1.5]], np.float32))
    (folder / "masks" / "mem_0003_00.npy").write_bytes(b"no array")
    page = report([folder], tmp_path / "page.html").path.read_text()
    part = page.partition("<h3>Masks</h3>")[2].partition("</details>")[0]
    ring, square = part.split('<section class="group">')[1:]
    assert "Masks of one: 3 images of 2 captions" in part and "Blue is the least" in part
    assert ring.startswith("<h4>a ring</h4>") and square.startswith("<h4>a red square</h4>")
    assert "row 3; score of the caption 4.25, the mean of its 2 images" in ring
    assert "image 1: score 4<" in ring and "image 2: score 4.5<small>mask from 0.25 to 1.5" in ring
    assert ring.count("mask from") == 1 and "memorized," not in ring.partition("</small>")[0]


def test_many_masks_are_folded(tmp_path, monkeypatch):
    folder = detection(tmp_path / "one", "one", [1, 2, 3, 4], [], masks=["mem_0000_00"])
    opened = '<details class="masks" open>'
    assert opened in report([folder], tmp_path / "page.html").path.read_text()
    monkeypatch.setattr("memorization_suite.commands.report.masks.OPEN", 0)
    assert opened not in report([folder], tmp_path / "page.html").path.read_text()


def test_detectors_without_masks_say_why(tmp_path):
    values = {"bright_ending": ["mem_0000_00"], "attention_entropy": [], "noise_norm": []}
    for name, masks in values.items():
        folder = detection(tmp_path / name, name, [1, 2, 3, 4], [], masks=masks)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "detector": name}))
    page = report([tmp_path], tmp_path / "page.html").path.read_text()
    told = page.partition("No masks of ")[2].partition("</p>")[0]
    assert "noise_norm: made without --save_masks" in told
    assert "attention_entropy: gives a score without a place in the image" in told


def test_a_command_of_several_detectors_is_listed_once(tmp_path):
    for name in ("a", "b", "c"):
        folder = detection(tmp_path / "all" / name, name, [1, 2, 3, 4], [])
        config = json.loads((folder / "config.json").read_text())
        asked = "c" if name == "c" else "a,b"
        config["command"] = f"python detect_memorization.py --detector={asked}"
        (folder / "config.json").write_text(json.dumps(config))
    page = report([tmp_path / "all"], tmp_path / "page.html").path.read_text()
    made = page.partition('<section id="made">')[2]
    assert made.count("--detector=a,b") == 1 and made.count("--detector=c") == 1
    assert "<summary>detectors a, b</summary>" in made and "<summary>detector c</summary>" in made
    assert f"{tmp_path}/all/a; {tmp_path}/all/b" in made
    assert made.count("4 prompts memorized, 0 ordinary") == 2


def test_one_set_has_nothing_that_takes_two(tmp_path):
    prompts = tmp_path / "memorized.csv"
    write_csv(prompts, [{"Caption": caption, "type": kind} for caption, kind in MEMORIZED])
    folder = detection(tmp_path / "one", "one", [1, 2, 3, 4], [], prompts=prompts)
    page = report([folder], tmp_path / "page.html").path.read_text()
    part = page.partition('<section id="detectors">')[2].partition("</section>")[0]
    first = part.partition("</h2>")[2].strip().partition("</p>")[0]
    assert "No detector can be called best without ordinary prompts" in first
    assert "--nonmem_prompts FILE" in first
    for words in ("ROC curves", "gets wrong", "AUC", "TPR", "dashed", "intervals", ">ordinary<"):
        assert words not in part
    assert "</span>ordinary" not in part and "</span>memorized" in part
    rows = part.partition("<tbody>")[2].partition("</tbody>")[0]
    assert rows.count("<tr>") == 1 and "–" not in rows and "histogram of one" in part


def test_a_detector_of_one_set_beside_others(tmp_path, detections):
    detection(detections / "alone", "alone", [1, 2, 3, 4], [])
    page = report([detections], tmp_path / "page.html").path.read_text()
    part = page.partition('<section id="detectors">')[2].partition("</section>")[0]
    assert "Nothing tells how well alone tells memorized from ordinary prompts" in part
    assert "dashed: the threshold" in part and "<th>AUC</th>" in part
    assert "</span>ordinary" in part and "TPR with at most" in part


def test_everything_on_a_page(tmp_path, runs, detections):
    """Runs below one folder, detectors below another, and both below one."""
    scored(tmp_path, runs)
    options = {"gt_folder": tmp_path / "gt"}
    apart = report([tmp_path / "runs", detections], tmp_path / "a.html", **options)
    together = report([tmp_path], tmp_path / "b.html", **options)
    for page in (apart, together):
        assert len(page.runs) == 2 and [each.name for each in page.detections] == ["fair", "good"]
        text = page.path.read_text()
        assert 'href="#detectors"' in text and 'href="#pictures"' in text
    assert "page: 2" not in apart.summary and "2 runs, 2 detectors" in apart.summary


def test_a_sweep_says_which_runs_are_not_made(tmp_path, runs):
    names = ["no_mitigation/g7_seed2", "per_sample/g7_seed2", "sail/g7_seed2"]
    whole = {"start": 0, "end": 4, "samples": 2, "batch_size": 1, "pieces": 1}
    members = [
        Member(name.split("/")[0], name, {}, latents=False, trace=False, **whole) for name in names
    ]
    Record("a sweep", True, [], members).write(tmp_path / "runs")
    page = report([tmp_path / "runs"], tmp_path / "page.html").path.read_text()
    table = page.partition("Runs that failed, or are not made")[2].partition("</table>")[0]
    assert "<td>sail</td>" in table and "per_sample" not in table
    failed = [("sail", "no space left")]
    page = report([tmp_path / "runs"], tmp_path / "page.html", failed=failed).path.read_text()
    assert page.count("<td>sail</td>") == 1 and "no space left" in page


@needs_browser
def test_curves_tell_and_tables_sort(browser, tmp_path, detections):
    page = report([detections], tmp_path / "page.html").path
    browser.open(page)
    browser.ask("document.querySelector('.point').focus()")
    assert browser.text("#tip").startswith("fair\nAUC 0.")
    names = (
        "[...document.querySelectorAll('.numbers tbody td:first-child')].map((e) => e.innerText)"
    )
    browser.point("#detectors .numbers th:nth-child(5) button", click=True)
    figures = "[...document.querySelectorAll('#detectors .numbers')][0].tBodies[0].rows"
    aucs = browser.ask(f"[...{figures}].map((row) => parseFloat(row.cells[4].innerText))")
    assert aucs == sorted(aucs) and len(browser.ask(names)) > 6
    browser.resize(390, 800, phone=True)
    assert browser.ask("document.documentElement.scrollWidth") <= 390
