"""A run that an earlier version left half-made goes on, to the same bytes: the files below are
written as that version wrote them, word for word.
"""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from memorization_suite.generate_images import main
from memorization_suite.pipelines.fingerprints import fingerprint, former_fingerprint
from tests.cli.helpers import CAPTIONS, KEYS, VARIANTS, change_byte, images, names, rows

BATCHES = (KEYS[:4], KEYS[4:8], KEYS[8:])
COLUMNS = "key,prompt_index,sample_index,prompt,seed,unet_evals,seconds,finite"
TRACED = "key,prompt_index,sample_index,step,timestep,magnitude,guidance_scale"
SETTINGS = {
    "per_image": ("no_mitigation", {}, ""),
    "batch_wise": (
        "batch_wise",
        {"rho": 50.0, "gamma": 0.7, "M": 2, "step": 1},
        ",first_magnitude,magnitude_before_last_step,failed,moved",
    ),
}
ENVIRONMENT = {
    "python": "3.11.7",
    "packages": {"torch": "2.14.1", "diffusers": "0.42.1"},
    "commit": "4ad9e67afe85520a0070f7e138b7423dd2002b8e",
}


def manifest(variant: str, model: str, finished: str | None = None) -> dict:
    """What the earlier version wrote about these runs."""
    method, settings, _ = SETTINGS[variant]
    prompts = "".join(f"{caption}\n" for caption in CAPTIONS)
    identity = {
        "model_id": former_fingerprint(Path(model)),
        "unet_id": None,
        "image_length": 32,
        "batch_size": 2,
        "n_samples_per_prompt": 2,
        "num_inference_steps": 4,
        "guidance_scale": 7.0,
        "seed": 2,
        "scheduler": "ddim",
        "dtype": "fp32",
        "rng": "per_image",
        "method": method,
        "method_settings": settings,
        "prompts_sha256": hashlib.sha256(prompts.encode()).hexdigest(),
        "device": "cpu",
    }
    return {
        "schema": 1,
        "identity": identity,
        "started": "2026-05-01T10:00:00+00:00",
        "environments": [ENVIRONMENT],
        "finished": finished,
    }


def lines_of(table: Path, keys) -> list[str]:
    """Header and rows of some images, as they stand in the file."""
    header, *lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    return [header, *(line for line in lines if line[:7] in map(str, keys))]


def half_made(made: Path, out: Path, variant: str, model: str, published: bool) -> Path:
    """The first batch of a finished run, and the second one's first two pictures, one of them
    another; with `published` the first batch's rows are in the tables and the second is done too.
    """
    folder = out / made.parent.name / made.name
    parts = folder / ".parts"
    parts.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest(variant, model), indent=2) + "\n")
    (folder / "config.json").write_text('{\n  "command": "python generate_images.py"\n}\n')
    for table in made.glob("*.csv"):
        first = folder / table.name if published else parts / f"{table.stem}_0000_00.csv"
        first.write_text("".join(lines_of(table, BATCHES[0])), encoding="utf-8")
        if published:
            second = parts / f"{table.stem}_0002_00.csv"
            second.write_text("".join(lines_of(table, BATCHES[1])), encoding="utf-8")
    there = (*BATCHES[0], *BATCHES[1]) if published else (*BATCHES[0], *BATCHES[1][:2])
    for name in names(there):
        shutil.copy(made / name, folder)
    if not published:
        (folder / names(BATCHES[1])[0]).write_bytes(b"another picture")
    if (made / "latents").is_dir():
        (folder / "latents").mkdir()
        for key in there:
            shutil.copy(made / "latents" / f"img_{key}.safetensors", folder / "latents")
    return folder


