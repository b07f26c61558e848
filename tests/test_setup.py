"""`make setup` and what it installs: with a stand-in for Python and pip, nothing is installed."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from memorization_suite import ROOT
from memorization_suite.commands import main as commands
from memorization_suite.commands import setup
from memorization_suite.commands.setup import (
    CLUSTER,
    DEVELOPMENT,
    REQUIREMENTS,
    STAMP,
    read_pins,
)
from tests.test_imports import python_files

# Makes environments that hold itself, and notes what pip is asked for. `broken`: has no pip yet.
# `fails`: a word of the call that fails.
STAND_IN = """#!/bin/sh
case "$*" in
  *"import sys, pip"*) test ! -e "{calls}/broken"; exit ;;
esac
echo "$@" >> "{calls}/calls"
case "$*" in
  *"-m venv"*) rm -f "{calls}/broken"; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
esac
for word in "$@"; do
  if test "$word" = "$(cat "{calls}/fails")"; then
    for number in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do echo "line $number"; done
    echo "ERROR: no such index"
    exit 1
  fi
done
"""


class Machine:
    """A folder with the stand-in, requirements of its own and an environment."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.venv = folder / "environment"
        self.python = folder / "python"
        self.python.write_text(STAND_IN.format(calls=folder), encoding="utf-8")
        self.python.chmod(0o755)
        self.forget()
        self.fail_on("")

    def fail_on(self, word: str) -> None:
        (self.folder / "fails").write_text(word)

    def forget(self) -> None:
        (self.folder / "calls").write_text("")

    def calls(self) -> list[str]:
        """What Python was called with since `forget`, without the flags that pip always gets."""
        usual = " ".join(setup.INSTALL)
        lines = (self.folder / "calls").read_text().splitlines()
        return [line.replace(usual, "pip") for line in lines]

    def install(self, pins: dict[str, str]) -> None:
        """The folders that pip would have made."""
        site = self.venv / "lib" / "python3.11" / "site-packages"
        for name, version in pins.items():
            folder = f"{name.replace('-', '_')}-{version}.dist-info"
            (site / folder).mkdir(parents=True, exist_ok=True)

    def setup(self, *flags: str) -> int:
        return commands.main(["setup", "--venv", str(self.venv), *flags])

    def finished(self) -> None:
        """Set up, nothing noted."""
        for file in (setup.REQUIREMENTS, setup.DEVELOPMENT, setup.CLUSTER):
            self.install(read_pins(file))
        assert self.setup("--dev") == 0
        self.forget()


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(sys, "executable", str(made.python))
    for name in ("REQUIREMENTS", "DEVELOPMENT", "CLUSTER"):
        copy = shutil.copy(getattr(setup, name), tmp_path)
        monkeypatch.setattr(setup, name, Path(copy))
    monkeypatch.setattr(setup.platform, "system", lambda: "Linux")
    monkeypatch.setattr(setup.platform, "machine", lambda: "x86_64")
    return made


# --- its steps


def test_a_line_a_step_and_first_what_it_takes(machine, capsys):
    assert machine.setup() == 0
    pins = read_pins(REQUIREMENTS)
    pair = f"torch=={pins['torch']} torchvision=={pins['torchvision']}"
    assert machine.calls() == [
        f"-m venv {machine.venv}",
        f"pip {pair}",
        f"pip -r {setup.REQUIREMENTS}",
        f"pip --no-deps --editable {ROOT}",
    ]
    first, *steps, last = capsys.readouterr().out.splitlines()
    assert "about 6.6 GB of disk" in first and "about 3 minutes" in first
    assert len(steps) == 4 and last.startswith("Ready: ")
    assert "the CUDA builds, 5.3 GB" in steps[1] and "PIP_ARGS=" in steps[1]
    assert all(re.search(r" \.\.\. \d+ s$", step) for step in steps)


def test_pip_args_go_to_every_call(machine):
    assert machine.setup("--dev", "--", "--index-url", "https://example.org/simple") == 0
    _, *calls = machine.calls()
    assert len(calls) == 5
    for call in calls:
        assert call.startswith("pip --index-url https://example.org/simple ")


def test_tools_come_with_dev_alone(machine):
    machine.finished()
    assert machine.setup() == 0 and machine.calls() == []
    (machine.venv / STAMP).unlink()
    assert machine.setup() == 0
    for name in ("requirements-dev", "requirements-cluster"):
        assert not any(name in call for call in machine.calls())
    machine.forget()
    assert machine.setup("--dev") == 0
    assert machine.calls() == [f"pip -r {setup.DEVELOPMENT}", f"pip -r {setup.CLUSTER}"]


def test_a_second_run_does_nothing_at_once(machine, capsys):
    machine.finished()
    for path in (setup.REQUIREMENTS, setup.DEVELOPMENT, setup.CLUSTER):
        path.touch()
    capsys.readouterr()
    begin = time.monotonic()
    assert machine.setup("--dev") == 0
    assert time.monotonic() - begin < 2
    assert machine.calls() == []
    assert (
        capsys.readouterr().out == f"The environment in {machine.venv} is ready. Next: make demo\n"
    )
    assert machine.setup("--dev", "--quiet") == 0
    assert capsys.readouterr().out == ""


