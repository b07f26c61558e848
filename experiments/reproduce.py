"""Every figure, table and verdict of the embedded models from nothing, beside the stored ones.

python -m experiments.reproduce             # all of it, in many hours on two cores; it resumes
python -m experiments.reproduce --quick     # a subset on `tiny`, in about 20 minutes
python -m experiments.reproduce --model_id tiny --only figure4 table1    # some of it
python -m experiments.reproduce --store     # keeps what docs/RESULTS.md shows, if nothing failed

Files of experiments/ that end in _sd1 or _sd2 are left out. The exit code is 1 where a number lies
outside the stored interval, or a verdict is another one. A quick run has too few images to be
compared: it fails only where something cannot be made.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from memorization_suite import ROOT, tiny
from memorization_suite.commands.sweeps.file import tables_of
from memorization_suite.experiments.claim_tables import (
    FIGURES,
    claims_of,
    embedded_files,
    figures_of,
    stored,
)
from memorization_suite.experiments.common import parser
from memorization_suite.experiments.evidence.moved import Difference, differences
from memorization_suite.experiments.evidence.write import FOLDER
from memorization_suite.runs.cli import command
from memorization_suite.runs.files import write_json
from memorization_suite.runs.text import counted, table_text

# Measurements that have stored figures of their own -> their name behind the model's.
MEASUREMENTS = {
    "evaluate_tiny": "",
    "late_guidance": "_late_guidance",
    "initial_noise": "_initial_noise",
    "compare_methods": "_methods",
    "compare_detectors": "_detectors",
}
# Memory of the methods, which table3.toml reads there, of the model whose turn it is.
MEMORY = "cost"
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


def names() -> list[str]:
    """What there is to make of a model, in this order."""
    return [MEMORY, *(file.stem for file in embedded_files()), *MEASUREMENTS]


# --- making


@dataclass(frozen=True)
class Job:
    """A command that makes one thing of one model."""

    name: str
    model: str
    words: list[str]

    def __str__(self) -> str:
        return f"{self.name} on {self.model}"

    def run(self) -> bool:
        """Whether the command ended well."""
        print(f"$ {' '.join(self.words)}", flush=True)
        return subprocess.run(self.words, cwd=ROOT).returncode == 0


def jobs_of(model: str, out: Path, only: Collection[str]) -> list[Job]:
    """Everything of a model that is wanted, in order."""
    files = {file.stem: file for file in embedded_files()}
    jobs = []
    for name in names():
        if name not in only:
            continue
        if name in files:
            words = sweep_command(files[name], model, out)
        else:
            words = measurement_command(name, model, out)
        jobs.append(Job(name, model, [sys.executable, *words]))
    return jobs


def quick_jobs(out: Path) -> list[Job]:
    """The subset."""
    jobs = jobs_of("tiny", out, QUICK)
    return [Job(job.name, job.model, [*job.words, *QUICK[job.name]]) for job in jobs]


def sweep_command(file: Path, model: str, out: Path) -> list[str]:
    """What is typed for one file and model, behind the name of Python."""
    words = ["sweep.py", str(file.relative_to(ROOT)), "--model_id", model]
    prompts = tables_of(file)[0].get("prompts")
    if prompts:  # of `tiny`
        words += ["--prompts", str(prompts).replace("tiny_", f"{model}_")]
    return [*words, "--output_path", str(out / model / file.stem), "--quiet"]


def measurement_command(name: str, model: str, out: Path) -> list[str]:
    """The same of memory or a measurement."""
    words = ["-m", f"experiments.{name}", "--model_id", model]
    if name == MEMORY:
        return [*words, "--methods", "all", "--out", f"build/cost/{model}"]
    figures = str(out / model / "figures")
    return [*words, "--out", str(out / model / name), "--figures", figures]


# --- beside what is stored


def claim_names(only: Collection[str]) -> set[str]:
    """Claims of these files."""
    files = [file for file in embedded_files() if file.stem in only]
    return {section.name for file in files for section in claims_of(file)}


def gather(out: Path, model: str, made: Collection[str]) -> dict[str, dict]:
    """The verdicts of what was made of a model, without those that are there from earlier."""
    found: dict[str, dict] = {}
    for experiment in embedded_files():
        file = out / model / experiment.stem / FOLDER / "claims.json"
        if experiment.stem in made and file.exists():
            found |= json.loads(file.read_text(encoding="utf-8"))
    (out / model).mkdir(parents=True, exist_ok=True)
    write_json(out / model / "claims.json", found)
    return found


def compare(
    model: str, figures: Path, claims: Mapping[str, dict], only: Collection[str]
) -> list[Difference]:
    """What is stored of a model and wanted, beside what was made. figures: folder of the new
    ones.
    """
    found: list[Difference] = []
    for name, ending in MEASUREMENTS.items():
        file = tiny.EVALUATION / f"{model}{ending}.json"
        if name in only and file.exists():
            new = figures / file.name
            made = json.loads(new.read_text(encoding="utf-8")) if new.exists() else None
            found += differences(json.loads(file.read_text(encoding="utf-8")), made, file.stem)
    wanted = claim_names(only)
    known = {name: claim for name, claim in stored(model).items() if name in wanted}
    return [*found, *differences(known, claims, f"{model}_claims")]


def store(out: Path, model: str, claims: Mapping[str, dict], only: Collection[str]) -> None:
    """Keeps the verdicts and the figures of their files for docs/RESULTS.md; those of other files
    stay.
    """
    others = claim_names(names()) - claim_names(only)
    kept = {name: claim for name, claim in stored(model).items() if name in others}
    write_json(tiny.EVALUATION / f"{model}_claims.json", kept | dict(claims))
    folder = FIGURES / model
    folder.mkdir(parents=True, exist_ok=True)
    for file in embedded_files():
        for name in figures_of(file) if file.stem in only and claims_of(file) else ():
            picture = out / model / file.stem / FOLDER / f"{name}.png"
            if picture.exists():
                shutil.copyfile(picture, folder / picture.name)


def main() -> int:
    """The command line."""
    flags = parser(__doc__)
    flags.add_argument("--quick", action="store_true", help="a subset, few images")
    flags.add_argument("--store", action="store_true", help="keep verdicts and figures")
    flags.add_argument("--model_id", choices=list(tiny.MODELS), help="one model; else both")
    flags.add_argument(
        "--only", nargs="+", choices=names(), metavar="NAME", help=f"some of {', '.join(names())}"
    )
    flags.add_argument("--out", type=Path, help="default: reproduced, or reproduced_quick")
    args = flags.parse_args()
    if args.quick and (args.store or args.only or args.model_id):
        raise ValueError("--quick is a fixed subset: leave --store, --only and --model_id out")
    out = (args.out or Path("reproduced_quick" if args.quick else "reproduced")).resolve()
    models = [args.model_id] if args.model_id else list(tiny.MODELS)
    only = args.only or names()
    jobs = [job for model in models for job in jobs_of(model, out, only)]
    if args.quick:
        jobs = quick_jobs(out)
    failed = [job for job in jobs if not job.run()]
    for job in failed:
        print(f"not made: {job}", file=sys.stderr)
    if args.quick:
        print(f"{counted(len(jobs), 'file')} made in {out}; too few images to be compared")
        return int(bool(failed))
    apart = []
    for model in models:
        made = [job.name for job in jobs if job.model == model and job not in failed]
        claims = gather(out, model, made)
        apart += compare(model, out / model / "figures", claims, only)
        if args.store and not failed:
            store(out, model, claims, only)
    if apart:
        print(table_text([vars(each) for each in apart]))
    print(f"{counted(len(apart), 'number')} beyond the stored interval, {len(failed)} not made")
    return int(bool(apart or failed))


if __name__ == "__main__":
    sys.exit(command("experiments.reproduce", main))
