"""What a model is known by: a folder's content, a hub id's commit."""

import json
import shutil
from pathlib import Path

import pytest

from memorization_suite import generate_images
from memorization_suite.pipelines import hub
from memorization_suite.pipelines.fingerprints import fingerprint, hash_of, unet_fingerprint
from memorization_suite.pipelines.model_files import every_file, files_of_parts
from memorization_suite.runs.identity import Content, differences, differing, renewed, same
from memorization_suite.runs.run_folder import RunFolder
from tests.cli.helpers import change_byte
from tests.recipes import recipe

COMMIT, NEWER = 40 * "a", 40 * "b"
REPO = "somebody/model"


@pytest.fixture
def put(tmp_path, monkeypatch):
    """put(folder, commit, repo): what the cache of the hub has of a repository's main branch."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "is_reachable", lambda: False)

    def forget() -> None:
        hub.fetched.cache_clear()
        hub.COMMITS.clear()

    def into_cache(folder: str, commit: str, repo: str = REPO) -> None:
        place = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / "main").write_text(commit)
        forget()

    forget()
    yield into_cache
    forget()


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Flags of a small run of a hub id."""
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("two cats\n")
    words = ["--model_id", REPO, "--prompts", "prompts.txt", "--image_length", "16", "--quiet"]
    return [*words, "--num_inference_steps", "2", "-n", "1", "--output_path", "runs"]


def identity(folder: Path) -> dict:
    return (RunFolder(next(folder.glob("*/*"))).manifest() or {})["identity"]


def test_what_a_training_left_beside_weights_does_not_count(random_sd_folder, tmp_path):
    """A run that was begun when it counted goes on, but not with other weights."""
    model = Path(shutil.copytree(random_sd_folder, tmp_path / "model"))
    plain = fingerprint(str(model)), unet_fingerprint(str(model))
    for name in ("notes.txt", "optimizer.bin"):
        (model / "unet" / name).write_text("x")
    (model / "unet" / "checkpoint-5").mkdir()
    (model / "unet" / "checkpoint-5" / "config.json").write_text("{}")
    assert (fingerprint(str(model)), unet_fingerprint(str(model))) == plain
    listed = json.loads((model / "model_index.json").read_text())
    parts = [name for name, value in listed.items() if isinstance(value, list)]
    files = [model / "model_index.json", *files_of_parts(model, parts, every_file)]
    before = {"model_id": hash_of(model, files)}
    before["unet_id"] = hash_of(model / "unet", every_file(model / "unet"))

    def now():
        return {"model_id": fingerprint(str(model)), "unet_id": unet_fingerprint(str(model))}

    assert before["model_id"] != plain[0] and before["unet_id"] != plain[1]
    assert not differing(before, now())
    assert renewed(before, now()) == ({"model_id": plain[0], "unet_id": plain[1]}, [*before])
    change_byte(model / "unet" / "diffusion_pytorch_model.safetensors", -1)
    assert list(differing(before, now())) == ["model_id", "unet_id"]


def test_a_hub_id_is_known_by_its_commit(put, random_sd_folder):
    assert fingerprint(REPO) == REPO and not fingerprint(REPO).known
    put(random_sd_folder, COMMIT)
    assert fingerprint(REPO) == f"{REPO}@{COMMIT}"
    assert unet_fingerprint(REPO) == f"{REPO}@{COMMIT}"
    assert unet_fingerprint(None) is None


def test_one_process_stays_with_one_commit(put, random_sd_folder, tmp_path):
    put(random_sd_folder, COMMIT)
    fingerprint(REPO)
    (tmp_path / "hub" / "models--somebody--model" / "refs" / "main").write_text(NEWER)
    assert fingerprint(REPO) == f"{REPO}@{COMMIT}"


