"""House rules that a reader would otherwise have to check: short functions and modules, docstrings,
no star imports, no mutable defaults.
"""

import ast

import pytest

from tests.house import FUNCTIONS, figures
from tests.test_imports import ALLOWED, ROOT, TOP, python_files

# Typed and with tensor algebra; the whole suite had 13.7 before it was formatted.
NODES_A_LINE = 9.4
EVERY_FILE = pytest.mark.parametrize("path", python_files(), ids=str)
PACKAGE_FILES = [
    path
    for path in python_files()
    if path.parts[0] in ALLOWED or (len(path.parts) > 1 and path.parts[0] not in TOP)
]


def nodes(path, *kinds):
    """All nodes of these kinds in the file."""
    return [
        node
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, kinds)
    ]


def is_mutable(default) -> bool:
    """[], {}, {1}, a comprehension, list(), dict(), set()."""
    called = (
        isinstance(default, ast.Call)
        and isinstance(default.func, ast.Name)
        and default.func.id in ("list", "dict", "set")
    )
    return called or isinstance(
        default, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    )


def test_lines_hold_one_thought():
    """Syntax nodes a code line: untyped code bases that read well lie between 6.5 and 11."""
    assert figures()["syntax nodes a code line"] <= NODES_A_LINE


@EVERY_FILE
def test_no_star_import(path):
    assert [node.lineno for node in nodes(path, ast.ImportFrom) if node.names[0].name == "*"] == []


@EVERY_FILE
def test_no_mutable_default(path):
    defaults = [
        (node.lineno, default)
        for node in nodes(path, *FUNCTIONS, ast.Lambda)
        for default in node.args.defaults + node.args.kw_defaults
    ]
    assert [line for line, default in defaults if is_mutable(default)] == []


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=str)
def test_public_functions_and_classes_have_docstrings(path):
    """Those of the module's top level; methods inherit theirs from the hook they override."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    public = [
        node
        for node in tree.body
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_")
    ]
    assert [
        f"{node.name}, line {node.lineno}" for node in public if not ast.get_docstring(node)
    ] == []
