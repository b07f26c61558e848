"""One look a method, told apart by everybody, and files that are the same each time."""

import io
import itertools

import pytest
from PIL import Image

from memorization_suite.metrics import tradeoff
from memorization_suite.mitigation import METHODS
from memorization_suite.runs.plots import (
    BLACK,
    COLUMN,
    CYCLE,
    LOOKS,
    NEW,
    looks_of,
    new_figure,
    picture,
    plain,
    style,
)

VALUES = ("x", "x_low", "x_high", "y", "y_low", "y_high")
# Linear light as people without long or middle cones see it: Viénot et al. 1999.
BLIND = {
    "protanopia": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    "deuteranopia": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
}


def seen(color, kind):
    """A color's three numbers as such people see it."""
    light = [(int(color[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
    rows = BLIND[kind]
    return [max(0, sum(a * b for a, b in zip(row, light))) ** (1 / 2.2) for row in rows]


def distance(one, other, kind):
    """How far two colors are apart for such people, in [0, 1]."""
    return max(abs(a - b) for a, b in zip(seen(one, kind), seen(other, kind)))


def test_every_method_has_its_own_look():
    assert set(METHODS) <= set(LOOKS)
    assert len(set(LOOKS.values())) == len(LOOKS) and not set(NEW) & set(LOOKS.values())


def test_a_new_method_stands_out_and_changes_no_other_look():
    looks = looks_of(["mine", "per_sample", "yours"])
    assert looks["per_sample"] == LOOKS["per_sample"]
    assert [looks["mine"], looks["yours"]] == [*NEW[:2]] and looks["mine"].color == BLACK


@pytest.mark.parametrize("kind", BLIND)
def test_colors_are_told_apart_by_the_color_blind(kind):
    """Lines without markers: any two of the first four, which most figures need; methods: by color
    or marker.
    """
    for one, other in itertools.combinations(CYCLE[:4], 2):
        assert distance(one, other, kind) > 0.12
    for first, second in itertools.combinations(LOOKS.values(), 2):
        assert first.marker != second.marker or distance(first.color, second.color, kind) > 0.09


def test_files_are_the_same_each_time_and_say_what_they_are():
    files = []
    for _ in range(2):
        with style():
            figure = new_figure(1.5)
            figure.subplots().plot([1, 2], label=plain("$1 to $2"))
            facts = {"Title": "two", "Command": "python sweep.py two.toml"}
            files.append([picture(figure, kind, facts) for kind in ("png", "pdf")])
    assert files[0] == files[1] and b"/Title (two)" in files[0][1]
    image = Image.open(io.BytesIO(files[0][0]))
    assert image.text["Command"] == "python sweep.py two.toml"
    assert image.width == pytest.approx(COLUMN * 300, abs=2)


def test_plot_tradeoff_has_the_same_looks():
    """Series of one method differ in their lines."""
    rows = [
        {"method": name.split(",")[0], "series": name, **dict.fromkeys(VALUES, 0.5)}
        for name in ("sail", "sail, seed 3", "guard")
    ]
    with style():
        figure = tradeoff.figure_of(tradeoff.Points("copy_score", "realism", rows))
    lines = [box.lines[0] for box in figure.axes[0].containers]
    assert [line.get_color() for line in lines] == [
        LOOKS["sail"].color,
        LOOKS["sail"].color,
        LOOKS["guard"].color,
    ]
    assert [line.get_marker() for line in lines] == ["o", "o", "D"]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-"]
