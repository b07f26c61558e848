"""The recipes of CONTRIBUTING.md do what they say, as files outside the checkout.

The one of a model family is tests/test_families.py's; tests/metrics compares the metric's numbers.
"""

import csv
import shlex
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from memorization_suite import ROOT, detect_memorization, generate_images
from memorization_suite.commands.score_scripts import run_script
from memorization_suite.metrics.scripts import PREFERENCE
from tests.recipes import recipe

SMALL = ["--model_id", "tiny", "--end", "2", "-n", "2", "-b", "2", "--quiet"]

pytestmark = pytest.mark.skipif(
    not (ROOT / "tiny" / "weights" / "tiny" / "unet").is_dir(), reason="no embedded model"
)


@pytest.fixture
def plugin(registries, tmp_path):
    """plugin(title): the flag with a file that holds the recipe."""

    def write(title: str, number: int = 0) -> list[str]:
        file = tmp_path / f"{title.split()[-1]}_{number}.py"
        file.write_text(recipe(title, number=number), encoding="utf-8")
        return ["--plugin", str(file)]

    return write


def rows(file) -> list[dict[str, str]]:
    """The rows of a table."""
    with open(file, newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def test_a_mitigation(plugin, tmp_path):
    argv = [*plugin("A mitigation"), *SMALL, "--num_inference_steps", "4"]
    argv += ["--output_path", str(tmp_path / "runs")]
    assert generate_images.main([*argv, "--method", "walk_down", "--strength", "0.2"]) == 0
    (table,) = (tmp_path / "runs" / "walk_down").rglob("images.csv")
    assert "strength0.2" in table.parent.name
    assert {row["unet_evals"] for row in rows(table)} == {str(2 + 2 * 4)}


def test_a_detector(plugin, tmp_path):
    argv = [*plugin("A detector"), *SMALL, "--output_path", str(tmp_path)]
    assert detect_memorization.main([*argv, "--detector", "relative_norm"]) == 0
    assert all(float(row["score"]) > 0 for row in rows(tmp_path / "relative_norm" / "scores.csv"))


def test_a_metric(plugin, tmp_path):
    argv = [*SMALL, "--num_inference_steps", "4", "--output_path", str(tmp_path / "runs")]
    assert generate_images.main(argv) == 0
    (table,) = (tmp_path / "runs").rglob("images.csv")
    argv = [*plugin("A metric"), "--gen_folder", str(table.parent), "--quiet"]
    assert run_script(PREFERENCE, [*argv, "--metrics", "sharpness", "--side", "16"]) == 0
    assert {row["quantity"] for row in rows(table.parent / "results.csv")} == {"sharpness"}


def test_a_metric_with_a_checkpoint(plugin, tmp_path, capsys):
    argv = [*SMALL, "--num_inference_steps", "4", "--output_path", str(tmp_path / "runs")]
    assert generate_images.main(argv) == 0
    (table,) = (tmp_path / "runs").rglob("images.csv")
    argv = [*plugin("A metric", 1), "--gen_folder", str(table.parent), "--metrics", "aesthetic"]
    assert run_script(PREFERENCE, [*argv, "--quiet"]) == 0
    assert "aesthetic is not computed: --aesthetic_head is not given" in capsys.readouterr().err
    assert run_script(PREFERENCE, [*argv, "--quiet", "--require", "aesthetic"]) == 2
    weights = {"w": torch.full((1280,), 0.5), "b": torch.ones(1)}
    save_file(weights, tmp_path / "head.safetensors")
    argv += ["--quiet", "--aesthetic_head", str(tmp_path / "head.safetensors")]
    assert run_script(PREFERENCE, argv) == 0
    scored = rows(table.parent / "results.csv")
    assert {row["quantity"] for row in scored} == {"aesthetic"} and len(scored) == 4
    assert all("_linear@" in row["variant"] and float(row["value"]) > 1 for row in scored)


def test_a_prompt_set(tmp_path):
    """Typed into a shell, but for the programs' paths."""
    scripts = {
        "python generate": f"python {ROOT}/generate",
        "python detect": f"python {ROOT}/detect",
    }
    typed = recipe("A prompt set", "sh")
    for name, path in scripts.items():
        typed = typed.replace(name, path)
    typed = typed.replace("python ", f"{shlex.quote(sys.executable)} ")
    typed = typed.replace("--model_id tiny", "--model_id tiny --num_inference_steps 4 --quiet")
    done = subprocess.run(["bash", "-e"], input=typed, cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "my_runs").rglob("img_*.png"))) == 4
    (scores,) = (tmp_path / "my_scores").rglob("scores.csv")
    assert [row["prompt"] for row in rows(scores)] == ["a red lantern"] * 2 + ["two tents"] * 2
