"""`make setup`: the environment, a line a step. What pip says goes to a log in its folder.

Runs before anything is installed, so it imports nothing but Python's own library. What is done is
noted by the content of the requirements: a second run has nothing to do, one that was stopped goes
on at its step.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from memorization_suite import ROOT

REQUIREMENTS = ROOT / "requirements.txt"
DEVELOPMENT = ROOT / "requirements-dev.txt"
CLUSTER = ROOT / "requirements-cluster.txt"
STAMP = ".ready"
LOG = "setup.log"
LAST_LINES = 15
RESUME = "what is done stays. Rerun the command to resume."
# GB (2^30 bytes, as du and df count them), measured by `du -sh .venv` on Linux x86-64: all of it,
# and of it the packages torch, torchvision, triton, nvidia and cuda.
WITH_CUDA = 6.6
PAIR_WITH_CUDA = 5.3
# All without triton, nvidia and cuda: at least what a CPU build takes.
WITHOUT_CUDA = 2.5
# The wheels that the log of pip names, packed.
DOWNLOADS = 3.3
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")
INSTALL = (*PIP, "install", "--progress-bar", "off")


@dataclass(frozen=True)
class Step:
    """One call of pip."""

    # Its name in the stamp.
    name: str
    # What it depends on: it is done again when this changes.
    content: str
    title: str
    # pip install ...
    arguments: tuple[str, ...]
    # Package -> version, which are there afterward.
    pins: dict[str, str]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content.encode()).hexdigest()[:16]


# --- what is to be done


def read_pins(path: Path) -> dict[str, str]:
    """Package -> version of a requirements file, names as pip compares them."""
    pins = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("#")[0].strip().partition("==")
        if name:
            pins[name.lower().replace("_", "-")] = version
    return pins


def steps(pip_args: list[str], *, development: bool) -> list[Step]:
    """In their order."""
    pins = read_pins(REQUIREMENTS)
    pair = {name: pins[name] for name in ("torch", "torchvision")}
    pair_words = tuple(f"{name}=={version}" for name, version in pair.items())
    planned = [
        Step(
            "pair",
            content=" ".join(pair_words),
            title=pair_title(pair, pip_args),
            arguments=pair_words,
            pins=pair,
        ),
        Step(
            "packages",
            content=REQUIREMENTS.read_text(encoding="utf-8"),
            title=f"{len(pins) - len(pair)} more packages of requirements.txt",
            arguments=("-r", str(REQUIREMENTS)),
            pins=pins,
        ),
        Step(
            "checkout",
            content=(ROOT / "pyproject.toml").read_text(encoding="utf-8"),
            title="memorization_suite, from this folder",
            arguments=("--no-deps", "--editable", str(ROOT)),
            pins={},
        ),
    ]
    if development:
        planned += [extra("development", DEVELOPMENT), extra("cluster", CLUSTER)]
    return planned


def extra(name: str, requirements: Path) -> Step:
    """Installs what only some need. name: in the stamp."""
    pins = read_pins(requirements)
    return Step(
        name,
        content=requirements.read_text(encoding="utf-8"),
        title=f"{', '.join(pins)} of {requirements.name}",
        arguments=("-r", str(requirements)),
        pins=pins,
    )


def pair_title(pair: dict[str, str], pip_args: list[str]) -> str:
    """What is said of torch and torchvision: which build, and how large."""
    names = " and ".join(f"{name} {version}" for name, version in pair.items())
    if pip_args:
        return f"{names}: the builds that PIP_ARGS finds"
    if platform.system() == "Darwin":
        return f"{names}: the macOS builds, without CUDA"
    if not brings_cuda(pip_args):
        return names
    return (
        f"{names}: the CUDA builds, {PAIR_WITH_CUDA} GB (CPU builds: make setup "
        f'PIP_ARGS="--extra-index-url {CPU_INDEX}")'
    )


def brings_cuda(pip_args: list[str]) -> bool:
    """Whether the registry's torch is the CUDA build: on Linux, x86-64."""
    here = (platform.system(), platform.machine())
    return not pip_args and here == ("Linux", "x86_64")


def announcement(venv: Path, pip_args: list[str]) -> str:
    """How much disk, and how long: 3 minutes were measured on 2 idle cores."""
    size = f"{WITH_CUDA} GB of disk (torch is the CUDA build), {DOWNLOADS} GB to download"
    if pip_args:
        size = f"{WITHOUT_CUDA} to {WITH_CUDA} GB of disk, by the builds that PIP_ARGS finds"
    elif not brings_cuda(pip_args):
        size = f"{WITHOUT_CUDA} GB of disk"
    return f"Environment in {venv}: about {size}, about 3 minutes with a quick network"


def refusal(venv: Path, pip_args: list[str]) -> str:
    """One line when the free disk cannot hold the environment; empty when it can.

    pip's downloads lie elsewhere, or come from a cache, and are not counted.
    """
    place = venv.absolute()
    while not place.exists():
        place = place.parent
    whole = WITH_CUDA if brings_cuda(pip_args) else WITHOUT_CUDA
    needed = whole - size_of(venv)
    free = shutil.disk_usage(place).free / 2**30
    if free >= needed:
        return ""
    return (
        f"{needed:.1f} GB are needed and {free:.1f} GB are free in {place}: "
        "free some, or type make setup VENV=FOLDER with a folder on another disk"
    )