def without_seconds(folder: Path) -> list[dict[str, str]]:
    """Rows of images.csv but for what differs from run to run."""
    return [{**row, "seconds": ""} for row in rows(folder)]


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize(
    ("variant", "more"),
    [("per_image", ()), ("batch_wise", ()), ("batch_wise", ("--save_latents", "--trace"))],
)
def test_a_half_made_run_goes_on_to_the_same_bytes(
    generate, whole, traced, random_sd_folder, tmp_path, variant, more, published
):
    expected = traced(variant) if more else whole(variant)
    folder = half_made(expected, tmp_path, variant, random_sd_folder, published)
    kept = names([*BATCHES[0], *BATCHES[1]] if published else BATCHES[0])
    times = {name: (folder / name).stat().st_mtime_ns for name in kept}
    assert generate(tmp_path, *VARIANTS[variant], *more) == folder
    assert images(folder) == images(expected)
    assert without_seconds(folder) == without_seconds(expected)
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == times
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}
    if more:
        assert (folder / "trace.csv").read_bytes() == (expected / "trace.csv").read_bytes()
        for path in (expected / "latents").iterdir():
            assert (folder / "latents" / path.name).read_bytes() == path.read_bytes()
    told = json.loads((folder / "manifest.json").read_text())
    before = manifest(variant, random_sd_folder)
    now = {**before["identity"], "model_id": fingerprint(random_sd_folder)}
    assert told["identity"] == now and told["started"] == before["started"]
    assert told["environments"][0] == ENVIRONMENT and len(told["environments"]) == 2
    assert told["finished"] and (told["images"], told["of"]) == (10, 10)


@pytest.mark.parametrize("variant", SETTINGS)
def test_the_tables_have_the_columns_that_they_had(traced, variant):
    """And behind them what every image has by now."""
    folder = traced(variant)
    header = (folder / "images.csv").read_text().splitlines()[0]
    assert header == COLUMNS + SETTINGS[variant][2] + ",flat,cut_tokens,file_bytes"
    assert (folder / "trace.csv").read_text().splitlines()[0] == TRACED
    with open(folder / "images.csv", newline="", encoding="utf-8") as file:
        assert [row["key"] for row in csv.DictReader(file)] == [str(key) for key in KEYS]


def test_a_finished_run_is_finished(base, whole, random_sd_folder, tmp_path, capsys, no_model):
    folder = half_made(whole(), tmp_path, "per_image", random_sd_folder, published=True)
    told = manifest("per_image", random_sd_folder, "2026-05-01T10:05:00+00:00")
    (folder / "manifest.json").write_text(json.dumps(told | {"images": 8, "of": 10}, indent=2))
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    capsys.readouterr()
    words = [*base, "--output_path", str(tmp_path), "--end", "4"]
    assert main(words) == 0
    out, error = capsys.readouterr()
    assert out == f"8 images in {folder} (nothing to make)\n"
    assert (
        f"{folder} is of an earlier version, which looked at other files or other parts of model_id"
        in error
    )
    changed = {path.name for path in before if path.read_bytes() != before[path]}
    assert changed == {"config.json", "manifest.json"}
    after = json.loads((folder / "manifest.json").read_text())
    now = {**told["identity"], "model_id": fingerprint(random_sd_folder)}
    assert after == {**told, "images": 8, "of": 10, "identity": now}
    assert not list(folder.glob(".claims*")) and not list(folder.glob(".*.part"))
    assert main(words) == 0 and "earlier version" not in capsys.readouterr().err


@pytest.mark.parametrize("other", ["renamed", "first_bytes", "elsewhere"])
def test_what_an_earlier_version_told_apart_is_refused(
    base, whole, random_sd_folder, tmp_path, capsys, no_model, other
):
    """A folder of another name, or whose first bytes are others; and a model that is named in
    config.json, still there, and not the one of now, though the earlier version saw no difference.
    """
    own = Path(shutil.copytree(random_sd_folder, tmp_path / "A" / "model"))
    name = "renamed" if other == "renamed" else "model"
    model = Path(shutil.copytree(own, tmp_path / "B" / name))
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    if other != "renamed":
        change_byte(weights, 9000 if other == "first_bytes" else -1)
    folder = half_made(whole(), tmp_path / "out", "per_image", str(own), published=True)
    (folder / "config.json").write_text(json.dumps({"model_id": str(own)}))
    assert (former_fingerprint(own) == former_fingerprint(model)) == (other == "elsewhere")
    words = [*base, "--model_id", str(model), "--output_path", str(tmp_path / "out")]
    assert main(words) == 2
    assert "holds another run (model_id: " in capsys.readouterr().err
    if other == "elsewhere":
        shutil.rmtree(own)  # nothing tells any more
        assert main([*words, "--end", "4"]) == 0
