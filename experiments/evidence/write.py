"""Draws, lists and tests what a sweep file asks for, of runs that are all there.

Below the sweep's folder: `evidence/NAME.png`, `.pdf` and `.txt` (the caption) of each figure,
`NAME.md`, `.csv` and `.tex` of each table, `claims.json`, and `files.json` with their names. Every
file names the command and the commit that made it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from memorization_suite.experiments.evidence.base import (
    UNTESTED,
    Claim,
    Figure,
    Table,
    Tested,
    TooFew,
)
from memorization_suite.experiments.evidence.resampling import Estimate
from memorization_suite.experiments.evidence.runs import Evidence
from memorization_suite.experiments.evidence.sections import Section
from memorization_suite.runs.environment import commit_text
from memorization_suite.runs.files import write_bytes, write_json
from memorization_suite.runs.formats import FORMATS
from memorization_suite.runs.plots import picture, style

FOLDER = "evidence"
# Inches below the figure, for that.
MARGIN = 0.11
EMBEDDED = "embedded model, not Stable Diffusion"
CLAIMS_FILE = "claims.json"
# Names of the files that the sections have.
LIST = "files.json"
# Files of a section, by what it is.
ENDINGS = {"figure": ("pdf", "png", "txt"), "table": tuple(FORMATS)}


@dataclass(frozen=True)
class Outcome:
    """What was made of the sections."""

    # Lines for people: a file, a verdict.
    lines: list[str]
    # What could not be made, and why.
    problems: list[str]


def made_by(command: str, evidence: Evidence) -> str:
    """A sentence for captions and comments; runs of other commits are told."""
    here = commit_text()
    others = [commit for commit in evidence.commits if f"commit {commit}" != here]
    runs = f"; images of commit {', '.join(others)}" if others else ""
    command = command.replace("`", "'")
    return f"Made by `{command}`, {here}{runs}."


def write_evidence(sections: Sequence[Section], out: Path, command: str) -> Outcome:
    """Makes all of them. One that the runs do not suffice for ends no other. Raises OSError."""
    evidence = Evidence.of(out)
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    made = made_by(command, evidence)
    remove_others(sections, folder)
    outcome = Outcome([], [])
    claims = {}
    for section in sections:
        try:
            if isinstance(section.made, Figure):
                path = write_figure(section, section.made, evidence, folder, made)
                outcome.lines.append(f"{section.name}: {path}")
            elif isinstance(section.made, Table):
                path = write_table(section, section.made, evidence, folder, made)
                outcome.lines.append(f"{section.name}: {path}")
            elif isinstance(section.made, Claim):
                tested = tested_by(section.made, evidence)
                claims[section.name] = entry_of(section, tested, evidence, made)
                outcome.lines.append(f"{section.says} {tested.verdict}: {tested.numbers}")
        except ValueError as error:
            outcome.problems.append(f"{section.what} {section.name}: {error}")
            remove_old(section, folder)
    write_json(folder / CLAIMS_FILE, claims)
    return outcome


def tested_by(claim: Claim, evidence: Evidence) -> Tested:
    """What a test came to. Raises ValueError."""
    try:
        return claim.test(evidence)
    except TooFew as error:
        return Tested(UNTESTED, str(error))


def remove_others(sections: Sequence[Section], folder: Path) -> None:
    """Takes away the files of earlier sections that there are no more. Raises OSError."""
    wanted = [file for section in sections for file in files_of(section)]
    listed = folder / LIST
    for name in json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else []:
        if name not in wanted:
            (folder / name).unlink(missing_ok=True)
    write_json(listed, wanted)


def files_of(section: Section) -> list[str]:
    """Names of what a figure or table is written to."""
    return [f"{section.name}.{ending}" for ending in ENDINGS.get(section.what, ())]


def remove_old(section: Section, folder: Path) -> None:
    """Takes away what earlier runs gave, which is not of these. Raises OSError."""
    for name in files_of(section):
        (folder / name).unlink(missing_ok=True)


def entry_of(section: Section, tested: Tested, evidence: Evidence, made: str) -> dict:
    """A verdict for files."""
    return {
        "claim": section.says,
        "verdict": tested.verdict,
        "numbers": tested.numbers,
        "values": {name: plain_numbers(found) for name, found in tested.values.items()},
        "models": evidence.models,
        "made": made,
    }


def plain_numbers(found: Estimate) -> dict[str, float | None]:
    """A number and its interval as JSON has them; None for none."""
    return {name: value if isfinite(value) else None for name, value in found._asdict().items()}


def write_figure(
    section: Section, kind: Figure, evidence: Evidence, folder: Path, made: str
) -> Path:
    """The figure in two formats, and its caption. Returns the PNG."""
    with style():
        drawn = kind.draw(evidence)
        if evidence.embedded:
            mark(drawn.figure)
        facts = {"Title": section.name, "Subject": section.says, "Keywords": made}
        for ending in ("pdf", "png"):
            data = picture(drawn.figure, ending, facts)
            write_bytes(folder / f"{section.name}.{ending}", data)
    caption = f"{section.says} {drawn.caption} {made}\n"
    write_bytes(folder / f"{section.name}.txt", caption.encode())
    return folder / f"{section.name}.png"


def mark(figure) -> None:
    """Says below the picture that it is of an embedded model."""
    low = MARGIN / figure.get_size_inches()[1]
    figure.get_layout_engine().set(rect=(0, low, 1, 1 - low))
    figure.text(0.998, 0.002, EMBEDDED, ha="right", va="bottom", fontsize=5, color="#555555")


def write_table(section: Section, kind: Table, evidence: Evidence, folder: Path, made: str) -> Path:
    """The table in every format. Returns the Markdown file."""
    table = kind.list(evidence)
    caption = f"{section.says} {table.caption}"
    for ending, write in FORMATS.items():
        text = write(type(table)(table.rows, caption), made)
        write_bytes(folder / f"{section.name}.{ending}", text.encode())
    return folder / f"{section.name}.md"
