"""`make doctor`: what this machine has, what is missing, and what gets it; a line each.

It runs on a bare Python too. What metrics need is asked of the metrics, and where it comes from of
download/assets.toml.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import struct
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from memorization_suite import ROOT, tiny
from memorization_suite.commands.setup import CLUSTER, DEVELOPMENT, REQUIREMENTS, read_pins
from memorization_suite.download.assets import Asset, our_assets
from memorization_suite.metrics.base import METRICS, Job, Metric, Scoring
from memorization_suite.metrics.runs import GROUND_TRUTH, Run
from memorization_suite.pipelines.models import resolve_model
from memorization_suite.runs.cli import Parser, command
from memorization_suite.runs.library_warnings import FOR_PROGRAMMERS, show
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.pointers import is_pointer
from memorization_suite.runs.settings import flags

PROG = "python -m memorization_suite doctor"
IN_CHECKOUT = DEVELOPMENT.exists()
# Of the second column.
WIDTH = 25
PART = "a part of"
# Programs that some part uses -> which.
PROGRAMS = {
    "make": "the targets of the Makefile; python -m memorization_suite works without",
    "git": "config.json of a run names the commit",
    "chromium": "tests of the page open it there",
}


@dataclass(frozen=True)
class Finding:
    """A line."""

    # ok, missing, broken, differs
    mark: str
    what: str
    text: str
    # Whether the embedded models do not run because of it.
    stops: bool = False

    def __str__(self) -> str:
        return f"{self.mark:<7}  {self.what:<{WIDTH}}  {self.text}"


# --- the machine


def machine(root: Path) -> Iterator[Finding]:
    """Python, the suite, packages, torch, device, disk."""
    yield Finding("ok", "Python", f"{platform.python_version()}, {sys.executable}")
    yield suite(Path(sysconfig.get_path("purelib")))
    yield packages("packages", REQUIREMENTS, install(), stops=True)
    yield from torch_and_device()
    yield Finding("ok", "disk", f"{gigabytes(shutil.disk_usage(root).free)} free in {root}")


def suite(site_packages: Path) -> Finding:
    """Which files are the suite. A copy beside the packages would be found before a checkout."""
    copy = site_packages / "memorization_suite"
    if IN_CHECKOUT and (copy / "__init__.py").is_file():
        text = f"{copy} is a copy that scripts would use instead of {ROOT}; {install()}"
        return Finding("broken", "suite", text, True)
    return Finding("ok", "suite", str(ROOT))


def packages(what: str, requirements: Path, mend: str, *, stops: bool) -> Finding:
    """Whether the pins of a file are installed. mend: what installs them."""
    pins = read_pins(requirements)
    missing = []
    other = []
    for name, pinned in pins.items():
        found = installed(name)
        if not found:
            missing.append(name)
        elif found.partition("+")[0] != pinned:
            other.append(f"{name} {found} (pinned {pinned})")
    if missing:
        text = f"{len(missing)} of {len(pins)} are not installed: {', '.join(missing)}"
        more = f"; of another version: {', '.join(other)}" if other else ""
        return Finding("missing", what, f"{text}{more}; {mend}", stops)
    if other:
        text = f"of another version than pinned: {', '.join(other)}; {mend}"
        return Finding("differs", what, text)
    return Finding("ok", what, f"{len(pins)}, all as pinned in {requirements.name}")


def installed(name: str) -> str:
    """Version of a package; empty when it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def install() -> str:
    """What installs the pinned packages."""
    return "make setup" if IN_CHECKOUT else f"pip install -r {REQUIREMENTS}"


def install_again() -> str:
    """What puts torch and torchvision in place of broken ones."""
    pins = read_pins(REQUIREMENTS)
    pair = " ".join(f"{name}=={pins[name]}" for name in ("torch", "torchvision"))
    return f"{sys.executable} -m pip install --force-reinstall --no-deps {pair}"


