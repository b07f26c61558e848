"""The summary: which run copies least of each kind, its price, and whether a difference is sure."""

import re

from memorization_suite.commands.report import report
from memorization_suite.commands.report.chart import Point, axis, inside, place_labels
from memorization_suite.commands.report.gather import find_runs, gather
from memorization_suite.commands.report.names import short_names
from memorization_suite.commands.report.overview import (
    answers,
    heat_table,
    kind_title,
    measures_of,
)
from memorization_suite.commands.report.tradeoff_chart import tradeoff
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.tables import read_csv
from tests.metrics.conftest import make_run
from tests.report.conftest import as_run, give_scores, scored

KINDS = ["all", "TM", "VM"]


def gathered(tmp_path, runs, prompts):
    """Three runs; the first copies everything, the second nothing of VM, the third one image."""
    scored(tmp_path, runs)  # so that the types of the prompts are known
    third = make_run(tmp_path / "runs" / "sail" / "g7_seed2", prompts, seed=5, samples=2)
    runs = [*runs, as_run(third, "sail", unet_evals=130, seconds=1)]
    scored(tmp_path, runs[2:])
    methods = ("no_mitigation", "per_sample", "sail")
    values = ([0.9] * 8, [0.1] * 4 + [0.9] * 4, [0.9] + [0.1] * 7)
    probabilities = (0.8, 0.5, 0.7)
    for run, method, copies, high in zip(runs, methods, values, probabilities):
        aligned = [high - 0.01 * i for i in range(8)]
        give_scores(run, method, sscd=copies, subject_probability=aligned)
    return gather(find_runs([tmp_path / "runs"]))


def test_the_best_its_price_and_what_is_sure(tmp_path, runs, prompts):
    reported = gathered(tmp_path, runs, prompts)
    measures = measures_of(reported)
    assert [(m.title, m.quantity.name) for m in measures] == [
        ("share of copies", "sscd"),
        ("alignment", "subject_probability"),
    ]
    every, template, verbatim = answers(reported, measures, KINDS)
    assert (every.best, every.captions, every.kind) == ("sail g7_seed2", 4, "all captions")
    assert every.change.text == "−88 points" and every.change.sure
    assert every.reference == "no_mitigation g7_seed2" and every.next == "per_sample g7_seed2"
    assert (every.cost.text, every.cost.note) == ("130", "instead of 100")
    (price,) = every.price
    assert price.text == "−0.100" and price.note.startswith("worse, ")
    assert (template.kind, template.best) == ("template (TM)", "sail g7_seed2")
    assert (verbatim.best, verbatim.share.text) == ("per_sample g7_seed2", "0\xa0%")
    assert verbatim.next_change.note == "better, not sure"


def test_captions_are_those_that_have_scores(tmp_path, runs):
    scored(tmp_path, runs)
    give_scores(runs[0], "no_mitigation", sscd=[0.9] * 8)
    give_scores(runs[1], "per_sample", sscd=[0.1] * 4)
    reported = gather(find_runs([tmp_path / "runs"]))
    every, *_ = answers(reported, measures_of(reported), KINDS)
    assert every.best == "per_sample g7_seed2" and every.captions == 2
    assert every.share.note == "of 4 images with scores, of 8"
    assert every.next_share.note == ""


def test_equal_shares_are_told_apart_by_alignment(tmp_path, runs, prompts):
    scored(tmp_path, runs)
    for run, method, high in zip(runs, ("no_mitigation", "per_sample"), (0.2, 0.6)):
        give_scores(run, method, sscd=[0.1] * 8, subject_probability=[high] * 8)
    reported = gather(find_runs([tmp_path / "runs"]))
    every, *_ = answers(reported, measures_of(reported), KINDS)
    assert every.best == "per_sample g7_seed2" and every.tied == ("no_mitigation g7_seed2",)
    assert (every.next_change.text, every.next_change.sure) == ("as before", False)
    assert every.next_change.note == "0 in both, of 8 images"
    page = report([tmp_path / "runs"], tmp_path / "page.html").path.read_text()
    assert "<small>tied with no_mitigation</small>" in page


def test_of_equal_ones_the_cheaper_is_named(tmp_path, runs, prompts):
    """And NFE are those of a kind's own images: per_sample takes less on the first two captions."""
    scored(tmp_path, runs)
    for run, method in zip(runs, ("no_mitigation", "per_sample")):
        give_scores(run, method, sscd=[0.1] * 8)
        table = run.path / "images.csv"
        rows = read_csv(table)
        for row in rows:
            is_cheap = method == "per_sample" and int(row["prompt_index"]) < 2
            row["unet_evals"] = 50 if is_cheap else 100
        write_csv(table, rows)
    reported = gather(find_runs([tmp_path / "runs"]))
    every, template, verbatim = answers(reported, measures_of(reported), KINDS)
    assert {every.best, verbatim.best, template.best} == {
        "no_mitigation g7_seed2",
        "per_sample g7_seed2",
    }
    (cheap,) = [each for each in (template, verbatim) if each.cost and each.cost.text == "50"]
    assert cheap.best == "per_sample g7_seed2" and cheap.cost.note == "instead of 100"