def test_changed_requirements_are_installed_with_the_time_of_before(machine, capsys):
    machine.finished()
    text = setup.REQUIREMENTS.read_text(encoding="utf-8")
    setup.REQUIREMENTS.write_text(text + "# another line\n", encoding="utf-8")
    os.utime(setup.REQUIREMENTS, (0, 0))
    capsys.readouterr()
    assert machine.setup("--dev") == 0
    assert machine.calls() == [f"pip -r {setup.REQUIREMENTS}"]
    assert "brought up to date" in capsys.readouterr().out


def test_a_package_that_was_removed_comes_back(machine):
    machine.finished()
    (gone,) = machine.venv.glob("lib/*/site-packages/lpips-*")
    gone.rmdir()
    assert machine.setup("--dev") == 0
    assert machine.calls() == [f"pip -r {setup.REQUIREMENTS}"]


def test_a_failing_step_shows_the_end_of_the_log_and_the_next_run_resumes(machine, capsys):
    machine.fail_on("-r")
    assert machine.setup() == 1
    told = capsys.readouterr()
    log = machine.venv / setup.LOG
    assert str(log) in told.err and "Rerun the command to resume." in told.err
    assert "ERROR: no such index" in told.err and "line 1\n" not in told.err
    assert "line 1\n" in log.read_text() and "line 1" not in told.out
    assert told.out.endswith("failed\n")
    machine.install(read_pins(setup.REQUIREMENTS))
    machine.fail_on("")
    machine.forget()
    assert machine.setup() == 0
    assert [call.split()[1] for call in machine.calls()] == ["-r", "--no-deps"]


def test_the_log_holds_no_password(machine):
    assert machine.setup("--", "--index-url", "https://me:secret@example.org/simple") == 0
    assert "secret" not in (machine.venv / setup.LOG).read_text()


def test_an_environment_without_pip_is_made_whole(machine):
    """A set-up that was killed while the environment was made."""
    shutil.copy(machine.python, machine.venv.parent / "copy")
    (machine.venv / "bin").mkdir(parents=True)
    (machine.venv.parent / "copy").rename(machine.venv / "bin" / "python")
    (machine.folder / "broken").touch()
    assert machine.setup() == 0
    assert machine.calls()[0] == f"-m venv {machine.venv}" and len(machine.calls()) == 4


def test_an_environment_that_cannot_be_made_whole_is_to_be_removed(machine, capsys):
    """As one of an old Python."""
    machine.venv.mkdir()
    (machine.venv / "pyvenv.cfg").touch()
    machine.fail_on("venv")
    assert machine.setup() == 1
    assert f"{machine.venv} holds an environment that this Python" in capsys.readouterr().err


def test_an_unreadable_stamp_says_nothing(machine):
    """As one that was only touched."""
    machine.finished()
    (machine.venv / STAMP).write_text("")
    assert machine.setup() == 0
    assert len(machine.calls()) == 3


# --- what it says


def test_too_little_disk_is_one_line(machine, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: usage(0, 0, 2 * 2**30))
    assert machine.setup() == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "6.6 GB are needed and 2.0 GB are free" in error and "make setup VENV=" in error
    assert machine.calls() == [] and not machine.venv.exists()


@pytest.mark.parametrize("system, machine", [("Darwin", "arm64"), ("Linux", "aarch64")])
def test_cuda_is_claimed_where_it_comes_alone(monkeypatch, system, machine):
    monkeypatch.setattr(setup.platform, "system", lambda: system)
    monkeypatch.setattr(setup.platform, "machine", lambda: machine)
    titles = [step.title for step in setup.steps([], development=True)]
    assert not any("CUDA build" in title for title in titles)
    assert "CUDA" not in setup.announcement(Path(".venv"), [])


def test_with_an_index_of_ones_own_no_build_is_claimed():
    assert "CUDA" not in setup.announcement(Path(".venv"), ["--index-url", "x"])
    assert "PIP_ARGS finds" in setup.steps(["--index-url", "x"], development=False)[0].title


@pytest.mark.parametrize("name", ["setup", "doctor"])
def test_an_old_python_is_one_line(capsys, monkeypatch, name):
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    assert commands.main([name]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "3.11 or newer is needed, this is 3.9.18" in error and "make setup PYTHON=" in error


@pytest.mark.parametrize(
    "path", ["memorization_suite.py", "commands/__init__.py", "commands/main.py"]
)
def test_an_old_python_reads_what_it_needs(path):
    source = (ROOT / path).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))
    assert "from __future__ import annotations" not in source  # 3.6 has none


