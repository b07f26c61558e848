"""The suite has one name, memorization_suite, wherever its checkout lies and whatever is installed:
no module is loaded twice, no foreign package is taken for ours, and a second clone runs its own
code.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from memorization_suite import ROOT

PACKAGES = sorted(
    path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"
)
MARK = "Says the second clone."
MAKES = {".git", ".venv", "build", "demo", "generated_images", "tests"}  # not worth a copy


def run(*command: str, cwd: Path, path: tuple[Path, ...] = ()) -> subprocess.CompletedProcess:
    """Python with these arguments; path: PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=cwd, env=environment
    )


def printed(code: str, cwd: Path, path: tuple[Path, ...] = ()):
    """The JSON that the code prints."""
    done = run("-c", code, cwd=cwd, path=path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_file_is_loaded_under_two_names(tmp_path):
    """All modules of the suite, and the commands, in one process."""
    code = """
import collections, importlib, json, pathlib, pkgutil, sys
import memorization_suite

root = str(memorization_suite.ROOT)
left_out = ("memorization_suite", "tests", "build", "demo")
for module in pkgutil.iter_modules(memorization_suite.__path__, "memorization_suite."):
    if module.name.split(".")[1] in left_out:
        continue
    package = importlib.import_module(module.name)
    if module.ispkg:
        for inner in pkgutil.iter_modules(package.__path__, f"{module.name}."):
            importlib.import_module(inner.name)
names = collections.defaultdict(list)
for name, module in list(sys.modules.items()):
    file = str(pathlib.Path(getattr(module, "__file__", None) or "/").resolve())
    if file.startswith(root) and "site-packages" not in file:  # .venv may lie in the checkout
        names[file].append(name)
print(json.dumps(names))
"""
    names = printed(code, tmp_path, (ROOT,))
    assert len(names) > 100
    assert {file: found for file, found in names.items() if len(found) > 1} == {}
    assert all(found[0].split(".")[0] == "memorization_suite" for found in names.values())


def test_a_package_without_the_name_says_which_name_it_has():
    """In the checkout every folder is importable, and would load each module a second time."""
    code = f"""
import importlib, json
told = {{}}
for name in {[name for name in PACKAGES if "/" not in name]}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        told[name] = str(error)
print(json.dumps(told))
"""
    told = printed(code, ROOT)
    assert told.keys() == set(PACKAGES)
    for name, message in told.items():
        assert f"memorization_suite.{name} here" in message


def test_the_name_itself_is_loaded_once(tmp_path):
    done = run("-c", "import memorization_suite.memorization_suite", cwd=tmp_path, path=(ROOT,))
    assert done.returncode and "memorization_suite: import it by that name" in done.stderr


def test_the_name_works_uninstalled_from_anywhere(tmp_path):
    code = "import json, memorization_suite as s; print(json.dumps([s.__file__, str(s.ROOT)]))"
    file, root = printed(code, tmp_path, (ROOT,))
    assert Path(file) == ROOT / "memorization_suite.py" and Path(root) == ROOT


def test_the_jobs_are_importable_from_the_top(tmp_path):
    code = """
import json
import memorization_suite as suite
print(json.dumps([getattr(suite, name).__module__ for name in ("plan", "generate")]))
"""
    assert printed(code, tmp_path, (ROOT,)) == [
        "memorization_suite.commands.generate_plan",
        "memorization_suite.commands.generate",
    ]
    done = run("-c", "import memorization_suite as suite; suite.plans", cwd=tmp_path, path=(ROOT,))
    assert "has no attribute 'plans'" in done.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The Python files of another checkout, whose --help begins with a sentence of its own."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        if Path(folder) == ROOT:
            return {name for name in names if name in MAKES or name.startswith(".")}
        files = {name for name in names if (Path(folder) / name).is_file()}
        return {name for name in files if not name.endswith(".py")} | {"__pycache__"}

    path = tmp_path_factory.mktemp("second") / "clone"
    shutil.copytree(ROOT, path, ignore=left_out)
    shell = path / "runs" / "cli.py"
    text = shell.read_text(encoding="utf-8")
    changed = text.replace("description=description,", f'description="{MARK} " + description,')
    assert changed.count(MARK) == 1
    shell.write_text(changed, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", [(), (ROOT,)], ids=["installed", "on PYTHONPATH"])
@pytest.mark.parametrize(
    "door",
    [
        "generate_images.py",
        "detect_memorization.py",
        "calibrate.py",
        "mitigation/nemo/localize_neurons.py",
        "metrics/summarize.py",
        "metrics/compute_fid.py",
        "download/fetch.py",
    ],
)
def test_a_second_clone_runs_its_own_code(clone, tmp_path, door, path):
    """Although the first one is installed or comes before the installed packages."""
    done = run(str(clone / door), "--help", cwd=tmp_path, path=path)
    assert done.returncode == 0 and MARK in done.stdout, done.stderr
    done = run(str(ROOT / door), "--help", cwd=tmp_path, path=path)
    assert done.returncode == 0 and MARK not in done.stdout, done.stderr


def test_a_foreign_package_keeps_its_name(tmp_path):
    """`import metrics` is somebody else's where theirs comes first; ours has ours."""
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "__init__.py").write_text("mine = True\n")
    code = """
import json, metrics
import memorization_suite.metrics
print(json.dumps([metrics.__file__, memorization_suite.metrics.__file__]))
"""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    theirs, ours = printed(code, elsewhere, (tmp_path, ROOT))
    assert Path(theirs) == tmp_path / "metrics" / "__init__.py"
    assert Path(ours) == ROOT / "metrics" / "__init__.py"


def test_an_editable_installation_holds_no_copy(monkeypatch):
    """It would be found before the checkout by scripts of its folders."""
    name = "hatchling.builders.hooks.plugin.interface"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(BuildHookInterface=object))
    spec = importlib.util.spec_from_file_location("wheel", ROOT / ".ci" / "wheel.py")
    assert spec and spec.loader
    wheel = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(wheel)
    hook = wheel.Rooms()
    hook.config = {"rooms": {"runs": "memorization_suite/runs"}}
    for version, expected in (("editable", {}), ("standard", hook.config["rooms"])):
        build_data = {"force_include": {}}
        hook.initialize(version, build_data)
        assert build_data["force_include"] == expected


def test_what_is_installed_is_what_there_is():
    """pyproject.toml names every room of the checkout, and where it lies."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    places = build["build"]["targets"]["wheel"]["hooks"]["custom"]["rooms"]
    expected = {name: f"memorization_suite/{name}" for name in PACKAGES}
    expected["memorization_suite.py"] = "memorization_suite/__init__.py"
    expected["commands/main.py"] = "memorization_suite/__main__.py"
    for name in ("requirements.txt", "requirements-cluster.txt"):  # read by the doctor
        expected[name] = f"memorization_suite/{name}"
    assert places == expected
