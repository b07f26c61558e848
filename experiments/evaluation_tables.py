"""What embedded models do without a mitigation, tiny/evaluation/<model>.json, as tables.

No heavy import.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from memorization_suite import tiny
from memorization_suite.experiments.reference_tables import Rows
from memorization_suite.experiments.result_tables import (
    KINDS,
    LAYOUTS,
    SAMPLES,
    Line,
    decimals,
    figures,
    percent,
)
from memorization_suite.metrics.embedded import read_captions
from memorization_suite.runs.text import markdown_table

# Rows that tell something of ordinary captions, too.
COPIES = "copies of a training image, %"
MAGNITUDE = "magnitude, mean of 16 noises"


def evaluation(model: str) -> str:
    """Copies, magnitudes and subjects of a model's captions, by kind."""
    stored = figures(model)
    ordinary, realism = stored["ordinary"], stored["realism"]
    about = (
        f"Realism: memorized {realism['memorized']:.2f}, ordinary {realism['ordinary']:.2f}. "
        "Score of ordinary images\nagainst the nearest verbatim training image: median "
        f"{ordinary['nearest, median']:.2f}, largest {ordinary['nearest, largest']:.2f}."
    )
    kinds, layouts = markdown_table(by_kind(model, stored)), markdown_table(by_layout(ordinary))
    return f"{kinds}\n{about}\n\n{layouts}"


def by_kind(model: str, stored: Line) -> Rows:
    """A column for each kind of captions."""
    ordinary = stored["ordinary"]
    cells = {
        "captions": str(len(read_captions(tiny.prompts(model, "ordinary_test")))),
        COPIES: f"{100 * ordinary['share of copies']:.1f}",
        MAGNITUDE: f"{stored['first-step magnitude']['ordinary']['mean']:.2f}",
    }
    columns = {kind: of_kind(stored, kind) for kind in KINDS}
    rows = []
    for title in columns["TM"]:
        of_kinds = {kind: column[title] for kind, column in columns.items()}
        rows.append({"": title, **of_kinds, "ordinary": cells.get(title, "")})
    return rows


def of_kind(stored: Line, kind: str) -> dict[str, str]:
    """Row of the table -> what it says of a kind of memorized captions."""
    magnitude = stored["first-step magnitude"][kind]
    return {
        "captions": str(stored["captions"][kind]),
        COPIES: f"{100 * stored['copies'][kind]:.1f}",
        "RMSE of copies to it": decimals(stored["distance of copies"][kind], 3),
        MAGNITUDE: f"{magnitude['mean']:.2f}",
        "its AUC against ordinary captions": f"{magnitude['AUC']:.3f}",
    }


def by_layout(ordinary: Line) -> Rows:
    """How often ordinary images show what their caption names."""
    by_number = ordinary["all subjects shown, captions of"]
    shares = {"of one subject": by_number["one"], "of two, both of them": by_number["two"]}
    for layout, title in LAYOUTS.items():
        if layout in ordinary["subject shown by layout"]:
            shares[title] = ordinary["subject shown by layout"][layout]
    return [
        {"ordinary captions": title, "subject shown, %": percent(share)}
        for title, share in shares.items()
    ]


def transitions(model: str) -> str:
    """What becomes of captions of type B when guidance starts late."""
    late = figures(model, "late_guidance")
    escapes = late["images by step of escape"]
    total = sum(escapes.values())
    rows = []
    for title, name in {
        "copies, %": "share of copies",
        "subject shown, %": "subject shown",
    }.items():
        cells = {step: percent(share) for step, share in late[name].items()}
        rows.append({"first guided step": title, **cells})
    steps = {step: str(count) for step, count in escapes.items() if step != "None"}
    rows.append({"first guided step": "images free from here on", **steps})
    differing = percent(late["prompts whose noises escape at different steps"])
    about = (
        f"{escapes['None']} of the {total} images are still copies at the last start. For "
        f"{differing} % of the captions,\nthe noises differ in the step of escape. Of more noises "
        "of the first captions:"
    )
    spread = markdown_table(spreads(late["spread"]))
    noises = f"{total} images, {SAMPLES['transitions']} noises a caption."
    return f"{noises}\n\n{markdown_table(rows)}\n{about}\n\n{spread}"


def spreads(lines: list[Line]) -> Rows:
    """How much the step of escape varies with the noise."""
    rows = []
    for line in lines:
        step = f"{line['mean step']:.1f} ± {line['deviation']:.1f}"
        never = f"{line['never']} of {line['noises']}"
        rows.append({"caption": line["caption"], "step of escape": step, "never": never})
    return rows


EVALUATION_PARTS: dict[str, Callable[[], str]] = {}
for name in tiny.MODELS:
    EVALUATION_PARTS[f"{name}_evaluation"] = partial(evaluation, name)
    EVALUATION_PARTS[f"{name}_transitions"] = partial(transitions, name)
