"""huggingface_hub itself against a hub on loopback: the command as a user runs it, in a process of
its own, which reads HF_ENDPOINT.
"""

import os
import subprocess
import sys

import pytest

from memorization_suite import ROOT
from tests.download.conftest import leftovers
from tests.download.hub_server import COMMIT, serving

FILES = {"model_index.json": b"{}", "unet/weights.safetensors": bytes(range(256)) * 100}
WANTED = dict.fromkeys(FILES, "")


@pytest.fixture
def hub():
    with serving(FILES | {"unet/weights.bin": b"not asked for" * 100}) as repo:
        yield repo


@pytest.fixture
def run(hub, table, root, tmp_path):
    """run(**changes): fetches o/sd into the root; the finished process."""

    def fetch(**changes):
        path = table(
            sd={"kind": "hub", "repo": "o/sd", "files": WANTED, "path": "models/sd"} | changes
        )
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("HF_") and not name.lower().endswith("_proxy")
        }
        return subprocess.run(
            [
                sys.executable,
                str(ROOT / "download" / "fetch.py"),
                "sd",
                "--root",
                str(root),
                "--assets",
                str(path),
                "--quiet",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env=kept
            | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)},
        )

    return fetch


def said(done) -> str:
    """The one line of a fault."""
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and not done.stdout, done
    return done.stderr


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_snapshot_to_the_end(hub, run, root, revision):
    done = run(revision=revision)
    assert (done.returncode, done.stderr) == (0, "") and "the hub's checksums agree" in done.stdout
    placed = root / "models" / "sd"
    assert {
        path.relative_to(placed).as_posix(): path.read_bytes()
        for path in placed.rglob("*")
        if path.is_file()
    } == FILES
    assert not leftovers(root) and not any("weights.bin" in path for _, path, _ in hub.requests)


def test_content_that_is_not_what_the_hub_lists(hub, run, root):
    hub.sends["unet/weights.safetensors"] = FILES["unet/weights.safetensors"][::-1]
    assert (
        "unet/weights.safetensors has not the checksum that the hub gives" in said(run())
        and not (root / "models" / "sd").exists()
    )


def test_what_the_hub_has_not(hub, run, root):
    assert "o/sd at main has no vae/config.json" in said(
        run(files=WANTED | {"vae/config.json": ""})
    )
    assert (
        "the hub does not hand out o/other: RepositoryNotFoundError" in said(run(repo="o/other"))
        and not (root / "models" / "sd").exists()
    )


def test_a_hub_that_cannot_be_reached_and_then_can(hub, run, root):
    there, hub.url = hub.url, "http://127.0.0.1:1"
    assert "the hub does not hand out o/sd" in said(run()) and not (root / "models" / "sd").exists()
    hub.url = there
    assert (
        run().returncode == 0
        and (root / "models" / "sd" / "model_index.json").read_bytes() == b"{}"
        and not leftovers(root)
    )


def test_more_than_is_stated(hub, run, root):
    assert "more comes than the 5 kB that are stated" in said(run(size=5000))
    assert not (root / "models" / "sd").exists() and not leftovers(root)
