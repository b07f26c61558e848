"""Every figure, table and verdict of the embedded models from nothing, beside the stored ones.

python -m experiments.reproduce             # all of it, in many hours on two cores; it resumes
python -m experiments.reproduce --quick     # a subset on `tiny`, in about 20 minutes
python -m experiments.reproduce --store     # keeps what docs/RESULTS.md shows, if nothing failed

Files of experiments/ that end in _sd1 or _sd2 are left out. The exit code is 1 where a number lies
outside the stored interval, or a verdict is another one. A quick run has too few images to be
compared: it fails only where something cannot be made.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization_suite import ROOT, tiny
from memorization_suite.commands.sweeps.file import tables_of
from memorization_suite.experiments.claim_tables import (
    FIGURES,
    claims_of,
    embedded_files,
    figures_of,
)
from memorization_suite.experiments.common import parser
from memorization_suite.experiments.evidence.write import FOLDER
from memorization_suite.runs.cli import command
from memorization_suite.runs.files import write_json
from memorization_suite.runs.text import counted, table_text

# Measurements that have stored figures of their own.
MEASUREMENTS = ("evaluate_tiny", "initial_noise", "compare_methods", "compare_detectors")
# Memory of the methods, which table3.toml reads there, of the model whose turn it is.
MEMORY = ("experiments.cost", "--methods", "all")
# The subset: file -> flags that make it small.
QUICK = {
    "figure1": [],
    "figure3": ["--end", "12"],
    "figure10": ["--end", "12", "-n", "2"],
    "figure4": ["--end", "40", "-n", "1"],
    "figure6": ["--end", "12"],
    "table1": ["--end", "20", "-n", "2"],
    "reached": ["--end", "20", "-n", "2"],
    "ordinary": ["--end", "12", "-n", "2"],
}
# Of a number with its interval, in figures and in verdicts.
INTERVALS = (("mean", "low", "high"), ("value", "low", "high"))
ROUNDING = 1e-6
# How far a number without an interval may lie from the stored one: so much, so many if it counts
# images, or such a share of it. Machines round otherwise, which moves single images across a
# threshold; the smallest shares are of 20.
SLACK = 0.1
COUNT = 5
SHARE = 0.1
# Of keys that are ends of intervals.
ENDS = ("_low", "_high")
# Of a row in a list.
ROW_NAMES = ("method", "detector")


@dataclass(frozen=True)
class Difference:
    """Where something is not as it is stored."""

    where: str
    stored: str
    made: str


def differences(stored: Any, made: Any, where: str = "") -> Iterator[Difference]:
    """Numbers outside the stored intervals, or without one further away than `SLACK` and `SHARE`
    allow; other verdicts; what is missing. Seconds and texts are not compared.
    """
    if isinstance(stored, Mapping):
        if not isinstance(made, Mapping):
            yield Difference(where, "a table", "nothing")
            return
        names = next((names for names in INTERVALS if stored.keys() >= {*names}), None)
        if names:
            yield from outside(names[0], stored, made, where)
            return
        for name, value in stored.items():
            if f"{name}_low" in stored:
                yield from outside(name, stored, made, f"{where}/{name}")
            elif "seconds" not in name and not name.endswith(ENDS):
                yield from differences(value, made.get(name), f"{where}/{name}")
        if "verdict" in stored and stored["verdict"] != made.get("verdict"):
            yield Difference(where, str(stored["verdict"]), str(made.get("verdict")))
    elif isinstance(stored, list):
        rows = by_name(made if isinstance(made, list) else [])
        for name, value in by_name(stored).items():
            yield from differences(value, rows.get(name), f"{where}/{name}")
    elif isinstance(stored, int | float):
        if not isinstance(made, int | float):
            yield Difference(where, f"{stored:g}", "nothing")
        elif not is_near(stored, made):
            yield Difference(where, f"{stored:g}, about", f"{made:g}")


def is_near(stored: float, made: float) -> bool:
    """Whether a number without an interval is about the stored one."""
    slack = COUNT if isinstance(stored, int) and isinstance(made, int) else SLACK
    return abs(made - stored) <= max(slack, SHARE * abs(stored))


def by_name(rows: Sequence[Any]) -> dict[str, Any]:
    """Rows by what they are of, so that their order does not matter; else by their place."""
    named = {}
    for place, row in enumerate(rows):
        names = [row[key] for key in ROW_NAMES if key in row] if isinstance(row, Mapping) else []
        named[names[0] if names else str(place)] = row
    return named


def outside(name: str, stored: Mapping, made: Mapping, where: str) -> Iterator[Difference]:
    """A number that is not in the stored interval, or without one not near the stored one."""
    low, high = ends_of(name, stored)
    middle, found = stored[name], made.get(name)
    if middle is None or found is None:
        if middle is not found:
            yield Difference(where, str(middle), str(found))
        return
    if low is None or high is None or math.isnan(low):
        if not is_near(middle, found):
            yield Difference(where, f"{middle:g}, about", f"{found:g}")
    elif not low - ROUNDING <= found <= high + ROUNDING:
        yield Difference(where, f"{middle:g} [{low:g}, {high:g}]", f"{found:g}")


def ends_of(name: str, stored: Mapping) -> tuple[float | None, float | None]:
    """Both ends of a number's interval."""
    own = "low" if name in ("mean", "value") else f"{name}_low"
    return stored[own], stored[own.replace("low", "high")]


