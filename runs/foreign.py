"""Folders of images without a manifest: of the official script of Han et al., which names images as
the suite does, or of another program.

The official script makes <output_path>/<method>/<settings>_seed<seed>/ with a config.json; people
rename such folders, and put several side by side. A folder of another name is its own method: what
else made its images, nobody can know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from memorization_suite.runs.run_folder import NAMED

# Names of folders that tell settings, below one that tells the method.
SETTINGS = re.compile(r"g-?\d[\d.]*(_.+)?_seed-?\d+")
UNMITIGATED = "no_mitigation"
# In a config.json of the official script.
KNOWN = ("model_id", "guidance_scale", "num_inference_steps", "seed")


def is_foreign(folder: Path) -> bool:
    """Whether there is no manifest."""
    return not (folder / "manifest.json").exists()


def holds_images(names: Iterable[str]) -> bool:
    """Whether one of the files of a folder is an image by its name. names: of all."""
    return any(NAMED.fullmatch(name) for name in names)


def is_named_alone(folder: Path) -> bool:
    """Whether a folder's own name is all that tells its method."""
    return is_foreign(folder) and not SETTINGS.fullmatch(folder.name)


def method_of(folder: Path) -> str:
    """What made the images, by the names of the folders."""
    return folder.name if is_named_alone(folder) else folder.parent.name


def title_of(folder: Path) -> str:
    """Method and settings, as the folders are called."""
    return folder.name if is_named_alone(folder) else f"{folder.parent.name}/{folder.name}"


def above(folder: Path) -> Path:
    """The folder in which the title is a path."""
    return folder.parent if is_named_alone(folder) else folder.parent.parent


def is_called_unmitigated(folder: Path) -> bool:
    """Whether no method made the images, by the names of the folders: `no_mitigation_g7` alone is
    one, too.
    """
    name = method_of(folder)
    return name == UNMITIGATED or (is_named_alone(folder) and name.startswith(UNMITIGATED))


def unknown(config: Mapping[str, Any]) -> str:
    """What nobody can know of a folder without a manifest. config: its config.json, if any."""
    if all(name in config for name in KNOWN):
        return (
            "there is no manifest.json; its settings are those of its config.json, and what it "
            "cost, in which precision it was made and whether all images are there is not known"
        )
    return (
        "there is no manifest.json; it is called by the name of its folder, and its method, "
        "settings, seed, model and cost are not known, nor whether all images are there"
    )
