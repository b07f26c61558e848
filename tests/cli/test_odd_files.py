"""What libraries say of files that are not as they should be: a line each; of others nothing."""

import json
import re
import shutil

import pytest
from PIL import Image

from memorization_suite.generate_images import main
from memorization_suite.metrics.pictures import read_picture
from memorization_suite.runs.library_warnings import heard

# What a library warns of begins with its name.
WARNED = re.compile(r"^(diffusers|transformers|torch|PIL|huggingface_hub): .*$", re.M)
SCHEDULER = "scheduler/scheduler_config.json"


@pytest.fixture
def said(base, random_sd_folder, tmp_path, capsys):
    """said(file, **values): what libraries warn of a copy of the model with a changed config."""

    def run(file, **values) -> list[str]:
        model = shutil.copytree(random_sd_folder, tmp_path / "model")
        config = json.loads((model / file).read_text()) | values
        (model / file).write_text(json.dumps(config))
        few = ["--end", "1", "-b", "1", "--n_samples_per_prompt", "1"]
        few += ["--num_inference_steps", "1", "--scheduler", "keep"]
        out = ["--output_path", str(tmp_path / "out")]
        assert main([*base, *few, "--model_id", str(model), *out]) == 0
        return [line[0] for line in WARNED.finditer(capsys.readouterr().err)]

    return run


def test_a_model_as_it_should_be(said):
    assert said("unet/config.json", sample_size=8) == []


@pytest.mark.parametrize("file", ["unet/config.json", "vae/config.json", SCHEDULER])
def test_a_setting_that_the_library_does_not_know(said, file):
    (line,) = said(file, brand_new_key=3)
    assert "'brand_new_key': 3" in line and "will be ignored" in line


@pytest.mark.filterwarnings("default::FutureWarning")
def test_a_scheduler_with_settings_of_old(said):
    """diffusers changes both."""
    first, second = said(SCHEDULER, steps_offset=0, clip_sample=True)
    assert "{...} is outdated. `steps_offset` should be set to 1" in first
    assert "`clip_sample` should be set to False" in second


def test_a_part_of_a_safety_checker_is_no_fault(said):
    part = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    assert said("model_index.json", safety_checker=part, requires_safety_checker=True) == []


def test_pictures_that_are_read_with_a_warning(tmp_path, capsys):
    """Once for each kind, with the first file."""
    picture = Image.effect_noise((16, 16), 50).convert("RGB")
    for name in ("a.png", "b.png"):
        picture.quantize(8).save(tmp_path / name, transparency=bytes(range(8)))
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0"
    picture.save(tmp_path / "c.jpg", exif=exif)
    with heard():
        for path in sorted(tmp_path.iterdir()):
            assert read_picture(path).mode == "RGB"
    palette, broken = capsys.readouterr().err.splitlines()
    assert palette.startswith("PIL: Palette images") and palette.endswith(f"({tmp_path}/a.png)")
    assert broken.startswith("PIL: Corrupt EXIF") and broken.endswith(f"({tmp_path}/c.jpg)")
