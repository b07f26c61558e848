"""The one-way rule: which package may import which, read from the source of every file."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "build",
    "demo",
    "generated_images",
    "sweep_results",
}  # made by tools, not part of the code
ALLOWED = {
    "results": set(),
    "sampling": set(),
    "tiny": set(),
    "prompts": set(),
    "download": {"results"},
    "mitigation": {"sampling"},
    "detection": {"sampling"},
    "pipelines": {"sampling", "mitigation"},
    "screening": {"sampling", "detection", "pipelines", "prompts", "results"},
    "generation": {
        "sampling",
        "mitigation",
        "pipelines",
        "results",
        "prompts",
        "download",
        "detection",
        "screening",
    },
    "localization": {"sampling", "mitigation", "pipelines", "prompts", "results"},
    "calibration": {"sampling", "mitigation", "pipelines", "prompts", "results"},
    "metrics": {"results", "tiny", "download", "prompts"},
    "reporting": {"metrics", "results"},
    "sweeping": {"generation", "metrics", "pipelines", "reporting", "results"},
}
TOP = {"examples", "benchmarks", "tests"}  # these and the scripts import any package


@cache
def python_files() -> tuple[Path, ...]:
    """Every .py of the repository, relative to its root; folders with a dot (.venv, .git) are not
    looked into.
    """
    folders = [
        folder
        for folder in ROOT.iterdir()
        if folder.is_dir() and folder.name not in OUTSIDE and not folder.name.startswith(".")
    ]
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    return tuple(sorted(path.relative_to(ROOT) for path in files))


def imported(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, first name) of every import, also those inside functions; a relative one names the
    package itself.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, package if node.level else str(node.module).split(".")[0]


def broken_imports(path: Path, source: str) -> list[str]:
    """Imports of this file that the rule forbids, as 'file:line imports name'."""
    packages = set(ALLOWED) | TOP | {p.parts[0] for p in python_files() if len(p.parts) > 1}
    scripts = {p.stem for p in python_files() if len(p.parts) == 1}
    home = path.parts[0] if len(path.parts) > 1 else ""
    if path.parts[:2] == ("tests", "reference"):
        allowed = {"tests"}  # a transcription that used the suite would prove nothing
    elif home == "tests":
        allowed = packages | scripts  # tests of the command lines call main()
    elif home == "benchmarks":
        allowed = packages  # speed is measured against tests/reference
    elif home in TOP | {""}:
        allowed = packages - {"tests"}
    else:
        allowed = ALLOWED.get(home, set()) | {home}
    return [
        f"{path}:{line} imports {name}"
        for line, name in imported(source, home)
        if name in packages | scripts and name not in allowed
    ]


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_imports_point_one_way(path):
    assert broken_imports(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("sampling/x.py", "import mitigation"),
        ("results/x.py", "def f():\n    from pipelines import denoise"),
        ("tiny/x.py", "from sampling.noise import image_seed"),
        ("mitigation/x.py", "from pipelines import denoise"),
        ("detection/x.py", "import mitigation.base"),
        ("pipelines/x.py", "import metrics"),
        ("metrics/x.py", "from sampling import noise"),
        ("examples/x.py", "from tests.conftest import LATENT"),
        ("tests/reference/x.py", "import sampling"),
    ],
)
def test_the_rule_finds_a_wrong_import(path, source):
    assert len(broken_imports(Path(path), source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "mitigation/x.py",
            "from mitigation.base import flag\nfrom sampling import Step\nimport torch",
        ),
        ("pipelines/x.py", "from . import memorization_pipeline"),
        ("metrics/x.py", "import results, tiny"),
        ("generate.py", "import pipelines, metrics"),
        ("benchmarks/x.py", "import sampling"),
    ],
)
def test_the_rule_lets_right_imports_pass(path, source):
    assert broken_imports(Path(path), source) == []
