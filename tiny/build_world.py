"""Writes what people and metrics need of a model's world: prompt files, training images as
references, masks.

python tiny/build_world.py            # for both models; seconds
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from pathlib import Path

if __name__ == "__main__":
    # This checkout's suite, whichever is installed.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from memorization_suite import tiny
from memorization_suite.runs.lazy import Image
from memorization_suite.tiny.world import (
    WORDS,
    Concept,
    World,
    load_world,
    memorized_concepts,
    rng_of,
    scene_caption,
    subjects_of,
)

# Ordinary captions of the same subject, for prompt search.
ALTERNATIVES = 4
COLUMNS = [
    # The official ones.
    "",
    "Caption",
    "URL",
    "type",
    "mean_sscd",
    "max_sscd",
    "Index",
    # Ours.
    "group",
    "subject",
    *(f"caption{k}" for k in range(1, ALTERNATIVES + 1)),
]
FIRST_INDEX = {"tiny": 1000, "tiny-v": 2000}
# References of one prompt.
VARIANTS = {"VM": 1, "TM": 6, "LM": 6}
# Ordinary captions of one model; so many of them, the first ones, are for tuning.
ORDINARY = 108
ORDINARY_TUNING = 36


def write_prompts(path: Path, rows: list[dict]) -> None:
    """A prompt file in the official layout."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=";", restval="", lineterminator="\n")
        writer.writeheader()
        for i, row in enumerate(rows):
            writer.writerow({"": i, **row})


def memorized_row(concept: Concept, index: int, scenes: dict[str, str]) -> dict:
    """The row of a memorized caption in a prompt file. scenes: table [world.scenes]."""
    row = {
        "Caption": concept.caption,
        "type": concept.kind,
        "Index": index,
        "group": concept.group,
        "subject": concept.subject,
    }
    plain = [pattern for pattern, layout in scenes.items() if layout == "one"]
    for k, pattern in enumerate(plain[:ALTERNATIVES], 1):  # what else could have been asked for
        row[f"caption{k}"] = scene_caption(pattern, concept.subject, concept.subject)
    return row


def ordinary_rows(count: int, seed: int, scenes: dict[str, str]) -> list[dict]:
    """Captions of ordinary pictures: every pattern equally often, subjects drawn without repetition
    while they last.
    """
    rng = rng_of(seed, 30)
    patterns = list(scenes)
    rows = {}
    subjects = []
    while len(rows) < count:
        if not subjects:
            subjects = rng.permutation(WORDS).tolist()
        subject = subjects.pop()
        pattern = patterns[len(rows) % len(patterns)]
        further = 1 + rng.integers(len(WORDS) - 1)
        other = WORDS[(WORDS.index(subject) + further) % len(WORDS)]
        layout = scenes[pattern]
        shown = f"{subject},{other}" if subjects_of(layout) == 2 else subject
        caption = scene_caption(pattern, subject, other)
        rows.setdefault(caption, {"Caption": caption, "group": layout, "subject": shown})
    return list(rows.values())


def write_references(world: World, concept: Concept, index: int) -> None:
    """Training images of a concept as PNG, and the mask of a local one."""
    folder = tiny.GT_IMAGES / str(index)
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(VARIANTS[concept.kind]):
        picture = world.memorized(concept, rng_of(concept.seed, 20, k))
        picture.save(folder / f"{k:02d}.png", optimize=True)
    if concept.kind == "LM":
        tiny.MASKS.mkdir(exist_ok=True)
        mask = Image.fromarray(world.local_mask(concept))
        mask.save(tiny.MASKS / f"{index}.png", optimize=True)


def write_model(world: World, name: str, settings: dict) -> None:
    """The prompt files, references and masks of one model. settings: all of config.toml."""
    model = settings["models"][name]
    scenes = settings["world"]["scenes"]
    memorized = {"tuning": [], "test": []}
    concepts = memorized_concepts(model["counts"], model["tuning"], model["seed"])
    for index, concept in enumerate(concepts, FIRST_INDEX[name]):
        memorized[concept.split].append(memorized_row(concept, index, scenes))
        write_references(world, concept, index)
    rows = ordinary_rows(ORDINARY, model["seed"], scenes)
    ordinary = {"tuning": rows[:ORDINARY_TUNING], "test": rows[ORDINARY_TUNING:]}
    for split in ("tuning", "test"):
        write_prompts(tiny.prompts(name, f"memorized_{split}"), memorized[split])
        write_prompts(tiny.prompts(name, f"ordinary_{split}"), ordinary[split])


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build"), help="folder of the downloaded artwork"
    )
    args = parser.parse_args(argv)
    settings = tiny.settings()
    world = load_world(args.work, settings["world"]["pixels"])
    for folder in (tiny.GT_IMAGES, tiny.MASKS):  # of an earlier world
        shutil.rmtree(folder, ignore_errors=True)
    # An ordinary picture, for captain_noise.
    reference = world.scene(rng_of(0, 40), "big", "panda", "panda")
    reference.save(tiny.FOLDER / "reference.png", optimize=True)
    for name in settings["models"]:
        write_model(world, name, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
