"""The embedded models: where they lie, and what is known of their world.

Imports nothing of ours besides `runs`.
"""

import tomllib
from pathlib import Path

from memorization_suite import ROOT, one_name

FOLDER = ROOT / "tiny"
# Name -> diffusers folder.
MODELS = {name: FOLDER / "weights" / name for name in ("tiny", "tiny-v")}
# <Index>/*.png: the training images of the captions with this Index.
GT_IMAGES = FOLDER / "gt_images"
# <Index>.png: white where a caption of kind LM was memorized.
MASKS = FOLDER / "masks"
# What judges pictures of this world: a classifier of subjects, features of real pictures.
PROBE = FOLDER / "probe.safetensors"
REALISM = FOLDER / "realism.safetensors"
# Figures of the models' card.
EVALUATION = FOLDER / "evaluation"


def settings(path: Path = FOLDER / "config.toml") -> dict:
    """Every setting of the training."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def pixels() -> int:
    """Of a picture of the world, across and down."""
    return settings()["world"]["pixels"]


def prompts(model: str, split: str = "memorized_test") -> Path:
    """A prompt file of a model. split: memorized or ordinary, _test or _tuning."""
    return FOLDER / "prompts" / f"{model}_{split}.csv"


one_name(__name__)
