"""Runs what the documents tell people to type, in a copy of the checkout.

    python -m tests.documents [--slow] [FILE...]

A fenced block says by its first words what it is:

- `sh`: shell commands that run as printed, in seconds; tests/test_document_commands.py runs them.
- `sh slow`: in minutes; run with --slow.
- `sh download`: they need fetched files; tests/stable_diffusion/ runs them with stand-ins.
- `python`: a script, with the same marks; what earlier ones imported is there.
- any language whose first line is a comment with a file name alone, `# my_noise.py`: that file,
  which later blocks use.

Blocks of a document run in its order in one copy, so that later ones see the files of earlier ones.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from memorization_suite.commands import setup

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("README.md", "CONTRIBUTING.md", "docs/*.md", "*/README.md")
SHELLS = ("sh", "bash")
MARKS = ("", "slow", "download")
# A command that is not run -> why.
LEFT_OUT = {
    r"make test\b": "it is the test suite, of which this is a part",
    r"make (train-tiny|evaluate-tiny|reproduce)\b(?!.*QUICK=1)": "it takes hours",
    r"make gpu-check\b": "it needs a GPU",
    r"make clean\b": "it removes the environment",
    r"git (clone|push|pull)\b": "it needs the network",
    r"--launcher slurm\b": "it needs a Slurm cluster",
}
LIMIT = {"": 120.0, "slow": 1800.0, "download": 1800.0}  # seconds a command
MARKER = "=== document command"
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
# Of the shell. No network is reached, no cache of the hub is found.
VARIABLES = {
    **dict.fromkeys(PROXIES, "http://127.0.0.1:9"),  # where nobody answers
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": str(Path(tempfile.gettempdir()) / "no_hub_here"),
    "MPLBACKEND": "agg",
    "OMP_NUM_THREADS": "1",  # for small models the quickest, and more so beside other work
    "VENV": ".venv",
    "PYTHONDONTWRITEBYTECODE": "",  # the copy is compiled once
}
# Programs of the copy. Nothing is installed into the environment that runs this.
NO_PIP = '#!/bin/sh\necho "pip is not run here: $*"\n'
PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m pip" ]; then echo "pip is not run here: $*"; exit; fi
exec "{python}" "$@"
"""


# --- reading ---


@dataclass(frozen=True)
class Command:
    """A command of a shell block: one line or several. line: where it begins in the document."""

    line: int
    text: str

    @property
    def left_out(self) -> str:
        """Why it is not run; empty when it is."""
        for pattern, why in LEFT_OUT.items():
            if re.search(pattern, self.text):
                return why
        return ""


@dataclass(frozen=True)
class Block:
    """A fenced block. file: relative to the checkout. line: of the fence."""

    file: str
    line: int
    language: str
    mark: str
    text: str

    @property
    def place(self) -> str:
        """`README.md:12`."""
        return f"{self.file}:{self.line}"

    @property
    def written_to(self) -> str:
        """The file that the block is, if its first line names one."""
        first = self.text.split("\n", 1)[0]
        named = re.fullmatch(r"# ([\w./-]+\.\w+)", first.strip())
        return named[1] if named else ""

    @property
    def is_shell(self) -> bool:
        return self.language in SHELLS

    @property
    def is_run(self) -> bool:
        """Whether something is done with it: shell, Python, or a file that is written."""
        return self.is_shell or self.language == "python" or bool(self.written_to)

    @cached_property
    def commands(self) -> list[Command]:
        """The commands of a shell block, in order. Raises ValueError for one that has no end."""
        commands = []
        waiting: list[str] = []
        for number, line in enumerate(self.text.splitlines(), self.line + 1):
            waiting.append(line)
            text = "\n".join(waiting)
            if is_complete(text):
                if re.sub(r"^\s*#.*$", "", text, flags=re.M).strip():
                    commands.append(Command(number - len(waiting) + 1, text))
                waiting = []
        if waiting:
            raise ValueError(f"{self.place}: bash does not understand {waiting[0]!r} and after")
        return commands


