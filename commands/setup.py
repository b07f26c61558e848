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
STAMP = ".ready"
LOG = "setup.log"
LAST_LINES = 12
# GB of disk. Measured with du on Linux x86-64, Python 3.11: the whole environment, and the pair of
# torch and torchvision with the CUDA libraries and triton that they bring.
WITH_CUDA = 6.6
PAIR_WITH_CUDA = 5.3
# The same without NVIDIA's libraries and triton: more than a CPU build takes.
WITHOUT_CUDA = 2.6
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
    pair = [f"{name}=={pins[name]}" for name in ("torch", "torchvision")]
    planned = [
        Step("pair", " ".join(pair), pair_title(pair, pip_args), tuple(pair)),
        Step(
            "packages",
            REQUIREMENTS.read_text(encoding="utf-8"),
            f"{len(pins) - len(pair)} more packages of requirements.txt",
            ("-r", str(REQUIREMENTS)),
        ),
        Step(
            "checkout",
            (ROOT / "pyproject.toml").read_text(encoding="utf-8"),
            "memorization_suite, from this folder",
            ("--no-deps", "--editable", str(ROOT)),
        ),
    ]
    if development:
        title = f"{', '.join(read_pins(DEVELOPMENT))} of requirements-dev.txt"
        arguments = ("-r", str(DEVELOPMENT), "-c", str(REQUIREMENTS))
        content = DEVELOPMENT.read_text(encoding="utf-8")
        planned.append(Step("development", content, title, arguments))
    return planned


def pair_title(pair: list[str], pip_args: list[str]) -> str:
    """What is said of torch and torchvision: which build, and how large."""
    names = " and ".join(pair).replace("==", " ")
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
    """How much disk, and how long: about 3 minutes on 2 cores with a quick network."""
    size = f"{WITH_CUDA} GB of disk (torch is the CUDA build)"
    if pip_args:
        size = f"{WITHOUT_CUDA} to {WITH_CUDA} GB of disk, by the builds that PIP_ARGS finds"
    elif not brings_cuda(pip_args):
        size = f"{WITHOUT_CUDA} GB of disk"
    return f"Environment in {venv}: about {size}, about 3 minutes with a quick network"


def refusal(venv: Path, pip_args: list[str]) -> str:
    """One line when the free disk is not enough; empty when it is."""
    place = venv.absolute()
    while not place.exists():
        place = place.parent
    whole = WITH_CUDA if brings_cuda(pip_args) else WITHOUT_CUDA
    needed = whole - size_of(venv)
    free = shutil.disk_usage(place).free / 1e9
    if free >= needed:
        return ""
    return (
        f"{needed:.1f} GB are needed and {free:.1f} GB are free in {place}: "
        "free some, or type make setup VENV=FOLDER with a folder on another disk"
    )


def size_of(folder: Path) -> float:
    """GB of its files."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(os.path.join(place, name)).st_size
    return total / 1e9


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


def call(command: list[str], log: Path) -> bool:
    """Whether it succeeds; its output is added to the log."""
    # The checkout is on PYTHONPATH under make: its folders are no packages of pip.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open(log, "a", encoding="utf-8") as file:
        print("$", *command, file=file, flush=True)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
        )
    return done.returncode == 0


def read_stamp(venv: Path) -> dict[str, str]:
    """Name -> digest of the steps that are done; nothing where none are."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv: Path, stamp: dict[str, str]) -> None:
    """All of it or nothing."""
    half = venv / f"{STAMP}.part"
    half.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    half.replace(venv / STAMP)


def fault(what: str, log: Path) -> int:
    """Says what failed, with the end of the log. Returns the exit code."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines[-LAST_LINES:]:
        print(f"    {line}", file=sys.stderr)
    print(f"setup: {what} failed; all of the log: {log}", file=sys.stderr)
    print("setup: what is done stays. Rerun the command to resume.", file=sys.stderr)
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
    if not works(venv):
        title = f"Python {platform.python_version()} and pip"
        command = [sys.executable, "-m", "venv", str(venv.absolute())]
        if not timed(title, lambda: call(command, log) and works(venv)):
            return fault(f"the environment (if it is a broken one, remove {venv})", log)
    for step in todo:
        command = [str(python_of(venv)), *INSTALL, *pip_args, *step.arguments]
        if not timed(step.title, partial(call, command, log)):
            return fault(step.title.partition(":")[0], log)
        write_stamp(venv, read_stamp(venv) | {step.name: step.digest})
    return 0


def setup(venv: Path, pip_args: list[str], *, development: bool, quiet: bool) -> int:
    """Makes the environment, or what of it is not there. Returns the exit code."""
    done = read_stamp(venv) if python_of(venv).exists() else {}
    planned = steps(pip_args, development=development)
    todo = [step for step in planned if done.get(step.name) != step.digest]
    if not todo:
        if not quiet:
            print(f"The environment in {venv} is ready. Next: make demo")
        return 0
    if "packages" in done:
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
    try:
        return setup(args.venv, args.pip_args, development=args.dev, quiet=args.quiet)
    except KeyboardInterrupt:
        print("\nsetup: interrupted. Rerun the command to resume.", file=sys.stderr)
    except OSError as error:
        print(f"setup: {error}", file=sys.stderr)
    return 1
