"""Runs mypy over the suite under its one name: `python -m tests.typed`.

The checkout's folders become packages of `memorization_suite` when it is imported. mypy imports
nothing, so it is given a folder of links in which they lie where their names say.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINKS = ROOT / "build" / "typed"
CHECKED = ("commands", "detection", "mitigation", "prompts", "runs", "sampling")


def link() -> None:
    """memorization_suite/ with the packages of the checkout in it."""
    shutil.rmtree(LINKS, ignore_errors=True)
    suite = LINKS / "memorization_suite"
    suite.mkdir(parents=True)
    (suite / "__init__.py").symlink_to(ROOT / "memorization_suite.py")
    for path in ROOT.glob("*/__init__.py"):
        package = path.parent
        if package.name != "tests":
            (suite / package.name).symlink_to(package)


def main() -> int:
    """mypy's exit code."""
    link()
    packages = [word for name in CHECKED for word in ("-p", f"memorization_suite.{name}")]
    config = ["--config-file", str(ROOT / "pyproject.toml")]
    return subprocess.run([sys.executable, "-m", "mypy", *config, *packages], cwd=LINKS).returncode


if __name__ == "__main__":
    sys.exit(main())
