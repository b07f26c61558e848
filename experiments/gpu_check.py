"""Whether the suite is right on this machine's GPU: `make gpu-check`, a few minutes, no download.

Every method, detector and command runs on the embedded models in fp32, bf16 and fp16, and is
compared with the CPU in fp32 (the tolerances stand in experiments/device_checks.py). One line a
failure, one line at the end; exit code 0: all passed, 1: something differed, 2: it could not begin.

python -m experiments.gpu_check                             # on CUDA
python -m experiments.gpu_check --device cpu --only resume  # a part, on the CPU
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from memorization_suite.commands.setup import REQUIREMENTS, read_pins
from memorization_suite.experiments.common import parser
from memorization_suite.runs.environment import calm_threads
from memorization_suite.runs.library_warnings import heard
from memorization_suite.runs.progress import Progress

if TYPE_CHECKING:
    from memorization_suite.experiments.device_checks import Check

PROG = "gpu-check"
# Without these nothing runs; what needs another package is skipped where it is missing.
NEEDED = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pillow")
# Of the whole on a data-center GPU; past it nothing more is begun.
BUDGET = 300.0
# Of one check, in seconds.
LONGEST = 90.0


@dataclass
class Outcome:
    """What came of the checks."""

    passed: int = 0
    # A line each.
    failed: list[str] = field(default_factory=list)
    # Check -> the module that it needs.
    skipped: dict[str, str] = field(default_factory=dict)
    # Names of those that were not begun in time.
    left: list[str] = field(default_factory=list)

    def line(self, where: str, seconds: float) -> str:
        """The last line."""
        total = self.passed + len(self.failed)
        text = f"{total} checks passed"
        if self.failed:
            text = f"{len(self.failed)} of {total} failed"
        text += f" on {where} in {seconds:.0f} s"
        if self.skipped:
            modules = ", ".join(sorted(set(self.skipped.values())))
            text += f"; {len(self.skipped)} skipped, which need {modules}"
        if self.left:
            text += f"; {len(self.left)} not begun within {BUDGET:.0f} s"
        return f"{PROG}: {text}"


# --- packages ---


def missing_packages() -> tuple[list[str], list[str]]:
    """Pinned packages that are not installed, and those of another version with the pin."""
    missing = []
    others = []
    for name, pinned in read_pins(REQUIREMENTS).items():
        try:
            found = version(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        if found.partition("+")[0] != pinned:
            others.append(f"{name} {found} ({pinned})")
    return missing, others


def say_packages() -> bool:
    """One line when the environment is not the pinned one. Returns whether the checks can run."""
    missing, others = missing_packages()
    told = []
    if missing:
        told.append(f"not installed: {', '.join(missing)}")
    if others:
        told.append(f"of another version (pinned): {', '.join(others)}")
    if told:
        print(f"{PROG}: {'; '.join(told)}", file=sys.stderr)
    lacking = [name for name in NEEDED if name in missing]
    if lacking:
        print(f"{PROG}: nothing runs without {', '.join(lacking)}: pip install them, or make setup")
    return not lacking


# --- one check ---


class TooLong(BaseException):
    """Not caught by what is checked."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TooLong in the block after so many seconds."""

    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fault_of(work: Callable[[], None], log: io.TextIOBase, seconds: float) -> BaseException | None:
    """What the work raised. What it prints goes to the log."""
    try:
        with redirect_stdout(log), redirect_stderr(log), at_most(seconds):
            work()
    except (Exception, SystemExit, TooLong) as error:
        traceback.print_exc(file=log)
        return error
    return None


def told(error: BaseException, seconds: float) -> str:
    """A fault in a line."""
    from memorization_suite.experiments.device_checks import Differs

    if isinstance(error, TooLong):
        return f"took more than {seconds:g} s"
    text = " ".join(str(error).split())
    if isinstance(error, Differs):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text[:300]} ({Path(place.filename).name}:{place.lineno})"