def test_the_name_alone_lists_what_there_is(capsys):
    assert commands.main([]) == 0
    told = capsys.readouterr().out
    for name in commands.COMMANDS:
        assert f"\n  {name} " in told
    assert commands.main(["docter"]) == 2
    assert capsys.readouterr().err == told


# --- the Makefile

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE)
INNER = {"environment"}
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def make(*words: str) -> str:
    """What `make` would do, or what it prints; not as a part of `make test`."""
    outer = ("MAKE", "MFLAGS", "VENV", "PYTHON", "PIP_ARGS", "FULL")
    inner = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    done = subprocess.run(
        ["make", *words], cwd=ROOT, capture_output=True, text=True, check=True, env=inner
    )
    return done.stdout


@needs_make
def test_make_alone_says_what_there_is():
    lines = make().splitlines()
    assert [line.split()[1] for line in lines] == [name for name in TARGETS if name not in INNER]
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert set(phony[1].split()) == set(TARGETS)


@needs_make
def test_make_passes_on_what_is_typed(tmp_path):
    planned = make("-n", "setup", f"VENV={tmp_path}/v", 'PIP_ARGS=--index-url "a b"')
    assert f'setup --venv {tmp_path}/v -- --index-url "a b"\n' in planned
    assert planned.split()[0] != f"{tmp_path}/v/bin/python"
    assert make("-n", "demo", "FULL=1").endswith("examples/demo.py --full\n")
    assert "--full" not in make("-n", "demo") + make("-n", "demo", "FULL=0")
    assert "--dev" not in make("-n", "demo") + make("-n", "setup")
    for target in ("test", "lint"):
        assert "--dev" in make("-n", target)


# --- what it installs


def imported_modules(path: Path) -> set[str]:
    """First names of all modules that a file imports, also late ones: Lazy("x"),
    import_module("x").
    """
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Call) and called(node) in ("Lazy", "import_module"):
            names |= {word.value for word in node.args if isinstance(word, ast.Constant)}
    return {name.partition(".")[0] for name in names}


def called(node: ast.Call) -> str:
    """The last name of what is called."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def third_party(*, tests: bool) -> dict[str, set[str]]:
    """Module -> packages that may bring it, of all imports of the tests or of everything else."""
    names = set()
    for path in python_files():
        if (path.parts[0] == "tests") == tests:
            names |= imported_modules(path)
    ours = {"memorization_suite", "tests"} | {path.parts[0] for path in python_files()}
    ours.add("hatchling")  # of the build alone: pyproject.toml
    brought_by = packages_distributions()
    found = {}
    for name in sorted(names - ours - set(sys.stdlib_module_names)):
        packages = brought_by.get(name, [name])
        found[name] = {package.lower().replace("_", "-") for package in packages}
    return found


def unpinned(modules: dict[str, set[str]], *files: Path) -> list[str]:
    """Modules that no package of the files brings."""
    pins = set().union(*(read_pins(file) for file in files))
    return [name for name, packages in modules.items() if not packages & pins]


def unused(file: Path, modules: dict[str, set[str]]) -> list[str]:
    """Pins of a file that bring none of the modules and do not say why they are there."""
    packages = set().union(*modules.values())
    text = file.read_text(encoding="utf-8")
    reasons = re.findall(r"^([\w-]+)==\S+ +# \w", text, flags=re.MULTILINE)
    known = packages | {name.lower().replace("_", "-") for name in reasons}
    return [name for name in read_pins(file) if name not in known]


def test_what_the_suite_imports_is_pinned():
    modules = third_party(tests=False)
    assert {"torch", "open_clip", "timm", "PIL"} <= set(modules)  # late ones are seen
    assert unpinned(modules, REQUIREMENTS, CLUSTER) == []
    assert "submitit" in modules  # of the cluster alone


def test_every_pin_is_imported_or_says_why_it_is_there():
    """A package that only tests import belongs into requirements-dev.txt."""
    for file in (REQUIREMENTS, CLUSTER):
        assert unused(file, third_party(tests=False)) == []
    assert unused(DEVELOPMENT, third_party(tests=True)) == []


def test_what_the_tests_import_is_pinned_in_one_file():
    modules = third_party(tests=True)
    assert "pytest" in modules
    assert unpinned(modules, REQUIREMENTS, DEVELOPMENT, CLUSTER) == []
    assert not read_pins(REQUIREMENTS).keys() & read_pins(DEVELOPMENT).keys()
    assert not read_pins(REQUIREMENTS).keys() & read_pins(CLUSTER).keys()


def test_the_rule_finds_what_is_wrong(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("# head\nTorch==1\nopen_clip_torch==2\nfirst==3  # why\nsecond==4\n")
    modules = {"torch": {"torch"}, "PIL": {"pillow"}, "open_clip": {"open-clip-torch"}}
    assert unpinned(modules, file) == ["PIL"]
    assert unused(file, modules) == ["second"]


def test_every_pin_has_a_version():
    for file in (REQUIREMENTS, DEVELOPMENT, CLUSTER):
        assert all(read_pins(file).values())
