"""The notebook of examples/: it is its script's, runs, and shows results as tables and pictures."""

import json
import re

import pytest

from memorization_suite import ROOT, tiny
from tests import notebook

KEPT = json.loads(notebook.NOTEBOOK.read_text(encoding="utf-8"))


def shown(cells, kind):
    """What cells show of a kind, such as image/png."""
    return [
        "".join(output["data"][kind])
        for cell in cells
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
        if kind in output.get("data", {})
    ]


def test_it_is_made_of_its_script():
    assert ["".join(cell["source"]) for cell in KEPT["cells"]] == [
        cell.source for cell in notebook.made().cells
    ]


def test_it_is_small_and_names_no_machine():
    content = notebook.NOTEBOOK.read_text(encoding="utf-8")
    assert len(content) < 1_000_000
    assert not re.search(r"/(home|root|tmp|work|Users)/", content)


def test_results_are_kept_as_tables_and_pictures():
    tables = shown(KEPT["cells"], "text/html")
    assert sum("<table" in text for text in tables) == 2
    assert sum('<img alt="training images' in text for text in tables) == 3
    assert len(shown(KEPT["cells"], "image/png")) == 2


@pytest.mark.skipif(not tiny.MODELS["tiny"].exists(), reason="needs the embedded model")
def test_it_runs(tmp_path):
    (tmp_path / "tiny").symlink_to(ROOT / "tiny")
    (tmp_path / "examples").mkdir()
    cells = notebook.executed(notebook.made(), tmp_path / "examples").cells
    assert len(shown(cells, "text/html")) == len(shown(KEPT["cells"], "text/html"))
    assert (tmp_path / "examples" / "walkthrough" / "page.html").is_file()
