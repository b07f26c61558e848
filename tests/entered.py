"""How many files and functions of the project a command enters.

python -m tests.entered generate_images.py --model_id tiny --end 1 -n 1 ...   # see sys.setprofile

Imports are left out: a function counts when it is called after all modules are there, so the
command runs twice, and the second time is measured.
"""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def entered(script: str, argv: list[str]) -> tuple[set[str], set[tuple[str, str, int]]]:
    """(files, functions) that the command enters; functions as (file, name, line)."""
    files: set[str] = set()
    functions: set[tuple[str, str, int]] = set()
    root = str(Path.cwd())

    def watch(frame, event, _):
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(root):
            return
        if code.co_name.startswith("<"):  # modules, comprehensions, lambdas
            return
        files.add(code.co_filename)
        functions.add((code.co_filename, code.co_name, code.co_firstlineno))

    sys.argv = [script, *argv]
    run(script)
    sys.setprofile(watch)
    try:
        run(script)
    finally:
        sys.setprofile(None)
    return files, functions


def run(script: str) -> None:
    """The command in this process."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as leave:
        if leave.code:
            raise


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    files, functions = entered(sys.argv[1], sys.argv[2:])
    print(f"{len(files)} files, {len(functions)} functions", file=sys.stderr)
    for file in sorted(files):
        print(Path(file).relative_to(Path.cwd()))
