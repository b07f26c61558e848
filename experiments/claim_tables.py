"""The paper's claims in docs/RESULTS.md: their tests, the verdicts on the embedded models, and what
would decide them on Stable Diffusion.

Tests and thresholds come from experiments/*.toml. Verdicts lie in tiny/evaluation, where
`python -m experiments.reproduce --store` writes them.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from memorization_suite import ROOT, tiny
from memorization_suite.commands.sweeps.cost import Total, costs_of, hours_text
from memorization_suite.commands.sweeps.file import tables_of
from memorization_suite.commands.sweeps.sweep import plan_sweep
from memorization_suite.experiments.evidence.sections import Section, read_sections
from memorization_suite.runs.settings import flag_names, number_text
from memorization_suite.runs.text import markdown_table

EXPERIMENTS = ROOT / "experiments"
# Of the embedded models' claims, a folder a model; `python -m experiments.reproduce --store`.
FIGURES = ROOT / "docs" / "figures"
FAMILIES = ("_sd1", "_sd2")
# What bounds a test, of its settings.
BOUNDS = ("above", "below", "prompts", "seeds", "steps", "noises")
# Prompt file of a sweep -> how many prompts it has; it is not in the repository.
PROMPTS = {
    "prompts/paper_figure6.csv": 6,
    "prompts/paper_figure11.csv": 6,
    "prompts/sd2_mem.jsonl": 219,
}
OFFICIAL = 500
UNKNOWN = "not tested yet"


def embedded_files() -> list[Path]:
    """The experiments on the embedded models."""
    return [path for path in sorted(EXPERIMENTS.glob("*.toml")) if not path.stem.endswith(FAMILIES)]


def claims_of(file: Path) -> list[Section]:
    """The claims that a file tests."""
    return [section for section in read_sections(file) if section.what == "claim"]


def figures_of(file: Path) -> list[str]:
    """Names of the figures that a file with claims draws."""
    return [section.name for section in read_sections(file) if section.what == "figure"]


def pictures_of(file: Path) -> str:
    """The stored figures of a file, of all models, for docs/RESULTS.md; nothing without any."""
    shown = []
    for name in figures_of(file):
        for model in tiny.MODELS:
            if (FIGURES / model / f"{name}.png").exists():
                shown.append(f"![{name} of {model}](figures/{model}/{name}.png)")
    return "\n".join(shown)


def test_text(section: Section) -> str:
    """`copies of batch_wise less those of static_transition, below 0`."""
    made: Any = section.made
    told = [made.about()]
    for name in BOUNDS:
        value = getattr(made, name) if name in flag_names(made) else None
        if value is not None:
            told.append(f"{name} {number_text(value)}")
    return ", ".join(told)


def stored(model: str) -> dict[str, dict]:
    """Claim -> what its test came to on a model; nothing where it was not tested."""
    file = tiny.EVALUATION / f"{model}_claims.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


@cache
def hours_of(file: Path) -> str:
    """Hours of one H100, of a file of Stable Diffusion."""
    asked = str(tables_of(file)[0].get("prompts", ""))
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.txt"
        prompts.write_text("a red lantern\n" * PROMPTS.get(asked, OFFICIAL), encoding="utf-8")
        out = Path(folder) / "runs"
        total = Total.of(costs_of(plan_sweep(file, out, prompts=str(prompts), quiet=True)))
    return hours_text(total.hours or 0)


def on_stable_diffusion(file: Path) -> str:
    """Commands that would decide there, with their hours."""
    texts = []
    for family in FAMILIES:
        other = file.with_name(f"{file.stem}{family}.toml")
        if other.exists():
            where = other.relative_to(ROOT).as_posix()
            texts.append(f"`python sweep.py {where}`, {hours_of(other)} hours of one H100")
    return "; ".join(texts) or "-"


@dataclass(frozen=True)
class ClaimLine:
    """A claim, and what became of it."""

    file: Path
    section: Section
    # Model -> its verdict and numbers, None where it was not tested.
    verdicts: dict[str, dict[str, Any] | None]

    @property
    def title(self) -> str:
        """Its heading."""
        return self.section.name.replace("_", " ").capitalize()

    @property
    def link(self) -> str:
        """What it says, linked to its heading in the same document."""
        return f"[{self.section.says}](#{self.title.lower().replace(' ', '-')})"


def every_claim() -> list[ClaimLine]:
    """In the order of the files."""
    known = {model: stored(model) for model in tiny.MODELS}
    found = []
    for file in embedded_files():
        for section in claims_of(file):
            verdicts = {model: of_model.get(section.name) for model, of_model in known.items()}
            found.append(ClaimLine(file, section, verdicts))
    return found


def summary() -> str:
    """A row a claim: its verdicts."""
    rows = []
    for claim in every_claim():
        row = {"claim": claim.link}
        for model, found in claim.verdicts.items():
            row[f"`{model}`"] = found["verdict"] if found else UNKNOWN
        rows.append(row)
    return markdown_table(rows)


def one_by_one() -> str:
    """A part a claim: its test, numbers, figures, and what would decide on Stable Diffusion."""
    parts = []
    shown = set()
    for claim in every_claim():
        lines = [f"### {claim.title}", "", claim.section.says, ""]
        lines.append(f"- Test: `{claim.file.name}`: {test_text(claim.section)}.")
        for model, found in claim.verdicts.items():
            text = f"{found['verdict']}; {found['numbers']}" if found else UNKNOWN
            lines.append(f"- `{model}`: {text}.")
        lines.append(f"- Stable Diffusion: {on_stable_diffusion(claim.file)}.")
        pictures = pictures_of(claim.file)
        if pictures and claim.file not in shown:
            lines += ["", pictures]
        shown.add(claim.file)
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


CLAIM_PARTS = {"claims": summary, "claims_one_by_one": one_by_one}
