"""The three kinds of work of a sweep: the images of a piece of a run, its scores, and the page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from memorization_suite.commands.generate import generate
from memorization_suite.commands.generate_plan import Plan
from memorization_suite.commands.report import report
from memorization_suite.commands.score import score
from memorization_suite.commands.settings import SMALLER
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.run_folder import RunFolder
from memorization_suite.runs.text import fault_text, said_by


class DeviceLost(Exception):
    """A device that cannot even add numbers any more."""


def make_images(plan: Plan, load: Callable | None) -> dict[str, Any]:
    """Makes what is missing of a piece of a run. Returns how many images that were, and seconds."""
    run = generate(plan, load=load)
    print(run.summary, flush=True)
    return {"made": len(run.made), "seconds": round(run.seconds, 1)}


def score_run(plan: Plan, said: set[str]) -> dict[str, Any]:
    """Scores a run. Returns when its images were finished, which tells whether they changed, and
    whether there is a table now: without checkpoints there may be none.

    said: what was said of other runs, and is not said again.
    """
    folder = RunFolder(plan.folder)
    folder.close_if_whole()
    finished = (folder.manifest() or {}).get("finished")
    settings = plan.settings
    table = score(
        folder.path, prompts=settings.prompts, device=settings.device, quiet=settings.quiet
    )
    for note in table.notes:
        if note not in said:
            print(note, file=sys.stderr)
        said.add(note)
    return {"finished": finished, "table": (folder.path / "results.csv").exists()}


def write_page(
    folders: Sequence[Path], out: Path, title: str, failed: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Writes the page of the runs. failed: names of those that failed, and why."""
    if not folders:
        raise ValueError("there is no page, since every run failed")
    page = report(folders, out / "report.html", title=title, failed=failed)
    return {"summary": page.summary}


def works(device: str) -> bool:
    """Whether a device can add numbers."""
    try:
        return torch.ones(8, device=device).sum().item() == 8
    except RuntimeError:
        return False


def message_of(error: Exception) -> str:
    """An error in a line."""
    text = fault_text(error) if isinstance(error, OSError) else said_by(error)
    if not isinstance(error, (ValueError, OSError)):
        text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".removesuffix(": ")
        if "out of memory" in str(error):
            text += f" Use a smaller {SMALLER}."
    return " ".join([text, *getattr(error, "__notes__", [])])
