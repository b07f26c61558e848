"""Tables as Markdown, CSV and LaTeX: of sweeps and of summarize.py."""

import csv as reader
import io

import pytest

from memorization_suite.commands import summarize
from memorization_suite.runs.formats import FORMATS, Cell, Listed
from tests.evidence.made_up import MadeRun, make_sweep

TABLE = Listed(
    [
        {"a & b": Cell("50 % of_it", (0.5, 0.25, 1.0), best=True), "x|y": Cell("=1")},
        {"a & b": Cell("-")},
    ],
    "Of $2.",
)


def test_each_format_escapes_what_it_reads():
    latex = FORMATS["tex"](TABLE, "Made\nby me.")
    assert r"a \& b & x\textbar{}y \\" in latex and r"\textbf{50 \% of\_it} & =1 \\" in latex
    assert r"\caption{Of \$2.}" in latex and latex.startswith("% Made by me.\n")
    assert "    - &  \\\\\n" in latex
    markdown = FORMATS["md"](TABLE, "")
    assert r"x\|y" in markdown and r"**50 % of\_it**" in markdown and markdown.endswith("Of $2.\n")


def test_a_row_of_latex_is_no_argument_of_the_one_before():
    rows = [{"a": Cell("<i>a|b</i>")}, {"a": Cell("[2] c"), "b": Cell("[3]")}, {"a": Cell("*")}]
    lines = FORMATS["tex"](Listed(rows), "").splitlines()
    assert r"    \textless{}i\textgreater{}a\textbar{}b\textless{}/i\textgreater{} &  \\" in lines
    assert r"    {}[2] c & [3] \\" in lines and r"    {}* &  \\" in lines


def test_numbers_have_columns_of_their_own():
    rows = list(reader.DictReader(io.StringIO(FORMATS["csv"](TABLE, "me"))))
    assert rows[0] == {
        "a & b": "0.5",
        "a & b low": "0.25",
        "a & b high": "1",
        "x|y": "'=1",
        "made by": "me",
    }
    assert rows[1]["a & b"] == "" and rows[1]["a & b low"] == ""


@pytest.fixture
def runs(tmp_path):
    plain = MadeRun(scores={"copy_score": lambda key: 0.8 + 0.01 * key.prompt})
    other = MadeRun("per_sample", scores={"copy_score": lambda key: 0.1 * key.prompt})
    out = make_sweep(tmp_path / "out", [plain, other])
    return [str(path) for path in sorted(out.glob("*/s?"))]


@pytest.mark.parametrize(
    ("ending", "marks"),
    [
        ("md", ("| no\\_mitigation ", "Difference to no\\_mitigation")),
        ("tex", (r"\toprule", r"no\_mitigation & ")),
        ("csv", ("mean,mean low,mean high", "no_mitigation,")),
    ],
)
def test_summaries_have_formats(runs, capsys, ending, marks):
    assert summarize.main([*runs, "--format", ending, "--quiet"]) == 0
    said = capsys.readouterr().out
    assert all(mark in said for mark in marks), said
    assert "0.15" in said  # the mean of per_sample
