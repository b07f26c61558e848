"""A model of another family: methods and detectors run on it, and nothing outside pipelines/ knows
Stable Diffusion's parts. The family is the recipe of CONTRIBUTING.md, as a plugin.
"""

import ast
import csv
import json

import pytest
import torch

from memorization_suite import detect_memorization, generate_images
from memorization_suite.mitigation import build_mitigation
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.runs.plugins import PLUGINS, load_plugin
from memorization_suite.sampling import Batch, initial_noise
from memorization_suite.sampling.sample import sample
from tests.recipes import recipe
from tests.test_imports import ROOT, python_files

PROMPTS = ["a red square", "the great wave", "two cats"]


@pytest.fixture
def flow(registries, tmp_path):
    """The plugin's file."""
    file = tmp_path / "flow.py"
    file.write_text(recipe("A model family"), encoding="utf-8")
    return file


@pytest.fixture
def folder(tmp_path):
    """A model folder of the family, which the plugin alone knows."""
    place = tmp_path / "model"
    place.mkdir()
    (place / "model_index.json").write_text(json.dumps({"_class_name": "ToyFlowPipeline"}))
    return place


@pytest.fixture
def asked(flow, folder, tmp_path) -> list[str]:
    """Flags of a small run of it."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n")
    argv = ["--plugin", str(flow), "--model_id", str(folder), "--scheduler", "keep", "--quiet"]
    argv += ["--prompts", str(prompts), "--image_length", "16", "--num_inference_steps", "8"]
    return [*argv, "-n", "2", "-b", "2", "--output_path", str(tmp_path / "runs")]


def rows(folder, name: str) -> list[dict[str, str]]:
    """A table of the one run below a folder."""
    (file,) = folder.rglob(name)
    with open(file, newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


@pytest.mark.parametrize(
    ("method", "flags", "evals"),
    [
        ("no_mitigation", [], 16),
        ("batch_wise", ["--rho", "5", "--gamma", "2", "--apply_cfg_step", "2"], 8 + 16 - 3),
        ("per_sample", ["--target_loss", "0.2", "--lr", "0.1", "--optim_iters", "40"], None),
    ],
)
def test_methods_make_its_images(asked, tmp_path, method, flags, evals):
    assert generate_images.main([*asked, "--method", method, *flags]) == 0
    made = rows(tmp_path / "runs", "images.csv")
    assert len(made) == len(list((tmp_path / "runs").rglob("img_*.png"))) == 6
    assert all(row["finite"] == "1" for row in made)
    assert evals is None or {int(row["unet_evals"]) for row in made} == {evals}
    if method == "per_sample":
        assert all(float(row["last_magnitude"]) <= 0.2 for row in made)
        assert all(float(row["first_magnitude"]) > 0.2 for row in made)


def test_a_detector_scores_it(asked, tmp_path):
    assert detect_memorization.main([*asked, "--detector", "noise_norm,sharpness"]) == 0
    for name in ("noise_norm", "sharpness"):
        scores = rows(tmp_path / "runs" / name, "scores.csv")
        assert len(scores) == 6 and all(float(row["score"]) > 0 for row in scores)


def test_rows_are_independent(flow, folder):
    """A batch of three equals three batches of one, 1e-6; the first noise of each is moved."""
    load_plugin(flow)
    model = load_pipeline(str(folder))
    noise = initial_noise([1, 2, 3], model.latent_shape(16, 16))
    method = build_mitigation("batch_wise", rho=5.0, gamma=2.0, apply_cfg_step=2)
    options = {"num_inference_steps": 6, "guidance_scale": 3.0}
    together = sample(model, Batch.of_captions(PROMPTS), noise, method, **options)
    assert (together.numbers["moved"] > 0.1).all()
    for i, prompt in enumerate(PROMPTS):
        alone = sample(model, Batch.of_captions([prompt]), noise[i : i + 1], method, **options)
        torch.testing.assert_close(together.final[i : i + 1], alone.final, rtol=0, atol=1e-6)


def test_noise_and_velocity_round_trip(flow, folder):
    load_plugin(flow)
    model = load_pipeline(str(folder))
    model.set_timesteps(5)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for t in model.timesteps:
        velocity = model.to_output(model.to_noise(x.flip(0), x, t), x, t)
        torch.testing.assert_close(velocity, x.flip(0), rtol=0, atol=1e-4)


def test_what_the_family_lacks_is_one_line(asked, capsys):
    assert generate_images.main([*asked, "--method", "ca_attenuation"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.endswith("this method needs cross-attention, which Flow does not offer")


def test_a_scheduler_that_the_family_lacks_is_refused(asked, capsys):
    assert generate_images.main([*asked, "--scheduler", "ddim"]) == 2
    assert "--scheduler ddim is not possible with a toy flow model; there are keep" in (
        capsys.readouterr().err
    )


def test_a_family_that_does_not_tell_its_size_needs_a_typed_one(asked, capsys):
    at = asked.index("--image_length")
    assert generate_images.main([*asked[:at], *asked[at + 2 :]]) == 2
    message = capsys.readouterr().err
    assert "a toy flow model does not tell its size" in message and message.count("\n") == 1
    assert "--image_length PIXELS" in message


def test_a_family_may_tell_its_size(asked, flow, tmp_path):
    """By the JSON files of the model."""
    described = (
        "    def describe(self, read):\n"
        "        from memorization_suite.pipelines.kinds import Kind\n\n"
        '        name = read("model_index.json")["_class_name"]\n'
        "        return Kind(name, native_size=24, text_width=8, downsampling=2)\n\n"
    )
    flow.write_text(flow.read_text().replace("    def load(self", f"{described}    def load(self"))
    at = asked.index("--image_length")
    assert generate_images.main([*asked[:at], *asked[at + 2 :]]) == 0
    (config,) = (tmp_path / "runs").rglob("config.json")
    assert json.loads(config.read_text())["image_length"] == 24


def test_without_the_plugin_the_model_is_none(asked, flow, capsys):
    assert (
        generate_images.main([word for word in asked if word not in ("--plugin", str(flow))]) == 2
    )
    assert "is no Stable Diffusion model: it has no unet, vae" in capsys.readouterr().err


def test_a_run_goes_on_only_with_the_same_family(asked, registries, flow, capsys):
    assert generate_images.main(asked) == 0
    before = PLUGINS["flow"].sha256[:16]
    registries()
    assert generate_images.main(asked) == 0
    registries()
    flow.write_text(flow.read_text() + "# edited\n")
    assert generate_images.main(asked) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"plugin flow {before}" in message and PLUGINS["flow"].sha256[:16] in message


# --- the interface ---

PARTS = {
    *("unet", "tokenizer", "text_encoder", "vae", "vae_scale_factor"),
    *("alphas_cumprod", "init_noise_sigma", "scale_model_input", "prediction_type"),
}
# The training of the embedded models makes these parts; an example and speed comparisons spell out
# what the official code does with them.
OUTSIDE = ("pipelines", "tests", "examples", "tiny")
COMPARED = ("cost_sides.py", "metrics.py")


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_parts_of_stable_diffusion_are_known_in_pipelines_alone(path):
    if path.parts[0] in OUTSIDE or path.name in COMPARED:
        return
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    touched = [
        f"{path}:{node.lineno} .{node.attr}"
        for node in attributes
        if node.attr in PARTS and not is_own(node)
    ]
    assert touched == []


def is_own(node: ast.Attribute) -> bool:
    """Whether it is an object's own attribute, since metrics have tokenizers too, or a flag."""
    owner = getattr(node.value, "attr", getattr(node.value, "id", ""))
    return owner in ("self", "settings", "asked")
