"""Snapshots of the hub, its client replaced at the boundary."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from memorization_suite.download.assets import RECORD
from tests.download.conftest import leftovers, sha256

FILES = {"model_index.json": b"{}", "unet/weights.safetensors": b"weights"}


class Hub:
    """What the hub has and does. calls: the arguments of every download."""

    def __init__(self):
        self.files, self.mismatches, self.error, self.calls = dict(FILES), [], None, []

    def snapshot_download(self, repo, *, revision, local_dir, allow_patterns, tqdm_class):
        self.calls.append((repo, revision, allow_patterns))
        for file in allow_patterns:
            if file in self.files:
                (Path(local_dir) / file).parent.mkdir(parents=True, exist_ok=True)
                (Path(local_dir) / file).write_bytes(self.files[file])
            if self.error:
                raise self.error
        (Path(local_dir) / ".cache").mkdir(exist_ok=True)

    def verify_repo_checksums(self, repo, *, revision, local_dir):
        return SimpleNamespace(mismatches=self.mismatches)


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    return hub


@pytest.fixture
def sd(table):
    """sd(**changes): the table of one model."""

    def make(**changes):
        return table(
            sd={
                "kind": "hub",
                "repo": "o/sd",
                "revision": "c0ffee",
                "files": dict.fromkeys(FILES, ""),
                "path": "models/sd",
            }
            | changes
        )

    make()
    return make


def test_a_snapshot_is_fetched_and_its_checksums_recorded(hub, sd, fetch, root):
    said = fetch("sd")
    assert (
        said.code == 0
        and "the hub's checksums agree" in said.out
        and hub.calls == [("o/sd", "c0ffee", list(FILES))]
    )
    placed = root / "models" / "sd"
    assert {
        path.relative_to(placed).as_posix(): path.read_bytes()
        for path in placed.rglob("*")
        if path.is_file()
    } == FILES
    assert json.loads((root / RECORD).read_text())["sd"]["files"] == {
        name: sha256(content) for name, content in FILES.items()
    }
    assert not leftovers(root) and "already there" in fetch("sd").out and len(hub.calls) == 1


def test_it_goes_on_in_the_same_folder_and_has_no_final_name_before(hub, sd, fetch, root):
    hub.error = LocalEntryNotFoundError("Got: ConnectError\nAn error happened")
    said = fetch("sd")
    assert (
        said.code == 1
        and said.err.count("\n") == 1
        and "does not hand out o/sd" in said.err
        and not (root / "models" / "sd").exists()
    )
    assert (root / "models" / ".sd.incoming" / "content" / "model_index.json").exists()
    assert "of it are here" in fetch("--check", "sd").out
    hub.error = None
    assert fetch("sd").code == 0 and not leftovers(root)


def test_the_hubs_own_checksums_count(hub, sd, fetch, root):
    hub.mismatches = [
        {"path": "unet/weights.safetensors", "expected": "a", "actual": "b", "algorithm": "sha256"}
    ]
    said = fetch("sd")
    assert said.code == 1 and "unet/weights.safetensors has not the checksum" in said.err
    assert not leftovers(root) and not (root / "models" / "sd").exists()


def test_a_checksum_known_in_advance_counts_too(hub, sd, fetch, root):
    sd(files={"model_index.json": "", "unet/weights.safetensors": sha256(b"other")})
    said = fetch("sd")
    assert said.code == 1 and "the sha256 of unet/weights.safetensors is" in said.err
    assert not leftovers(root) and not (root / "models" / "sd").exists()


def test_a_file_that_the_hub_has_not(hub, sd, fetch, root):
    del hub.files["model_index.json"]
    said = fetch("sd")
    assert (
        said.code == 1
        and "o/sd at c0ffee has no model_index.json" in said.err
        and not (root / "models" / "sd").exists()
    )


def test_a_full_disk_is_not_called_a_fault_of_the_hub(hub, sd, fetch):
    hub.error = OSError(errno.ENOSPC, "No space left on device")
    assert "no space is left" in fetch("sd").err


def test_all_checksums_known_need_no_record(hub, sd, fetch, root):
    sd(files={name: sha256(content) for name, content in FILES.items()})
    assert "checksum: known" in fetch("sd").out and not (root / RECORD).exists()


def test_a_replaced_folder_leaves_nothing_behind(hub, sd, fetch, root):
    fetch("sd")
    (root / "models" / "sd" / "model_index.json").write_bytes(b"mine")
    assert fetch("sd").code == 1 and fetch("sd", "--overwrite").code == 0
    assert (root / "models" / "sd" / "model_index.json").read_bytes() == b"{}" and not leftovers(
        root
    )
