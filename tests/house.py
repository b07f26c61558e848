"""Figures of the source. `python -m tests.house [FOLDER]` prints them for a checkout."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MADE = {"build", "demo", "generated_images", "sweep_results", "detections"}  # by tools and runs
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (ast.Module, ast.ClassDef, *FUNCTIONS)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def source_files(root: Path = ROOT, *, tests: bool = False) -> list[Path]:
    """Every .py below root; without `tests` the suite's alone. Hidden folders are left out."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if parts[0] in MADE or parts[0].startswith(".") or (parts[0] == "tests" and not tests):
            continue
        found.append(path)
    return found


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """The docstring nodes of modules, classes and functions."""
    for node in ast.walk(tree):
        if not isinstance(node, BLOCKS) or not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            yield first.value


def code_lines(text: str, tree: ast.AST) -> int:
    """Lines that are neither blank nor a comment nor part of a docstring."""
    prose = {
        number
        for node in docstrings(tree)
        for number in range(node.lineno, node.end_lineno + 1)  # type: ignore[operator]
    }
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in prose
        for number, line in enumerate(text.splitlines(), 1)
    )


def is_pair(node: ast.AST) -> bool:
    """`a, b = c, d`: two thoughts on a line."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Tuple)
        and isinstance(node.targets[0], ast.Tuple)
    )


def parameters(node: ast.FunctionDef) -> int:
    """How many a caller may give; `self` and `cls` are not given."""
    names = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return sum(one.arg not in ("self", "cls") for one in names)


def inner_imports(tree: ast.AST) -> int:
    """Import statements inside functions."""
    found: set[ast.AST] = set()
    for function in ast.walk(tree):
        if isinstance(function, FUNCTIONS):
            found |= {n for n in ast.walk(function) if isinstance(n, (ast.Import, ast.ImportFrom))}
    return len(found)


def figures(root: Path = ROOT, *, tests: bool = False) -> dict[str, float]:
    """Name -> figure, over all files together."""
    sums = dict.fromkeys(
        (
            "files",
            "lines",
            "code lines",
            "nodes",
            "tuple assignments",
            "comprehensions",
            "functions",
            "functions of more than 6 parameters",
            "imports inside functions",
        ),
        0,
    )
    for path in source_files(root, tests=tests):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        nodes = list(ast.walk(tree))
        functions = [node for node in nodes if isinstance(node, FUNCTIONS)]
        sums["files"] += 1
        sums["lines"] += len(text.splitlines())
        sums["code lines"] += code_lines(text, tree)
        sums["nodes"] += len(nodes)
        sums["tuple assignments"] += sum(map(is_pair, nodes))
        sums["comprehensions"] += sum(isinstance(node, COMPREHENSIONS) for node in nodes)
        sums["functions"] += len(functions)
        sums["functions of more than 6 parameters"] += sum(parameters(f) > 6 for f in functions)
        sums["imports inside functions"] += inner_imports(tree)
    density = round(sums["nodes"] / max(1, sums["code lines"]), 2)
    return sums | {"syntax nodes a code line": density}


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    for name, value in figures(folder).items():
        print(f"{value:>10}  {name}")