def test_the_commit_that_is_named_is_loaded(put, random_sd_folder, tmp_path, asked, capsys):
    """Another commit is another run, although an image of it may be asked for by the same words."""
    put(random_sd_folder, COMMIT)
    assert generate_images.main(asked) == 0
    assert identity(Path("runs"))["model_id"] == f"{REPO}@{COMMIT}"
    image = next(Path("runs").rglob("*.png"))
    first = image.read_bytes()
    newer = shutil.copytree(random_sd_folder, tmp_path / "newer")
    weights = newer / "vae" / "diffusion_pytorch_model.safetensors"
    for place in range(-200, -1):
        change_byte(weights, place)
    put(str(newer), NEWER)
    capsys.readouterr()
    assert generate_images.main(asked) == 2
    error = capsys.readouterr().err
    assert f"{REPO} ({REPO}@{COMMIT}) there, {REPO} ({REPO}@{NEWER}) now" in error
    assert "--output_path runs_model, or --overwrite" in error
    # The commit that a process has begun with is loaded, whatever main is by then.
    (tmp_path / "hub" / "models--somebody--model" / "refs" / "main").write_text(COMMIT)
    hub.COMMITS.clear()
    fingerprint(REPO)
    (tmp_path / "hub" / "models--somebody--model" / "refs" / "main").write_text(NEWER)
    image.unlink()
    assert generate_images.main(asked) == 0 and image.read_bytes() == first


def test_a_run_of_an_earlier_version_learns_its_commit(put, random_sd_folder, asked, capsys):
    put(random_sd_folder, COMMIT)
    assert generate_images.main(asked) == 0
    manifest = next(Path("runs").glob("*/*")) / "manifest.json"
    told = json.loads(manifest.read_text())
    told["identity"]["model_id"] = REPO
    manifest.write_text(json.dumps(told))
    capsys.readouterr()
    assert generate_images.main(asked) == 0
    assert "nothing to make" in capsys.readouterr().out
    assert identity(Path("runs"))["model_id"] == f"{REPO}@{COMMIT}"


def test_a_finished_run_needs_no_hub(put, random_sd_folder, asked, tmp_path, capsys):
    """Its commit stays known."""
    put(random_sd_folder, COMMIT)
    assert generate_images.main(asked) == 0
    shutil.rmtree(tmp_path / "hub")
    hub.COMMITS.clear()
    capsys.readouterr()
    assert generate_images.main(asked) == 0 and "nothing to make" in capsys.readouterr().out
    assert identity(Path("runs"))["model_id"] == f"{REPO}@{COMMIT}"


def test_a_family_of_a_plugin_counts_all_its_files(registries, tmp_path):
    """Which of them it reads, nobody else knows."""
    plugin = tmp_path / "flow.py"
    plugin.write_text(recipe("A model family"), encoding="utf-8")
    generate_images.build_parser(["--plugin", str(plugin)])
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "ToyFlowPipeline"}))
    (folder / "weights.npz").write_bytes(b"x" * 9)
    before = fingerprint(str(folder))
    assert ", plugin flow " in before
    (folder / "README.md").write_text("x")
    assert fingerprint(str(folder)) == before
    change_byte(folder / "weights.npz", -1)
    assert fingerprint(str(folder)) != before


# --- identities ---


def test_what_an_earlier_version_wrote_is_the_same_and_renewed():
    now = Content("sha256 1", "new/place", flag="model_id", was=lambda there, named: there == "old")
    assert same("sha256 1", now) and same("old", now) and not same("other", now)
    assert same({"a": "old"}, {"a": now}) and not same({"a": "old", "b": 1}, {"a": now})
    before = {"model_id": "old", "seed": 1, "more": None}
    assert differing(before, {"model_id": now, "seed": 1}) == {}
    assert renewed(before, {"model_id": now, "seed": 1}) == (
        {"model_id": "sha256 1", "seed": 1, "more": None},
        ["model_id"],
    )
    assert differences({"model_id": "other"}, {"model_id": now}, {"model_id": "its/place"}) == [
        "model_id: its/place (other) there, new/place (sha256 1) now"
    ]


def test_what_is_not_known_now_stays_as_it_was():
    now = Content("o/m", "o/m", was=lambda there, named: there == "o/m@1", known=False)
    assert same("o/m@1", now) and renewed({"m": "o/m@1"}, {"m": now}) == ({"m": "o/m@1"}, [])
