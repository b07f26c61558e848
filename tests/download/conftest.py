"""A server, a root folder, and the command on a table of our own."""

import hashlib
import json
from collections import namedtuple

import pytest

import memorization_suite.download.transfer
from memorization_suite.commands.fetch import main
from tests.download.server import serving

Said = namedtuple("Said", "code out err")
PLAIN = {
    "what": "w",
    "group": "things",
    "kind": "file",
    "used_by": "u",
    "licence": "l",
    "source": "s",
}


def toml(value) -> str:
    """A text, a number or a table of texts as TOML."""
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items())
            + " }"
        )
    return json.dumps(value)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def leftovers(root) -> list[str]:
    """Everything that is no final name and no record."""
    return sorted(
        path.name
        for path in root.rglob("*")
        if path.name.endswith(".incoming") or path.name.endswith(".part")
    )


@pytest.fixture(autouse=True)
def one_try(monkeypatch):
    """Transfers are not tried again, unless a test says so."""
    monkeypatch.setattr(memorization_suite.download.transfer, "PAUSES", ())


@pytest.fixture
def server():
    with serving() as shelf:
        yield shelf


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def table(tmp_path):
    """table(name={...}, ...): a file of assets; what an entry does not say is PLAIN."""

    def write(**entries):
        path = tmp_path / "assets.toml"
        lines = []
        for name, entry in entries.items():
            lines += [
                f"[{name}]",
                *(f"{key} = {toml(value)}" for key, value in (PLAIN | entry).items()),
            ]
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def fetch(root, tmp_path, capsys):
    """fetch(*argv): runs the command on the table and the root; exit code and what was said, at
    most one line an asset on stderr.
    """

    def run(*argv):
        try:
            code = main(
                [*argv, "--root", str(root), "--assets", str(tmp_path / "assets.toml"), "--quiet"]
            )
        except SystemExit as leave:
            code = leave.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err and all(
            line.startswith("download/fetch.py: ") for line in err.splitlines()
        )
        return Said(code, out, err)

    return run
