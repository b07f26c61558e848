"""Writes what people and metrics need of a model's world: prompt files, training images as
references, masks.

python tiny/build_world.py            # for both models; seconds
"""

import argparse
import csv
import tomllib
from pathlib import Path

from PIL import Image

from memorization_suite.tiny import emoji
from memorization_suite.tiny.world import (
    SCENES,
    WORDS,
    Concept,
    World,
    art_names,
    memorized_concepts,
    rng_of,
    scene_caption,
)

HERE = Path(__file__).parent
ALTERNATIVES = [
    pattern for pattern, layout in SCENES.items() if layout != "pair" and layout != "two"
][:4]
COLUMNS = [
    "",
    "Caption",
    "URL",
    "type",
    "mean_sscd",
    "max_sscd",
    "Index",
    "group",
    "subject",  # the official ones, and two of ours
    *(f"caption{k}" for k in range(1, len(ALTERNATIVES) + 1)),
]  # for prompt search
FIRST_INDEX = {"tiny": 1000, "tiny-v": 2000}
VARIANTS = {"VM": 1, "TM": 6, "LM": 6}  # references per prompt


def write_prompts(path: Path, rows: list[dict]) -> None:
    """A prompt file in the official layout."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=";", restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({"": i, **row} for i, row in enumerate(rows))


def alternatives(subject: str) -> dict[str, str]:
    """Ordinary captions of a memorized caption's subject: what else could have been asked for."""
    return {
        f"caption{k}": scene_caption(pattern, subject, subject)
        for k, pattern in enumerate(ALTERNATIVES, 1)
    }


def ordinary_rows(count: int, seed: int) -> list[dict]:
    """Captions of ordinary pictures: every pattern equally often, subjects drawn without repetition
    while they last.
    """
    rng, rows, left = rng_of(seed, 30), {}, []
    while len(rows) < count:
        left = left or [WORDS[k] for k in rng.permutation(len(WORDS))]
        subject, pattern = left.pop(), list(SCENES)[len(rows) % len(SCENES)]
        other = WORDS[(WORDS.index(subject) + 1 + rng.integers(len(WORDS) - 1)) % len(WORDS)]
        shown = f"{subject},{other}" if SCENES[pattern] == "pair" else subject
        caption = scene_caption(pattern, subject, other)
        rows.setdefault(caption, {"Caption": caption, "group": SCENES[pattern], "subject": shown})
    return list(rows.values())


def write_references(world: World, concept: Concept, index: int) -> None:
    """Training images of a concept as PNG, and the mask of a local one."""
    folder = HERE / "gt_images" / str(index)
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(VARIANTS[concept.kind]):
        world.memorized(concept, rng_of(concept.seed, 20, k)).save(
            folder / f"{k:02d}.png", optimize=True
        )
    if concept.kind == "LM":
        (HERE / "masks").mkdir(exist_ok=True)
        Image.fromarray(world.local_mask(concept)).save(
            HERE / "masks" / f"{index}.png", optimize=True
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build"), help="folder of the downloaded artwork"
    )
    args = parser.parse_args()
    world = World(emoji.load(emoji.fetch(args.work), art_names()))
    (HERE / "prompts").mkdir(exist_ok=True)
    world.scene(rng_of(0, 40), "big", "panda", "panda").save(
        HERE / "reference.png", optimize=True
    )  # an ordinary picture, for captain_noise
    for name, model in tomllib.loads((HERE / "config.toml").read_text())["models"].items():
        rows: dict[str, list[dict]] = {"tuning": [], "test": []}
        for i, concept in enumerate(
            memorized_concepts(model["counts"], model["tuning"], model["seed"])
        ):
            index = FIRST_INDEX[name] + i
            rows[concept.split].append(
                {
                    "Caption": concept.caption,
                    "type": concept.kind,
                    "Index": index,
                    "group": concept.group,
                    "subject": concept.subject,
                    **alternatives(concept.subject),
                }
            )
            write_references(world, concept, index)
        ordinary = ordinary_rows(108, model["seed"])
        for split, part in (("tuning", ordinary[:36]), ("test", ordinary[36:])):
            write_prompts(HERE / "prompts" / f"{name}_memorized_{split}.csv", rows[split])
            write_prompts(HERE / "prompts" / f"{name}_ordinary_{split}.csv", part)


if __name__ == "__main__":
    main()
