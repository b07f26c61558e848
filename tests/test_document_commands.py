"""The shell and Python blocks of the documents run as printed."""

import os
import shutil
import sys

import pytest

from tests.documents import (
    ROOT,
    VARIABLES,
    Copy,
    blocks_of,
    documents,
    read_document,
    run_blocks,
)
from tests.preloaded import preloaded

OWN = """
```sh
# A comment alone is no command.
NAME=made.txt
for word in one two; do   # a loop
  echo $word \\
    >> $NAME
done
cat <<END >> made.txt
three
END
```

```python
# lib_of_mine.py
VALUE = 3
```

```python
import pathlib

import lib_of_mine
import memorization_suite

assert memorization_suite.ROOT == pathlib.Path.cwd()
assert pathlib.Path("made.txt").read_text().split() == ["one", "two", "three"]
print(lib_of_mine.VALUE)
```

```sh slow
. .venv/bin/activate
make setup                # nothing is installed
make test
python -m pip install nothing
python -c "import sys; print(sys.executable)"
```

```text
not a command
```
"""
WRONG = """
```sh
echo fine
echo told; python -c "raise SystemExit(3)"
echo never
```
"""


@pytest.fixture(scope="module")
def python():
    """A Python that starts at once."""
    with preloaded(os.environ | VARIABLES) as program:
        yield program


@pytest.fixture
def copy(tmp_path, python):
    made = Copy(tmp_path, python=python)
    yield made
    shutil.rmtree(made.folder)


def test_a_block_is_cut_into_commands():
    blocks = blocks_of(OWN, "own.md")
    assert [(block.language, block.mark) for block in blocks] == [
        ("sh", ""),
        ("python", ""),
        ("python", ""),
        ("sh", "slow"),
        ("text", ""),
    ]
    shell = blocks[0]
    assert [command.line for command in shell.commands] == [4, 5, 9]
    assert shell.commands[1].text.endswith("done")
    assert shell.commands[2].text.endswith("END")
    assert blocks[1].written_to == "lib_of_mine.py" and not blocks[2].written_to


@pytest.mark.parametrize("text", ["```sh\nls", "```sh soon\nls\n```", "```sh\nfor a in b\n```"])
def test_a_wrong_block_is_named(text):
    with pytest.raises(ValueError, match="own.md:1"):
        [block.commands for block in blocks_of(text, "own.md")]


def test_the_blocks_of_a_document_run_in_order_on_the_copys_code(copy):
    outcomes = list(run_blocks(copy, blocks_of(OWN, "own.md"), ("", "slow")))
    assert [outcome.code for outcome in outcomes] == [0, 0, 0, 0, 0, 0, 0, 0, 0, None]
    assert outcomes[4].output == "3\n"
    assert "pip" not in outcomes[6].output
    assert outcomes[7].output == "pip is not run here: -m pip install nothing\n"
    assert outcomes[8].output == f"{sys.executable}\n"
    assert outcomes[9].command == "make test" and "test suite" in outcomes[9].note


def test_a_failure_is_told_and_ends_its_block(copy):
    fine, wrong, never = run_blocks(copy, blocks_of(WRONG, "wrong.md"), ("",))
    assert (fine.code, wrong.code, never.code) == (0, 3, None)
    assert wrong.place == "wrong.md:4" and wrong.tail() == "    told" and "not run" in never.note
    assert wrong.failed and not never.failed


def test_a_script_is_run_as_python_runs_it(copy, python):
    """The Python that starts at once gives what the plain one gives."""
    (copy.folder / "says.py").write_text(
        "import sys, os, atexit\n"
        "atexit.register(print, 'end')\n"
        "import memorization_suite\n"
        "print(sys.argv, os.getcwd(), sys.path[:2], memorization_suite.ROOT, os.environ['WORD'])\n"
        "print(__name__, __file__, sys.stdin.read(), file=sys.stderr)\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    plain = Copy(copy.folder.parent / "plain")
    shutil.copy(copy.folder / "says.py", plain.folder)
    text = "```sh\nexport WORD=x\necho in | python says.py 0 'a b'\npython says.py 4\n```\n"
    said = []
    for each in (copy, plain):
        outcomes = each.run(blocks_of(text, "own.md")[0])
        assert [outcome.code for outcome in outcomes] == [0, 0, 4]
        said.append([outcome.output.replace(str(each.folder), "") for outcome in outcomes])
    assert said[0] == said[1] and "end" in said[0][1]


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documents_run_as_printed(path, copy):
    blocks = read_document(path)
    if not any(block.is_run and not block.mark for block in blocks):
        pytest.skip("it has no block that runs in seconds")
    outcomes = list(run_blocks(copy, blocks, ("",)))
    print(*outcomes, sep="\n")
    faults = [f"{outcome}\n{outcome.tail()}" for outcome in outcomes if outcome.failed]
    assert not faults, "\n".join(faults)
