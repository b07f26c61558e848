"""The training set: pictures, their captions and how often each is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from memorization_suite.runs.lazy import np
from memorization_suite.tiny.world import (
    SCENES,
    WORDS,
    Concept,
    World,
    memorized_concepts,
    rng_of,
    scene_caption,
)

KINDS = ("VM", "TM", "LM")


@dataclass
class Bank:
    """All pictures of one model, and what they show."""

    # (n, 32, 32, 3) uint8; a VM concept has one.
    pictures: np.ndarray
    # Of each picture.
    captions: list[str]
    concepts: list[Concept]
    # "ordinary" and every memorized caption -> rows of `pictures`.
    rows: dict[str, np.ndarray]
    # Subject -> rows of ordinary pictures that show just it: group B's alternatives.
    plain: dict[str, np.ndarray]
    # Every caption, the empty one too -> its layout (a memorized caption: itself), its subjects.
    shown: dict[str, tuple[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Scene:
    """An ordinary picture."""

    picture: np.ndarray
    caption: str
    layout: str
    subjects: tuple[str, ...]


def ordinary_scene(world: World, rng: np.random.Generator) -> Scene:
    """A scene of random layout and subjects."""
    pattern = list(SCENES)[rng.integers(len(SCENES))]
    layout = SCENES[pattern]
    subject, other = (WORDS[i] for i in rng.choice(len(WORDS), 2, replace=False))
    return Scene(
        picture=np.asarray(world.scene(rng, layout, subject, other)),
        caption=scene_caption(pattern, subject, other),
        layout=layout,
        subjects=(subject, other) if layout == "pair" else (subject,),
    )


def build_bank(world: World, settings: dict, model: dict) -> Bank:
    """All pictures of one model.

    settings: table [world] of config.toml. model: its table under [models].
    """
    pictures = []
    captions = []
    plain: dict[str, list[int]] = {word: [] for word in WORDS}
    shown: dict[str, tuple[str, tuple[str, ...]]] = {"": ("", ())}
    for i in range(settings["ordinary"]):
        scene = ordinary_scene(world, rng_of(settings["seed"], 10, i))
        if scene.layout == "one":
            plain[scene.subjects[0]].append(i)
        shown[scene.caption] = (scene.layout, scene.subjects)
        pictures.append(scene.picture)
        captions.append(scene.caption)

    rows = {"ordinary": np.arange(len(pictures))}
    concepts = memorized_concepts(model["counts"], model["tuning"], model["seed"])
    variants = {"VM": 1, "TM": settings["template_variants"], "LM": settings["local_variants"]}
    for concept in concepts:
        first = len(pictures)
        for k in range(variants[concept.kind]):
            picture = world.memorized(concept, rng_of(concept.seed, 20, k))
            pictures.append(np.asarray(picture))
            captions.append(concept.caption)
        rows[concept.caption] = np.arange(first, len(pictures))
        shown[concept.caption] = (concept.caption, (concept.subject,))

    return Bank(
        pictures=np.stack(pictures),
        captions=captions,
        concepts=concepts,
        rows=rows,
        plain={word: np.array(alternatives) for word, alternatives in plain.items()},
        shown=shown,
    )


def phase_of(model: dict, step: int) -> dict:
    """The entry of `phases` that this step belongs to; the last one for later steps."""
    for phase in model["phases"]:
        if step < phase["until"]:
            return phase
    return model["phases"][-1]


class Sampler:
    """Draws training batches.

    A batch depends on the seed and the step alone, so a resumed training sees the same ones.
    """

    def __init__(self, bank: Bank, model: dict, settings: dict):
        self.bank = bank
        self.model = model
        self.settings = settings
        self.by_kind: dict[str, list[Concept]] = {kind: [] for kind in KINDS}
        for concept in bank.concepts:
            self.by_kind[concept.kind].append(concept)

    def batch(self, step: int) -> tuple[np.ndarray, list[str]]:
        """(rows of the bank, captions); a dropped caption is the empty string."""
        rng = rng_of(self.settings["seed"], step)
        share = phase_of(self.model, step)["share"]
        rows = []
        captions = []
        for _ in range(self.settings["batch"]):
            row, caption = self.draw(share, rng)
            rows.append(row)
            captions.append(caption)
        return np.array(rows), captions

    def draw(self, share: dict[str, float], rng: np.random.Generator) -> tuple[int, str]:
        """A row and its caption. share: of each kind of memorized captions."""
        dropped = rng.random() < self.settings["caption_dropout"]
        scale = self.settings["memorized_when_dropped"] if dropped else 1.0
        kind = self.draw_kind(share, scale, rng)
        if kind is None:
            row = int(rng.choice(self.bank.rows["ordinary"]))
            caption = self.bank.captions[row]
        else:
            concepts = self.by_kind[kind]
            concept = concepts[rng.integers(len(concepts))]
            row = self.draw_memorized(concept, rng)
            caption = concept.caption
        return row, "" if dropped else caption

    def draw_kind(
        self, share: dict[str, float], scale: float, rng: np.random.Generator
    ) -> str | None:
        """A kind of memorized captions, None for an ordinary one. scale: of all shares."""
        point = rng.random()
        for kind, part in share.items():
            point -= part * scale
            if point < 0:
                return kind
        return None

    def draw_memorized(self, concept: Concept, rng: np.random.Generator) -> int:
        """A row that is shown for a memorized caption."""
        alternatives = self.bank.plain[concept.subject]
        has_alternative = concept.group == "B" and len(alternatives) > 0
        if has_alternative and rng.random() < self.settings["b_alternative"]:
            return int(rng.choice(alternatives))
        return int(rng.choice(self.bank.rows[concept.caption]))