def is_complete(text: str) -> bool:
    """Whether bash takes these lines as whole commands: no open loop, quote or continuation."""
    if text.endswith("\\"):
        return False
    done = subprocess.run(["bash", "-n"], input=text + "\n", text=True, capture_output=True)
    return done.returncode == 0 and not done.stderr


def blocks_of(text: str, file: str) -> list[Block]:
    """The fenced blocks of a document. Raises ValueError for an unknown mark, or an open fence."""
    blocks = []
    begin = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if begin is None and line.startswith("```"):
            language, _, mark = line[3:].strip().partition(" ")
            begin = Block(file, number, language, mark.strip(), "")
            lines = []
            if begin.is_run and begin.mark not in MARKS:
                raise ValueError(f"{begin.place}: {mark!r} is no mark: slow, download or nothing")
        elif begin is not None and line.rstrip() == "```":
            blocks.append(replace(begin, text="".join(f"{line}\n" for line in lines)))
            begin = None
        else:
            lines.append(line)
    if begin is not None:
        raise ValueError(f"{begin.place}: the block has no end")
    return blocks


def documents(root: Path = ROOT) -> list[Path]:
    """Every document, README.md first."""
    found = [path for place in PLACES for path in sorted(root.glob(place))]
    return [path for path in found if not path.parent.name.startswith(".")]


def read_document(path: Path, root: Path = ROOT) -> list[Block]:
    """The fenced blocks of a file. Raises ValueError."""
    return blocks_of(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix())


# --- running ---


@dataclass(frozen=True)
class Outcome:
    """What became of a command. code: None when it was not run, and `note` says why."""

    place: str
    command: str
    seconds: float = 0.0
    code: int | None = None
    note: str = ""
    output: str = field(default="", repr=False)

    @property
    def failed(self) -> bool:
        return self.code not in (None, 0)

    def __str__(self) -> str:
        first = self.command.strip().splitlines()[0]
        state = "-" if self.code is None else str(self.code)
        return f"{self.place:<22} {self.seconds:>7.1f} s  {state:>3}  {first[:100]}{self.note}"

    def tail(self, lines: int = 15) -> str:
        """The end of what it said."""
        return "\n".join(f"    {line}" for line in self.output.splitlines()[-lines:])


