"""What a run was made with: versions, commit, time."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from memorization_suite import ROOT
from memorization_suite.runs.lazy import torch

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "numpy", "pillow", "safetensors")


def calm_threads() -> None:
    """Threads that wait sleep. Where cores are shared, spinning ones make small models many times
    slower.

    It takes effect if torch is not imported yet. What the user set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def choose_device(device: str) -> str:
    """The device as given, or a GPU if there is one.

    Raises ValueError for a device that is not there.
    """
    if device == "cpu" or (not device and not may_have_gpu()):
        return "cpu"
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from error
    count = device_count(wanted.type)
    if (wanted.index or 0) >= count:
        others = f" or cuda:0..{count - 1}" if count else ""
        raise ValueError(f"--device {device} is not here; leave the flag out, or give cpu{others}")
    return device


def may_have_gpu() -> bool:
    """Whether torch has to be asked, whose import takes seconds: without the library of a driver
    there is no GPU.
    """
    if "torch" in sys.modules or sys.platform != "linux" or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def device_count(kind: str) -> int:
    """How many devices of a kind there are; none of a kind that the suite does not know."""
    if kind == "cuda":
        return torch.cuda.device_count()
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return int(kind == "cpu")


def set_tf32(allowed: bool) -> None:
    """Whether float32 products and convolutions on CUDA may be rounded to TensorFloat-32.

    torch's own default rounds in convolutions. It holds for the whole process.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def now() -> str:
    """UTC, ISO 8601, in microseconds, so that two starts are told apart."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def git(*words: str) -> str | None:
    """What git says of the suite's checkout; None outside one."""
    command = ["git", "-C", str(ROOT), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def git_commit() -> str | None:
    """Commit of the suite, or None outside a checkout."""
    return git("rev-parse", "HEAD")


def commit_text() -> str:
    """`commit 0123456789ab`, and whether files differ from it."""
    commit = git_commit()
    if commit is None:
        return "commit unknown"
    changed = git("status", "--porcelain", "--untracked-files=no")
    return f"commit {commit[:12]}{', with changes' if changed else ''}"


def environment() -> dict:
    """Versions of Python and of the packages that decide results, and the suite's commit."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"python": platform.python_version(), "packages": versions, "commit": git_commit()}
