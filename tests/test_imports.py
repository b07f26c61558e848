"""The one-way rule: which room may import which, and no circle of files, read from the source."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAME = "memorization_suite"
OUTSIDE = {"build", "demo", "generated_images", "sweep_results"}  # made by tools and runs
# From the ground up; a room may import what stands on the floors that it names, never upwards.
ALLOWED = {  # room -> rooms that it may import, besides itself and the suite's own name
    "runs": set(),
    "tiny": {"runs"},
    "sampling": {"runs"},
    "prompts": {"runs", "tiny"},
    "download": {"runs"},
    "pipelines": {"runs", "sampling", "tiny"},
    "detection": {"runs", "sampling"},
    "mitigation": {"runs", "sampling", "detection"},
    "metrics": {"runs", "tiny", "prompts", "download"},
}
ALLOWED["commands"] = set(ALLOWED)  # the jobs: they may use everything below
TOP = {"examples", "experiments", "tests"}  # these and the scripts import any room
DOOR = "sys.path[0] = str(Path(__file__)"  # in a script that is run by its path


@cache
def python_files() -> tuple[Path, ...]:
    """Every .py of the repository, relative to its root; not those in folders with a dot."""
    found = [*ROOT.glob("*.py")]
    for folder in ROOT.iterdir():
        if folder.is_dir() and folder.name not in OUTSIDE and not folder.name.startswith("."):
            found += folder.rglob("*.py")
    return tuple(sorted(path.relative_to(ROOT) for path in found))


def room(module: str) -> str:
    """`memorization_suite.metrics.runs` -> `metrics`; another module's first name as it is."""
    first, *rest = module.split(".")
    return rest[0] if first == NAME and rest else first


def imported(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, room) of every import, also inside functions; `bare metrics` without the name."""
    rooms = set(ALLOWED) | TOP
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == NAME:
            modules = [
                f"{NAME}.{alias.name}" if alias.name in rooms else NAME for alias in node.names
            ]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{NAME}.{package}" if node.level else str(node.module)]
        else:
            continue
        for module in modules:
            bare = module.split(".")[0] in ALLOWED
            yield node.lineno, f"bare {module}" if bare else room(module)


def broken_imports(path: Path, source: str) -> list[str]:
    """Imports of this file that the rule forbids, as 'file:line imports name'."""
    packages = set(ALLOWED) | TOP
    home = path.parts[0] if len(path.parts) > 1 else ""
    if path.parts[:2] == ("tests", "reference"):
        allowed = {"tests"}  # a transcription that used the suite would prove nothing
    elif home in ("tests", "experiments"):
        allowed = packages  # speed is measured against tests/reference
    elif home in TOP | {""} or DOOR in source:
        allowed = packages - {"tests"}
    else:
        allowed = ALLOWED.get(home, set()) | {home, NAME}
    return [
        f"{path}:{line} imports {name}"
        for line, name in imported(source, home)
        if name.startswith("bare ") or (name in packages and name not in allowed)
    ]


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_imports_point_one_way(path):
    assert broken_imports(path, (ROOT / path).read_text(encoding="utf-8")) == []


WRONG = {
    "sampling/x.py": "import memorization_suite.mitigation",
    "runs/x.py": "def f():\n    from memorization_suite.pipelines import loading",
    "tiny/x.py": "from memorization_suite.sampling.noise import image_seed",
    "mitigation/x.py": "from memorization_suite.pipelines import loading",
    "detection/x.py": "from memorization_suite import mitigation",
    "pipelines/x.py": "import memorization_suite.metrics",
    "metrics/x.py": "from memorization_suite.sampling import noise",
    "metrics/y.py": "from metrics.runs import Run",
    "examples/x.py": "from tests.conftest import LATENT",
    "generate.py": "import pipelines",
    "tests/reference/x.py": "import memorization_suite.sampling",
}
RIGHT = {
    "mitigation/x.py": "from memorization_suite.mitigation.base import flag\nimport torch",
    "mitigation/y.py": "from memorization_suite.sampling import Step",
    "pipelines/x.py": "from . import loading",
    "metrics/x.py": "from memorization_suite import ROOT, runs",
    "generate.py": "import memorization_suite.pipelines, memorization_suite.metrics",
    "experiments/x.py": "from tests.house import figures",
}


@pytest.mark.parametrize("path", WRONG)
def test_the_rule_finds_a_wrong_import(path):
    assert len(broken_imports(Path(path), WRONG[path])) == 1


@pytest.mark.parametrize("path", RIGHT)
def test_the_rule_lets_right_imports_pass(path):
    assert broken_imports(Path(path), RIGHT[path]) == []


# --- circles of files ---


def module_of(path: Path) -> str:
    """`metrics/runs.py` -> `memorization_suite.metrics.runs`."""
    parts = path.with_suffix("").parts
    return ".".join((NAME, *(parts[:-1] if parts[-1] == "__init__" else parts)))


def arrows() -> dict[str, set[str]]:
    """Module -> modules that it imports, for types too; the suite's own name, which offers the jobs
    of others, is left out.
    """
    paths = {module_of(path): path for path in python_files() if path.parts[0] in ALLOWED}
    found = {}
    for module, path in paths.items():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        named = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                named |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        # A package's name in front of a module of its own is no use of the package.
        inner = {name for name in named if any(other.startswith(f"{name}.") for other in named)}
        found[module] = {name for name in named - inner if name in paths} - {module}
    return found


def circles(found: dict[str, set[str]]) -> list[str]:
    """Modules that lead back to themselves."""
    leading: dict[str, set[str]] = {}
    for start in found:
        reached: set[str] = set()
        waiting = list(found[start])
        while waiting:
            module = waiting.pop()
            if module not in reached:
                reached.add(module)
                waiting += found[module]
        leading[start] = reached
    return sorted(module for module, reached in leading.items() if module in reached)


def test_no_file_leads_back_to_itself():
    assert circles(arrows()) == []


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]