def sweep_command(file: Path, model: str, out: Path, flags: Sequence[str]) -> list[str]:
    """What is typed for one file and model."""
    words = [sys.executable, "sweep.py", str(file.relative_to(ROOT)), "--model_id", model]
    prompts = tables_of(file)[0].get("prompts")
    if prompts:  # of `tiny`
        words += ["--prompts", str(prompts).replace("tiny_", f"{model}_")]
    return [*words, "--output_path", str(out / model / file.stem), "--quiet", *flags]


def sweep_title(file: Path, model: str) -> str:
    """What a file's sweep is called where it could not be made."""
    return f"{file.stem} on {model}"


def run(words: Sequence[str]) -> bool:
    """Whether a command ended well."""
    print(f"$ {' '.join(words)}", flush=True)
    return subprocess.run(words, cwd=ROOT).returncode == 0


def gather(out: Path, model: str, failed: Sequence[str] = ()) -> dict[str, dict]:
    """The verdicts of a model's sweeps, without those that are there from earlier.

    failed: what `make` could not make.
    """
    found: dict[str, dict] = {}
    for experiment in embedded_files():
        file = out / model / experiment.stem / FOLDER / "claims.json"
        if file.exists() and sweep_title(experiment, model) not in failed:
            found |= json.loads(file.read_text(encoding="utf-8"))
    (out / model).mkdir(parents=True, exist_ok=True)
    write_json(out / model / "claims.json", found)
    return found


def compare(model: str, figures: Path, claims: Mapping[str, dict]) -> list[Difference]:
    """Everything stored of a model, beside what was made. figures: folder of the new ones."""
    found: list[Difference] = []
    for file in sorted(tiny.EVALUATION.glob(f"{model}*.json")):
        if file.stem not in {model, *(f"{model}_{name}" for name in STORED)}:
            continue
        stored = json.loads(file.read_text(encoding="utf-8"))
        new = figures / file.name
        made = json.loads(new.read_text(encoding="utf-8")) if new.exists() else None
        made = dict(claims) if file.stem == f"{model}_claims" else made
        found += differences(stored, made, file.stem)
    return found


# Names of stored figures behind the model's.
STORED = ("initial_noise", "methods", "detectors", "claims")


def keep_figures(out: Path, model: str) -> None:
    """Stores the figures of a model's claims for RESULTS.md."""
    folder = FIGURES / model
    folder.mkdir(parents=True, exist_ok=True)
    for file in filter(claims_of, embedded_files()):
        for name in figures_of(file):
            picture = out / model / file.stem / FOLDER / f"{name}.png"
            if picture.exists():
                shutil.copyfile(picture, folder / picture.name)


def make(out: Path, *, quick: bool) -> list[str]:
    """Makes everything; returns what could not be made."""
    failed = []
    for model in ["tiny"] if quick else tiny.MODELS:
        memory = [*MEMORY, "--model_id", model, "--out", f"build/cost/{model}"]
        if not quick and not run([sys.executable, "-m", *memory]):
            failed.append(f"{MEMORY[0]} on {model}")
        for file in embedded_files():
            flags = QUICK.get(file.stem) if quick else []
            if flags is not None and not run(sweep_command(file, model, out, flags)):
                failed.append(sweep_title(file, model))
        for name in () if quick else MEASUREMENTS:
            places = ["--out", str(out / model / name), "--figures", str(out / model / "figures")]
            module = f"experiments.{name}"
            if not run([sys.executable, "-m", module, "--model_id", model, *places]):
                failed.append(f"{name} on {model}")
    return failed


def main() -> int:
    """The command line."""
    flags = parser(__doc__)
    flags.add_argument("--quick", action="store_true", help="a subset, few images")
    flags.add_argument("--store", action="store_true", help="keep verdicts and figures")
    flags.add_argument("--out", type=Path, help="default: reproduced, or reproduced_quick")
    args = flags.parse_args()
    if args.quick and args.store:
        raise ValueError("--quick has too few images for verdicts: leave --store out")
    out = (args.out or Path("reproduced_quick" if args.quick else "reproduced")).resolve()
    failed = make(out, quick=args.quick)
    for what in failed:
        print(f"not made: {what}", file=sys.stderr)
    if args.quick:
        print(f"{counted(len(QUICK), 'file')} made in {out}; too few images to be compared")
        return int(bool(failed))
    apart = []
    for model in tiny.MODELS:
        claims = gather(out, model, failed)
        apart += compare(model, out / model / "figures", claims)
        if args.store and not failed:
            write_json(tiny.EVALUATION / f"{model}_claims.json", claims)
            keep_figures(out, model)
    if apart:
        print(table_text([vars(each) for each in apart]))
    print(f"{counted(len(apart), 'number')} beyond the stored interval, {len(failed)} not made")
    return int(bool(apart or failed))


if __name__ == "__main__":
    sys.exit(command("experiments.reproduce", main))
