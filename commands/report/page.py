"""The page itself: one template, with its style and scripts in it.

Nothing is loaded from elsewhere, but the pictures beside a large page.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization_suite import tiny
from memorization_suite.commands.report.detection_tables import of_detections
from memorization_suite.commands.report.detections import Detection
from memorization_suite.commands.report.figures import tidy
from memorization_suite.commands.report.gallery import Gallery, gallery_data, viewer_data
from memorization_suite.commands.report.gather import (
    Limits,
    Reported,
    comparable,
    differences_told,
    splits,
)
from memorization_suite.commands.report.names import short_names
from memorization_suite.commands.report.overview import (
    answers,
    heat_table,
    kind_title,
    measures_of,
)
from memorization_suite.commands.report.pictures import MOST, PictureFiles, Pictures, check_folder
from memorization_suite.commands.report.tables import (
    cost_table,
    name_cell,
    origins,
    score_table,
    words,
)
from memorization_suite.commands.report.tradeoff_chart import tradeoff
from memorization_suite.metrics.references import References
from memorization_suite.metrics.summary import ALL
from memorization_suite.runs.environment import commit_text
from memorization_suite.runs.lazy import Lazy

jinja2 = Lazy("jinja2")

ASSETS = Path(__file__).parent / "assets"
# Later ones use what earlier ones define.
SCRIPTS = ("state.js", "table.js", "chart.js", "gallery.js", "viewer.js")
# What would end a script, or begin a comment in it.
ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class Contents:
    """What is on a page."""

    title: str
    # The first is the one that others are shown beside.
    runs: list[Reported]
    # The same, if it was named.
    reference: Path | None = None
    gt_folder: Path | None = None
    limits: Limits = Limits()
    # Names of runs that failed, and why.
    failed: Sequence[tuple[str, str]] = ()
    detections: Sequence[Detection] = ()
    # What made the page.
    command: str = ""


def render(contents: Contents, out: Path, *, self_contained: bool, quiet: bool) -> tuple[str, int]:
    """(the page's HTML, bytes of the pictures beside it). Everything from files is escaped.

    out: where the page will lie. self_contained: all pictures in it, however many there are. Raises
    ValueError where its pictures have no place.
    """
    gallery = gallery_of(contents) if contents.runs else None
    total = gallery.total if gallery else 0
    total += sum(len(detection.overlays) for detection in contents.detections)
    if total > MOST and not self_contained:
        check_folder(out)
        pictures: Pictures = PictureFiles(out)
    else:
        pictures = Pictures(total)
    models = {reported.run.model_id for reported in contents.runs}
    models |= {each.origin.model for each in contents.detections}
    parts: dict[str, Any] = {
        "title": contents.title,
        "embedded": sorted(models & set(tiny.MODELS)),
        "models": sorted(model or "unknown" for model in models),
        "failed": contents.failed,
        "command": contents.command,
        "made": made_by(),
        "style": (ASSETS / "style.css").read_text(encoding="utf-8"),
        "scripts": "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS),
    }
    if gallery:
        parts |= of_runs(contents, gallery, pictures, quiet=quiet)
    if contents.detections:
        parts["detection"] = of_detections(contents.detections, pictures)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = kind_title
    environment.filters["tidy"] = lambda value: tidy(value) if isinstance(value, str) else value
    environment.filters["breakable"] = breakable
    text = environment.get_template("page.html.j2").render(parts)
    pictures.close()
    return text, pictures.size


def made_by() -> str:
    """The commit of the suite; no time, so that the same runs give the same page."""
    return f"{commit_text()} of the suite"


def breakable(text: object) -> str:
    """A name for HTML, escaped, that may break after `_` and `/` alone."""
    escaped = jinja2.utils.markupsafe.escape(text)
    return type(escaped)(re.sub(r"([_/])(?=.)", r"\1<wbr>", str(escaped)))


def gallery_of(contents: Contents) -> Gallery:
    """The gallery of the runs of equal seeds."""
    equal, _ = comparable(contents.runs)
    folder = contents.gt_folder or contents.runs[0].run.gt_folder
    return Gallery(equal, References(folder, decode=False), contents.limits)


def of_runs(
    contents: Contents, gallery: Gallery, pictures: Pictures, *, quiet: bool
) -> dict[str, Any]:
    """What the template needs of runs."""
    runs = contents.runs
    equal, notes = comparable(runs)
    measures = measures_of(runs)
    kinds = splits(runs)
    charts, no_chart = tradeoff(equal)
    tables = [score_table(runs, split) for split in kinds]
    content = gallery.content(pictures, quiet=quiet)
    return {
        "runs": [name_cell(reported) for reported in runs],
        "names": dict(zip([reported.title for reported in runs], short_names(runs))),
        "costs": cost_table(runs),
        "words": words(runs),
        "heat": heat_table(runs, measures, kinds) if measures else None,
        "answers": answers(equal, measures, kinds),
        "kinds": [kind for kind in kinds if kind != ALL],
        "charts": charts,
        "no_chart": no_chart,
        "scores": [table for table in tables if len(table["head"]) > 1],
        "unscored": [reported.title for reported in runs if not reported.lines],
        "gallery": content,
        "data": script_json(gallery_data(content)),
        "details": script_json(viewer_data(content)),
        "marks": [line for reported in runs for line in reported.marks.lines(reported.title)],
        "notes": notes,
        "unknown": [f"{each.title}: {each.unknown}" for each in runs if each.unknown],
        "is_sure": not any(each.unknown for each in equal) or len(equal) == 1,
        "remarks": differences_told(equal, contents.reference),
        "origins": origins(runs),
    }


def script_json(data: Any) -> str:
    """JSON that can stand in a script element, whatever its texts are. Not a number is null."""
    text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter, escaped in ESCAPED.items():
        text = text.replace(letter, escaped)
    return text


def finite(data: Any) -> Any:
    """The same with None in the place of what is no number."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return data