def test_nothing_is_said_where_nothing_is_better(tmp_path, runs):
    scored(tmp_path, runs)
    for run, method, copies in zip(runs, ("no_mitigation", "per_sample"), (0.1, 0.9)):
        give_scores(run, method, sscd=[copies] * 8)
    page = report([tmp_path / "runs"], tmp_path / "page.html").path.read_text()
    row = page.partition('<table class="numbers answers">')[2].partition("<tbody>")[2]
    cells = re.findall(r"<td>(.*?)</td>", row.partition("</tr>")[0], re.S)
    assert [cell.strip() for cell in cells[:2]] == [
        "no_mitigation: 0\xa0%<small>[0, 60]</small>",
        "–",
    ]


def test_the_heat_is_one_for_the_worst(tmp_path, runs, prompts):
    reported = gathered(tmp_path, runs, prompts)
    heat = heat_table(reported, measures_of(reported), KINDS)
    copies = [row[:3] for row in heat.rows]
    assert [cell.text for cell in copies[0]] == ["100", "100", "100"]
    assert [cell.heat for cell in copies[1]] == [0.5, 1.0, 0.0]
    aligned = [cell.heat for row in heat.rows for cell in row[3:]]
    assert min(aligned) == 0.0 and max(aligned) == 1.0
    # The best aligned prompts are the unmitigated run's first ones, which are VM.
    assert heat.rows[0][5].heat == 0.0 and heat.rows[1][4].heat == 1.0
    assert heat.rows[0][0].n == "8 of 8 images"


def test_the_page_shows_them(tmp_path, runs, prompts):
    gathered(tmp_path, runs, prompts)
    page = report([tmp_path / "runs"], tmp_path / "page.html").path.read_text()
    summary = page.partition('id="summary"')[2].partition("</section>")[0]
    assert "<b>sail</b>" in summary and "130<small>instead of 100</small>" in summary
    assert len(re.findall(r"<td style=\"--heat: [01]\.\d+\"", summary)) == 3 * 2 * 3
    drawing = page.partition('class="chart"')[2].partition("</svg>")[0]
    for name in ("no_mitigation", "per_sample", "sail"):
        assert f">{name}</text>" in drawing
    assert re.search(r"sscd 0\.200 \[0\.1\d\d, 0\.\d+\], 8 of 8 images", drawing)
    made = page.partition('id="made"')[2]
    assert made.count("not finite: 0 images") == 3 and "commit of the suite" in made
    assert "make_report.py" in made and "torch " in made


def test_missing_images_are_counted(tmp_path, runs):
    (runs[0].path / "img_0003_01.png").unlink()
    manifest = runs[0].path / "manifest.json"
    asked = '"asked": {"start": 0, "end": 4, "samples": 2, "of": 8}, "schema"'
    manifest.write_text(manifest.read_text().replace('"schema"', asked, 1))
    page = report([runs[0].path], tmp_path / "page.html").path.read_text()
    assert "7; missing: 1 image; not finite: 0 images" in page


def test_points_are_called_by_what_tells_them_apart():
    class Run:
        def __init__(self, method, settings):
            self.method, self.settings = method, settings

    runs = [
        Run("no_mitigation", "g7_seed2"),
        Run("batch_wise", "g7_rho5_seed2"),
        Run("batch_wise", "g7_rho10_seed2"),
        Run("sail", "g7_seed2"),
        Run("sail", "g7_seed2 in b"),
    ]
    assert short_names(runs) == [
        "no_mitigation",
        "batch_wise rho5",
        "batch_wise rho10",
        "sail seed2",
        "sail seed2 in b",
    ]


def box_of_label(point):
    width = 6 * len(point.label)
    left = point.label_x - (width if point.anchor == "end" else 0)
    return left, point.label_y - 10, left + width, point.label_y


def test_labels_of_points_do_not_cover_each_other(tmp_path, runs, prompts):
    charts, _ = tradeoff(gathered(tmp_path, runs, prompts))
    assert [chart.width for chart in charts] == [760, 380]
    for chart in charts:
        boxes = [box_of_label(point) for point in chart.points]
        assert all(left >= 62 and right <= chart.width for left, _, right, _ in boxes)
        for i, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[i + 1 :]:
                is_beside = other[0] >= right or other[2] <= left
                assert is_beside or other[1] >= bottom or other[3] <= top


def test_the_better_corner_is_marked(tmp_path, runs, prompts):
    (wide, _), _ = tradeoff(gathered(tmp_path, runs, prompts))
    x, y, anchor, text = wide.corner
    assert text == "↖ better" and anchor == "start" and (x, y) < (100, 40)


def test_labels_are_not_crossed_where_there_is_room():
    """Up and to the right there is a line, down and to the left a bar."""
    point = Point(300, 200, None, None, 0, "batch_wise rho20", [])
    lines = [(300, 200, 420, 130), (300, 200, 300, 300), (180, 200, 420, 200)]
    assert inside((0, 0, 30, 40), (15, 0, 90, 90)) == 25 and inside((5, 0, 5, 9), (6, 0, 9, 9)) == 0
    place_labels([point], lines)
    assert all(inside(line, box_of_label(point)) == 0 for line in lines)
    place_labels([point])
    assert inside(lines[0], box_of_label(point)) > 5


def test_ticks_are_round_and_inside():
    made = axis("x", [0.013, 0.87], 0, 100)
    assert [text for _, text in made.ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8"]
    assert all(0 <= at <= 100 for at, _ in made.ticks)
    alone = axis("x", [3.0], 0, 100)
    assert alone.at(3.0) == 50 and len(alone.ticks) >= 4


def test_kinds_have_names():
    assert kind_title("TM") == "template (TM)" and kind_title("odd <kind>") == "odd <kind>"