def needed_module(error: BaseException | None) -> str:
    """The module whose package is not installed; empty when the fault is another."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            module = error.name.partition(".")[0]
            return "" if importlib.util.find_spec(module) else module
        error = error.__cause__ or error.__context__
    return ""


def run(checks: Sequence[Check], log: io.TextIOBase, *, budget: float, longest: float) -> Outcome:
    """Does the checks one after the other; a fault of one does not end the others.

    budget: seconds after which nothing more is begun. longest: of one check, in seconds.
    """
    outcome = Outcome()
    start = time.monotonic()
    for check in checks:
        if check.begin:
            check.begin()
    with Progress(f"{len(checks)} checks", len(checks), unit="check", drawn=False) as progress:
        for check in checks:
            if time.monotonic() - start > budget:
                outcome.left.append(check.name)
                continue
            do(check, log, outcome, longest)
            progress.update(1)
    return outcome


def do(check: Check, log: io.TextIOBase, outcome: Outcome, longest: float) -> None:
    """Does one check, and notes what came of it."""
    print(f"--- {check.name}", file=log, flush=True)
    begun = time.monotonic()
    error = fault_of(check.work, log, longest)
    print(f"--- {time.monotonic() - begun:.2f} s", file=log, flush=True)
    module = needed_module(error)
    if error is None:
        outcome.passed += 1
    elif module:
        outcome.skipped[check.name] = module
    else:
        outcome.failed.append(f"{check.name}: {told(error, longest)}")
        print(f"FAILED {outcome.failed[-1]}", flush=True)


# --- the command ---


def build_parser() -> argparse.ArgumentParser:
    """Its flags."""
    made = parser(__doc__)
    made.prog = PROG
    made.add_argument("--device", default="cuda", help="cpu: all of it on the CPU, in many minutes")
    made.add_argument("--only", metavar="PATTERN", help="checks whose name has this: bf16/method")
    made.add_argument("--list", action="store_true", help="the names of the checks")
    made.add_argument("--keep", action="store_true", help="leave the folder with what was made")
    return made


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    args = build_parser().parse_args(argv)
    calm_threads()
    if not say_packages():
        return 2
    fault = device_fault(args.device)
    if fault:
        print(f"{PROG}: {fault}")
        return 2
    from memorization_suite.experiments import device_checks

    folder = Path(tempfile.mkdtemp(prefix="gpu_check_"))
    bench = device_checks.Bench(folder, args.device)
    checks = list(device_checks.checks(bench))
    if args.only:
        checks = [check for check in checks if re.search(args.only, check.name)]
    if args.list or not checks:
        shutil.rmtree(folder)
        print("\n".join(check.name for check in checks) or f"{PROG}: no check has {args.only!r}")
        return 0 if checks else 2
    return checked(bench, checks, keep=args.keep)


def device_fault(device: str) -> str:
    """Why nothing can run there; empty if it can."""
    import torch

    if device == "cpu":
        return ""
    if torch.device(device).type != "cuda":
        return f"--device {device} is neither cuda nor cpu"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU here; --device cpu runs on the CPU"
    return ""


def checked(bench, checks: Sequence[Check], *, keep: bool) -> int:
    """Does the checks and says what came of them. Returns the exit code."""
    import torch

    torch.set_num_threads(1)  # as other processes have, for the same bytes
    start = time.monotonic()
    on_cpu = bench.device == "cpu"
    limits = {"budget": BUDGET, "longest": LONGEST}
    if on_cpu:
        limits = {"budget": float("inf"), "longest": 10 * LONGEST}
    name = "the CPU" if on_cpu else torch.cuda.get_device_name(bench.device)
    try:
        with open(bench.folder / "log.txt", "w", encoding="utf-8") as log, heard():
            outcome = run(checks, log, **limits)
    finally:
        bench.close()
    is_good = not outcome.failed and not outcome.left
    if is_good and not keep:
        shutil.rmtree(bench.folder, ignore_errors=True)
    else:
        print(f"what was made, and log.txt: {bench.folder}")
    where = f"{name} (torch {torch.__version__})"
    print(outcome.line(where, time.monotonic() - start))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
