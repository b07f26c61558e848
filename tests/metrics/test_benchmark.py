"""Benchmarks are started as modules from the checkout."""

import ast
import os
import subprocess
import sys

import pytest

from tests.test_imports import ROOT

BENCHMARKS = [
    path for path in sorted((ROOT / "experiments").glob("*.py")) if "__main__" in path.read_text()
]


def start(*argv: str, timeout: int = 60):
    return subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_its_docstring_starts_it_as_a_module(path):
    assert f"\npython -m experiments.{path.stem} " in ast.get_docstring(ast.parse(path.read_text()))


def test_make_and_the_documents_start_them_as_modules():
    for name in ("Makefile", "README.md", "CONTRIBUTING.md", "tiny/README.md"):
        assert "python experiments/" not in (ROOT / name).read_text()
    assert (
        "-m experiments.metrics\n" in (ROOT / "Makefile").read_text()
        and "`python -m experiments.metrics`" in (ROOT / "metrics" / "README.md").read_text()
    )


def test_started_as_a_file_it_is_no_other_metrics():
    """Its folder comes first on the path then, and it shares its name with a package of ours."""
    done = start("experiments/metrics.py", "--help")
    assert done.returncode == 0 and "--side" in done.stdout, done


@pytest.mark.slow
def test_it_runs():
    done = start("-m", "experiments.metrics", "--side", "48", "--repeats", "1", timeout=900)
    assert done.returncode == 0 and done.stdout.count("times faster") == 5, done