class Copy:
    """The checkout's files in a folder of their own, and a shell that runs its code.

    Tracked files, and untracked ones that git does not ignore. `python` there is this interpreter,
    and imports the copy. `.venv` is there and ready, so that `make setup` installs nothing.
    """

    def __init__(
        self,
        folder: Path,
        root: Path = ROOT,
        *,
        more: Mapping[str, str] | None = None,
        python: Path | None = None,
    ):
        """more: variables of the shell. python: a program in the place of this interpreter."""
        self.folder = folder / "checkout"
        self.scratch = folder / "scratch"
        self.scratch.mkdir(parents=True)
        copy_checkout(root, self.folder)
        make_environment(self.folder / ".venv", python or Path(sys.executable))
        self.environment = self.variables() | dict(more or {})
        # Of the Python blocks that were run.
        self.imports: list[str] = []

    def variables(self) -> dict[str, str]:
        """Of the shell."""
        path = [self.folder / ".venv" / "bin", sysconfig.get_path("scripts"), os.environ["PATH"]]
        own = {"PATH": os.pathsep.join(map(str, path)), "PYTHONPATH": str(self.folder)}
        return os.environ | VARIABLES | own

    def run(self, block: Block) -> list[Outcome]:
        """Does what the block says; after a command that fails the others are not run."""
        if block.written_to:
            path = self.folder / block.written_to
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            return [Outcome(block.place, f"({block.written_to} is written)", code=0)]
        if block.is_shell:
            return self.run_shell(block)
        script = self.scratch / f"line_{block.line}.py"
        script.write_text("\n".join([*self.imports, block.text]), encoding="utf-8")
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self.imports.append(ast.unparse(node))
        command = Command(block.line, f"python {script}")
        return self.run_commands(block, [command], shown="(the Python block)")

    def run_shell(self, block: Block) -> list[Outcome]:
        """Runs its commands in one shell, without those that are left out."""
        commands = [command for command in block.commands if not command.left_out]
        outcomes = self.run_commands(block, commands)
        for command in block.commands:
            if command.left_out:
                place = f"{block.file}:{command.line}"
                outcomes.append(Outcome(place, command.text, note=f"  ({command.left_out})"))
        return outcomes

    def run_commands(self, block: Block, commands: list[Command], shown: str = "") -> list[Outcome]:
        """Runs commands in one `bash -e`."""
        if not commands:
            return []
        lines = []
        for number, command in enumerate(commands):
            lines += [f"echo '{MARKER} {number}'", command.text]
        limit = LIMIT[block.mark] * len(commands)
        code, heard = self.bash("\n".join(lines), limit)
        outcomes = []
        for number, command in enumerate(commands):
            place = f"{block.file}:{command.line}"
            text = shown or command.text
            if number not in heard:
                outcomes.append(Outcome(place, text, note="  (not run)"))
                continue
            last = number + 1 not in heard
            seconds, output = heard[number]
            outcomes.append(Outcome(place, text, seconds, code if last else 0, output=output))
        return outcomes

    def bash(self, script: str, limit: float) -> tuple[int, dict[int, tuple[float, str]]]:
        """(exit code, number of a command that was begun -> its seconds and what it said)."""
        process = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert process.stdout
        timer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        begun: dict[int, float] = {}
        said: dict[int, list[str]] = {}
        number = -1
        for line in process.stdout:
            if line.startswith(MARKER):
                number = int(line.removeprefix(MARKER))
                begun[number] = time.perf_counter()
                said[number] = []
            elif number >= 0:
                said[number].append(line)
        code = process.wait()
        timer.cancel()
        ends = [*list(begun.values())[1:], time.perf_counter()]
        heard = {}
        for (number, start), end in zip(begun.items(), ends):
            heard[number] = (end - start, "".join(said[number]))
        if code == -signal.SIGKILL:
            heard[number] = (heard[number][0], f"{heard[number][1]}\nkilled after {limit:g} s")
        return code, heard


def copy_checkout(root: Path, folder: Path) -> None:
    """Copies what git tracks or would track. Times are kept, so that make sees nothing new."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source = root / name
        if source.is_file():  # else it was deleted, and git has not been told
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def make_environment(folder: Path, python: Path) -> None:
    """What `make setup` leaves, without an installation: this interpreter's programs."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for path in Path(sysconfig.get_path("scripts")).iterdir():
        if not path.name.startswith(("python", "pip", "activate")):
            (programs / path.name).symlink_to(path)
    for name in ("python", "python3"):
        write_program(programs / name, PYTHON.format(python=python))
    for name in ("pip", "pip3"):
        write_program(programs / name, NO_PIP)
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
    planned = setup.steps([], development=True)
    setup.write_stamp(folder, {step.name: step.digest for step in planned})


def write_program(path: Path, text: str) -> None:
    """An executable file."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def run_blocks(copy: Copy, blocks: Iterable[Block], marks: Collection[str]) -> Iterator[Outcome]:
    """Runs the blocks with these marks, in order; files are written whatever their mark."""
    for block in blocks:
        if block.is_run and (block.mark in marks or block.written_to):
            yield from copy.run(block)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 1 when a command failed, else 0."""
    parser = argparse.ArgumentParser("python -m tests.documents", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: all")
    parser.add_argument("--slow", action="store_true", help="also what takes minutes")
    args = parser.parse_args(argv)
    files = [path.resolve() for path in args.files] or documents()
    marks = ("", "slow") if args.slow else ("",)
    failed = 0
    for path in files:
        blocks = read_document(path)
        with tempfile.TemporaryDirectory(prefix="documents_") as folder:
            for outcome in run_blocks(Copy(Path(folder)), blocks, marks):
                print(outcome, flush=True)
                if outcome.failed:
                    failed += 1
                    print(outcome.tail(), flush=True)
    print(f"{failed} failed" if failed else "all well")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