def torch_and_device() -> Iterator[Finding]:
    """torch with its build, and what it computes on."""
    if find_spec("torch") is None:
        yield Finding("missing", "torch", install(), stops=True)
        yield Finding("ok", "device", processor())
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            torch = importlib.import_module("torch")
            gpus = list(graphics(torch))
        except Exception as error:  # whatever a library that does not fit raises
            told = str(error).splitlines() or [type(error).__name__]
            yield Finding("broken", "torch", f"{told[0]}; {install_again()}", stops=True)
            return
    yield Finding("ok", "torch", f"{torch.__version__}, {build(torch)}")
    driver = []
    for warning in caught:
        reason = str(warning.message).splitlines()[0]
        if "CUDA" in reason and not gpus:
            driver.append(reason)
        elif not issubclass(warning.category, FOR_PROGRAMMERS):
            show(warning.message, warning.category, warning.filename)
    if gpus:
        yield Finding("ok", "device", "; ".join(gpus))
        return
    if driver or shutil.which("nvidia-smi"):
        why = driver[0] if driver else "nvidia-smi is here, but torch sees none"
        yield Finding("missing", "GPU", f"{why} ({build(torch)})")
    yield Finding("ok", "device", f"no GPU; {processor()}")


def build(torch) -> str:
    """What the torch was built for."""
    for name, number in (("CUDA", torch.version.cuda), ("ROCm", torch.version.hip)):
        if number:
            return f"{name} {number} build"
    return "macOS build" if platform.system() == "Darwin" else "CPU build"


def graphics(torch) -> Iterator[str]:
    """Name and memory of each GPU that torch sees."""
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(index)
        yield f"cuda:{index} {card.name}, {gigabytes(card.total_memory)}"
    if torch.backends.mps.is_available():
        yield f"mps, {processor()}"


def processor() -> str:
    """Cores that this process may use, and memory where the system tells."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{cores} CPU cores"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        text += f", {gigabytes(memory)} of memory"
    return text


def gigabytes(count: float) -> str:
    """Bytes as `6.6 GB`, as df counts them."""
    return f"{count / 2**30:.1f} GB"


# --- the embedded models


def embedded() -> Iterator[Finding]:
    """Each model with its prompts, and what its world is judged by."""
    for name, folder in tiny.MODELS.items():
        prompts = [
            tiny.prompts(name, f"{kind}_{split}")
            for kind in ("memorized", "ordinary")
            for split in ("test", "tuning")
        ]
        fault = model_fault(name) or missing_file(prompts)
        yield embedded_finding(name, fault, shown(folder))
    judges = [tiny.PROBE, tiny.REALISM]
    fault = missing_file([tiny.GT_IMAGES, tiny.MASKS, *judges]) or first_damage(judges)
    yield embedded_finding("their training images", fault, shown(tiny.GT_IMAGES))


def embedded_finding(name: str, fault: str, place: str) -> Finding:
    """A line of the embedded models."""
    if not fault:
        return Finding("ok", name, f"embedded: {place}")
    mend = "git checkout -- tiny" if IN_CHECKOUT else "install the package again"
    return Finding("broken", name, f"{fault}; {mend}", stops=True)


def model_fault(name: str) -> str:
    """What is wrong with an embedded model; empty when nothing is."""
    try:
        folder = Path(resolve_model(name))
    except ValueError as error:
        return str(error)
    return first_damage(sorted(folder.rglob("*.safetensors")))


def missing_file(paths: list[Path]) -> str:
    """The first that is not there."""
    for path in paths:
        if not path.exists():
            return f"{shown(path)} is not there"
    return ""


def first_damage(paths: list[Path]) -> str:
    """The first safetensors file that is not whole."""
    for path in paths:
        if is_pointer(path):
            return f"{shown(path)} is a pointer of Git LFS: git lfs pull"
        if not is_whole(path):
            return f"{shown(path)} is no whole safetensors file"
    return ""


def is_whole(path: Path) -> bool:
    """Whether a safetensors file has the length that its head says."""
    content = path.read_bytes()
    try:
        (length,) = struct.unpack("<Q", content[:8])
        head = json_of(content[8 : 8 + length])
        head.pop("__metadata__", None)
        ends = [tensor["data_offsets"][1] for tensor in head.values()]
    except (struct.error, ValueError, TypeError, KeyError):
        return False
    return len(content) == 8 + length + max(ends, default=0)


def shown(path: Path) -> str:
    """A path as one would type it in the suite's folder."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


# --- what is fetched


