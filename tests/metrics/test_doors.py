"""The scripts as files: run by path from any place, and nothing heavy is imported in vain."""

import os
import subprocess
import sys

import pytest

from memorization_suite import ROOT
from memorization_suite.runs.table import Result, add_results

SCRIPTS = [
    *sorted(f"metrics/{path.name}" for path in (ROOT / "metrics").glob("compute_*.py")),
    "metrics/summarize.py",
    "metrics/plot_tradeoff.py",
    "make_report.py",
]
HEAVY = {"torch", "numpy", "scipy", "PIL", "matplotlib", "jinja2", "diffusers", "transformers"}
WATCH = """
import os, runpy, sys
script, *argv = sys.argv[1:]
sys.argv = [script, *argv]
sys.path[0] = os.path.dirname(script)  # as for a script that is run by path
try:
    runpy.run_path(script, run_name="__main__")
finally:
    print("imported:", *sys.modules, file=sys.stderr)
"""


def start(tmp_path, script, *argv):
    """(exit code, what it printed, modules that it imported)."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-c", WATCH, str(ROOT / script), *map(str, argv)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=env)
    said, _, modules = done.stderr.rpartition("imported: ")
    return done.returncode, done.stdout + said, set(modules.split())


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy(tmp_path, script):
    code, said, modules = start(tmp_path, script, "--help")
    assert code == 0 and "usage: " in said and not modules & HEAVY


@pytest.mark.parametrize(
    ("script", "argv", "told"),
    [
        ("metrics/compute_fid.py", ["--real_folders", "x"], "arguments are required: --gen_folder"),
        ("metrics/compute_lpips_imagereward.py", ["-f", "nowhere"], "nowhere is no folder"),
        ("metrics/compute_lpips_imagereward.py", ["-f", "x", "--alex", "y"], "mean --alexnet?"),
        ("metrics/compute_diversity.py", ["-f", "x"], "arguments are required: --unmitigated"),
        ("metrics/summarize.py", ["nowhere"], "nowhere has no results.csv"),
        ("make_report.py", ["nowhere", "--samples", "0"], "--samples 0 is out of range"),
        ("metrics/plot_tradeoff.py", ["x", "--oute", "y"], "did you mean --out?"),
    ],
)
def test_wrong_arguments_import_nothing_heavy(tmp_path, script, argv, told):
    code, said, modules = start(tmp_path, script, *argv)
    assert code == 2 and told in said and said.count("\n") == 1 and not modules & HEAVY


def test_readers_need_no_torch(run, tmp_path):
    """They read tables and pictures that are there."""
    for quantity in ("copy_score", "clip_gen"):
        rows = [Result("r", "m", prompt, 0, quantity, "v", 0.1 * prompt) for prompt in range(4)]
        add_results(run.path, rows)
    identity = '"identity": {"method": "no_mitigation", '
    manifest = run.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"identity": {', identity))
    readers = {
        "metrics/summarize.py": [run.path, run.path],
        "metrics/plot_tradeoff.py": [run.path, "--out", "plot.png"],
        "make_report.py": [run.path, "--out", "page.html"],
    }
    for script, argv in readers.items():
        code, said, modules = start(tmp_path, script, *argv)
        assert code == 0 and "torch" not in modules, said
        assert said.splitlines()[-1].startswith("next: python "), said
    assert (tmp_path / "plot.png").exists() and (tmp_path / "page.html").exists()
