"""The notebook of examples/, made from its script and run: what it shows is kept.

python -m tests.notebook    # a few minutes; writes examples/walkthrough.ipynb
"""

from __future__ import annotations

import os
import sys
from typing import Any

from memorization_suite import ROOT
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.lazy import Lazy

jupytext = Lazy("jupytext")
nbclient = Lazy("nbclient")

SCRIPT = ROOT / "examples" / "walkthrough.py"
NOTEBOOK = SCRIPT.with_suffix(".ipynb")
# Seconds that a cell may take.
TIMEOUT = 600


def made() -> Any:
    """The notebook of the script, without outputs."""
    notebook = jupytext.read(SCRIPT)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook["metadata"] = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return notebook


def executed(notebook: Any, folder=SCRIPT.parent) -> Any:
    """Runs it in the folder. Progress and remarks, which go to stderr, are not kept.

    Raises nbclient's CellExecutionError for the first cell that fails.
    """
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", resources=resources
    )
    # This checkout's suite, whichever is installed.
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT)})
    for cell in notebook.cells:
        cell["metadata"] = {}
        if cell.cell_type == "code":
            cell["outputs"] = [shown for shown in cell.outputs if shown.get("name") != "stderr"]
    return notebook


def main() -> int:
    """The command line. Returns the exit code."""
    content = jupytext.writes(executed(made()), fmt="ipynb")
    write_bytes(NOTEBOOK, content.encode())
    print(f"{NOTEBOOK.relative_to(ROOT)}: {len(content) / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
