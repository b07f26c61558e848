"""The training set: pictures, their captions and how often each is drawn."""

from dataclasses import dataclass

import numpy as np

from memorization_suite.tiny.world import (
    SCENES,
    WORDS,
    Concept,
    World,
    memorized_concepts,
    rng_of,
    scene_caption,
)


@dataclass
class Bank:
    """pictures: (n, 32, 32, 3) uint8. captions[i] belongs to picture i. A VM concept has one
    picture.
    """

    pictures: np.ndarray
    captions: list[str]
    concepts: list[Concept]
    rows: dict[str, np.ndarray]  # "ordinary" and every memorized caption -> rows of `pictures`
    plain: dict[
        str, np.ndarray
    ]  # subject -> rows of ordinary pictures that show just it (group B's alternatives)
    shown: dict[
        str, tuple[str, tuple[str, ...]]
    ]  # every caption, the empty one too -> its layout (a memorized caption: itself), its subjects


def ordinary_row(world: World, rng) -> tuple[np.ndarray, str, str, tuple[str, ...]]:
    """An ordinary picture, its caption, its layout and its subjects."""
    pattern = list(SCENES)[rng.integers(len(SCENES))]
    subject, other = (WORDS[i] for i in rng.choice(len(WORDS), 2, replace=False))
    picture = np.asarray(world.scene(rng, SCENES[pattern], subject, other))
    shown = (subject, other) if SCENES[pattern] == "pair" else (subject,)
    return picture, scene_caption(pattern, subject, other), SCENES[pattern], shown


def build_bank(world: World, settings: dict, model: dict) -> Bank:
    """All pictures of one model. settings: table [world] of config.toml; model: its table under
    [models].
    """
    pictures, captions, plain, shown = [], [], {word: [] for word in WORDS}, {"": ("", ())}
    for i in range(settings["ordinary"]):
        picture, caption, layout, subjects = ordinary_row(world, rng_of(settings["seed"], 10, i))
        if layout == "one":
            plain[subjects[0]].append(i)
        shown[caption] = layout, subjects
        pictures.append(picture)
        captions.append(caption)
    rows = {"ordinary": np.arange(len(pictures))}
    concepts = memorized_concepts(model["counts"], model["tuning"], model["seed"])
    variants = {"VM": 1, "TM": settings["template_variants"], "LM": settings["local_variants"]}
    for concept in concepts:
        first = len(pictures)
        pictures += [
            np.asarray(world.memorized(concept, rng_of(concept.seed, 20, k)))
            for k in range(variants[concept.kind])
        ]
        captions += [concept.caption] * variants[concept.kind]
        rows[concept.caption] = np.arange(first, len(pictures))
        shown[concept.caption] = concept.caption, (concept.subject,)
    return Bank(
        np.stack(pictures),
        captions,
        concepts,
        rows,
        {word: np.array(found) for word, found in plain.items()},
        shown,
    )


def phase_of(model: dict, step: int) -> dict:
    """The entry of `phases` that this step belongs to; the last one for later steps."""
    return next((phase for phase in model["phases"] if step < phase["until"]), model["phases"][-1])


class Sampler:
    """Draws training batches. A batch depends on the seed and the step alone, so a resumed training
    sees the same ones.
    """

    def __init__(self, bank: Bank, model: dict, settings: dict):
        self.bank, self.settings, self.model = bank, settings, model
        self.by_kind = {
            kind: [c for c in bank.concepts if c.kind == kind] for kind in ("VM", "TM", "LM")
        }

    def batch(self, step: int) -> tuple[np.ndarray, list[str]]:
        """(rows of the bank, captions); a dropped caption is the empty string."""
        rng = rng_of(self.settings["seed"], step)
        share = phase_of(self.model, step)["share"]
        drawn = [self.draw(share, rng) for _ in range(self.settings["batch"])]
        return np.array([row for row, _ in drawn]), [caption for _, caption in drawn]

    def draw(self, share: dict[str, float], rng) -> tuple[int, str]:
        dropped = rng.random() < self.settings["caption_dropout"]
        scale = self.settings["memorized_when_dropped"] if dropped else 1.0
        point = rng.random()
        for kind, part in share.items():
            point -= part * scale
            if point < 0:
                row, caption = self.draw_memorized(
                    self.by_kind[kind][rng.integers(len(self.by_kind[kind]))], rng
                )
                break
        else:
            row = int(rng.choice(self.bank.rows["ordinary"]))
            caption = self.bank.captions[row]
        return row, "" if dropped else caption

    def draw_memorized(self, concept: Concept, rng) -> tuple[int, str]:
        alternatives = self.bank.plain[concept.subject]
        if (
            concept.group == "B"
            and len(alternatives)
            and rng.random() < self.settings["b_alternative"]
        ):
            return int(rng.choice(alternatives)), concept.caption
        return int(rng.choice(self.bank.rows[concept.caption])), concept.caption
