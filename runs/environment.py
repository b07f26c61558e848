"""What a run was made with: versions, commit, time."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from memorization_suite import ROOT

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "numpy", "pillow", "safetensors")


def choose_device(device: str) -> str:
    """The device as given, or a GPU if there is one. Raises ValueError for one that is not
    there.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from error
    usable = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(wanted.type, 0)
    if (wanted.index or 0) >= usable:
        raise ValueError(
            f"--device {device} is not here; leave the flag out, or give cpu"
            + (f" or cuda:0..{usable - 1}" if usable else "")
        )
    return device


def now() -> str:
    """UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def git_commit() -> str | None:
    """Commit of the suite, or None outside a checkout."""
    try:
        command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def environment() -> dict:
    """Versions of Python and of the packages that decide results, and the suite's commit."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"python": platform.python_version(), "packages": versions, "commit": git_commit()}