def size_of(folder: Path) -> float:
    """GB on disk, as du counts them."""
    total = 0
    for place, folders, names in os.walk(folder):
        for name in folders + names:
            total += getattr(os.lstat(os.path.join(place, name)), "st_blocks", 0) * 512
    return total / 2**30


# --- what is done


def python_of(venv: Path) -> Path:
    """The interpreter of an environment."""
    folder = "Scripts" if os.name == "nt" else "bin"
    return venv.absolute() / folder / "python"


def works(venv: Path) -> bool:
    """Whether the environment runs, is new enough, and has pip."""
    code = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    try:
        done = subprocess.run([python_of(venv), "-c", code], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def installed(venv: Path) -> dict[str, str]:
    """Package -> version, by the names of pip's folders."""
    packages = {}
    for place in ("lib/python*", "Lib"):
        for folder in venv.glob(f"{place}/site-packages/*.dist-info"):
            name, _, version = folder.stem.partition("-")
            packages[name.lower().replace("_", "-")] = version.partition("+")[0]
    return packages


def not_done(venv: Path, planned: list[Step]) -> list[Step]:
    """Steps whose content is new, or whose packages are not there."""
    if not python_of(venv).exists():
        return planned
    done = read_stamp(venv)
    here = installed(venv)
    todo = []
    for step in planned:
        if done.get(step.name) != step.digest or not step.pins.items() <= here.items():
            todo.append(step)
    return todo


def call(command: list[str], log: Path, title: str) -> bool:
    """Whether it succeeds; its output is added to the log.

    The command is not: PIP_ARGS may hold a password.
    """
    # The checkout is on PYTHONPATH under make: its folders are no packages of pip.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open(log, "a", encoding="utf-8") as file:
        print(f"--- {title}", file=file, flush=True)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
        )
    return done.returncode == 0


def read_stamp(venv: Path) -> dict[str, str]:
    """Name -> digest of the steps that are done; nothing where none are."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv: Path, stamp: dict[str, str]) -> None:
    """All of it or nothing."""
    half = venv / f"{STAMP}.part"
    half.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    half.replace(venv / STAMP)


def fault(what: str, log: Path, then: str = RESUME) -> int:
    """Says what failed, with the end of the log, and what to do. Returns the exit code."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines[-LAST_LINES:]:
        print(f"    {line[:200]}", file=sys.stderr)
    print(f"setup: {what} failed; all of the log: {log}", file=sys.stderr)
    print(f"setup: {then}", file=sys.stderr)
    return 1


def timed(title: str, work: Callable[[], bool]) -> bool:
    """Whether the work succeeds; prints the title, then its seconds on the same line."""
    print(f"  {title} ...", end="", flush=True)
    begin = time.monotonic()
    good = work()
    print(f" {time.monotonic() - begin:.0f} s" if good else " failed", flush=True)
    return good


def make_environment(venv: Path, todo: list[Step], pip_args: list[str]) -> int:
    """Does the steps. Returns the exit code."""
    log = venv.absolute() / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    was_there = (venv / "pyvenv.cfg").exists()
    if not works(venv):
        title = f"Python {platform.python_version()} and pip"
        command = [sys.executable, "-m", "venv", str(venv.absolute())]
        if not timed(title, lambda: call(command, log, title) and works(venv)):
            remove = f"{venv} holds an environment that this Python cannot mend: remove it"
            return fault(title, log, remove if was_there else RESUME)
    for step in todo:
        command = [str(python_of(venv)), *INSTALL, *pip_args, *step.arguments]
        if not timed(step.title, partial(call, command, log, step.title)):
            return fault(step.title.partition(":")[0], log)
        write_stamp(venv, read_stamp(venv) | {step.name: step.digest})
    return 0


def setup(venv: Path, pip_args: list[str], *, development: bool, quiet: bool) -> int:
    """Makes the environment, or what of it is not there. Returns the exit code."""
    todo = not_done(venv, steps(pip_args, development=development))
    if not todo:
        if not quiet:
            print(f"The environment in {venv} is ready. Next: make demo")
        return 0
    if "packages" in read_stamp(venv):
        print(f"Environment in {venv}: brought up to date")
    else:
        print(announcement(venv, pip_args), flush=True)
        refused = refusal(venv, pip_args)
        if refused:
            print(f"setup: {refused}", file=sys.stderr)
            return 1
    code = make_environment(venv, todo, pip_args)
    if code == 0 and not quiet:
        print(f"Ready: {size_of(venv):.1f} GB. Next: make demo, or make doctor")
    return code


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "python -m memorization_suite setup", description="Makes the environment of this checkout."
    )
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="folder (default .venv)")
    parser.add_argument("--dev", action="store_true", help="also what tests and linters need")
    parser.add_argument("--quiet", action="store_true", help="no word when all is there")
    parser.add_argument("pip_args", nargs="*", help="after --: arguments for every call of pip")
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    args = build_parser().parse_args(argv)
    if not DEVELOPMENT.exists():
        print(f"setup: this is no checkout; type: pip install -r {REQUIREMENTS}", file=sys.stderr)
        return 1
    try:
        return setup(args.venv, args.pip_args, development=args.dev, quiet=args.quiet)
    except KeyboardInterrupt:
        print("\nsetup: interrupted. Rerun the command to resume.", file=sys.stderr)
    except OSError as error:
        print(f"setup: {error}", file=sys.stderr)
    return 1