def fetched(root: Path) -> Iterator[Finding]:
    """The metrics that need nothing, then every asset: there, or the command that gets it."""
    enables = enabled_by_assets()
    free = [name for name in METRICS if not checkpoints_of(name, {})]
    yield Finding("ok", "metrics without download", ", ".join(free))
    for name, asset in our_assets().items():
        use = ", ".join(sorted(enables.get(name, []), key=is_a_part))
        use = use or (asset.used_by if asset.group.startswith("metric") else asset.what)
        fault = asset_fault(asset, root)
        if fault is None:
            yield Finding("missing", name, f"{use}: {fetch_command(name)}")
        elif fault:
            yield Finding("broken", name, f"{fault}: {fetch_command(name)} --overwrite")
        else:
            yield Finding("ok", name, f"{use}: {shown(root / asset.where)}")


def enabled_by_assets() -> dict[str, list[str]]:
    """Asset -> what it enables: a metric, or a metric with the flag that asks for this file."""
    enables: dict[str, list[str]] = {}
    for name in METRICS:
        found = dict.fromkeys(checkpoints_of(name, {}), name)
        for flag, choice in choices(METRICS[name]):
            for asset in checkpoints_of(name, {flag: choice}):
                found.setdefault(asset, f"{name} --{flag} {choice}")
        # A network that it uses, and does without where that is missing.
        for used in METRICS[name].uses:
            for asset in checkpoints_of(used, {}):
                found.setdefault(asset, f"{PART} {name}")
        for asset, text in found.items():
            enables.setdefault(asset, []).append(text)
    return enables


def is_a_part(use: str) -> bool:
    """Whether only some of a metric needs it."""
    return use.startswith(PART)


def choices(metric: type[Metric]) -> Iterator[tuple[str, str]]:
    """Each flag and value that may ask for another file, also of the metrics that it uses."""
    for owner in (metric, *(METRICS[name] for name in metric.uses)):
        for option in flags(owner):
            for choice in option.metadata["choices"] or ():
                yield option.name, choice


def checkpoints_of(name: str, typed: dict) -> list[str]:
    """The assets that a metric loads with these flags."""
    nothing = Run(Path(), Path(), prompts=[], files={}, model_id="")
    job = Job(Scoring(gen_folder=Path()), typed, run=nothing, gt_folder=GROUND_TRUTH)
    try:
        checkpoints = job.metric(METRICS[name]).checkpoints(job)
    except (TypeError, ValueError):  # a plugin's, which needs a flag
        return []
    return [checkpoint.asset for checkpoint in checkpoints if checkpoint.asset]


def asset_fault(asset: Asset, root: Path) -> str | None:
    """What is wrong with what is there, without reading it; None when nothing is there."""
    path = root / asset.path
    if not path.exists():
        return None
    for name in (*asset.files, asset.main):
        if not (path / name).exists():
            return f"there is no {asset.path}/{name}"
    if path.is_file() and asset.size and path.stat().st_size != asset.size:
        return f"{asset.path} has {path.stat().st_size:,} bytes, not {asset.size:,}"
    return ""


def fetch_command(name: str) -> str:
    """What gets an asset."""
    program = "download/fetch.py" if IN_CHECKOUT else "-m memorization_suite.download.fetch"
    return f"python {program} {name}"


# --- what one can do without


def optional() -> Iterator[Finding]:
    """Tools for development, and programs."""
    if IN_CHECKOUT:
        mend = "optional: make test and make lint install them"
        yield packages("development", DEVELOPMENT, mend, stops=False)
    mend = f"optional, for sweep.py --launcher slurm: pip install -r {CLUSTER}"
    yield packages("cluster", CLUSTER, mend, stops=False)
    for name, use in PROGRAMS.items():
        path = shutil.which(name)
        yield Finding("ok" if path else "missing", name, path or f"optional: {use}")


# --- the command


def findings(root: Path = ROOT) -> Iterator[Finding]:
    """All lines, as they are found."""
    yield from machine(root)
    yield from embedded()
    yield from fetched(root)
    yield from optional()


def main(argv: list[str] | None = None) -> int:
    """The command line.

    Returns the exit code: 0 when the suite runs on the embedded models, else 1.
    """
    Parser(PROG, "What this machine has, what is missing, and what gets it.").typed(argv)

    def work() -> int:
        stopping = []
        for finding in findings():
            print(finding, flush=True)
            if finding.stops:
                stopping.append(finding.what)
        if stopping:
            print(f"\nThe suite cannot run yet: see {', '.join(stopping)} above.")
            return 1
        print("\nThe suite can run on the embedded models: make demo")
        return 0

    return command(PROG, work)
