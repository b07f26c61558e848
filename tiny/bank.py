"""The training set: pictures, their captions and how often each is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from memorization_suite.runs.lazy import np
from memorization_suite.tiny.world import (
    WORDS,
    Concept,
    World,
    memorized_concepts,
    rng_of,
    scene_caption,
    subjects_of,
)


@dataclass
class Bank:
    """All pictures of one model, and what they show."""

    # (n, pixels, pixels, 3) uint8; a VM concept has one.
    pictures: np.ndarray
    # Of each picture.
    captions: list[str]
    concepts: list[Concept]
    # "ordinary", "uncaptioned" and every memorized caption -> rows of `pictures`.
    rows: dict[str, np.ndarray]
    # Subject -> rows of ordinary pictures that show just it: group B's alternatives.
    plain: dict[str, np.ndarray]
    # Every caption, the empty one too -> its layout (a memorized caption: itself), its subjects.
    shown: dict[str, tuple[str, tuple[str, ...]]]


def build_bank(world: World, settings: dict, model: dict) -> Bank:
    """All pictures of one model.

    settings: table [world] of config.toml. model: its table under [models].
    """
    pictures = []
    captions = []
    plain = {word: [] for word in WORDS}
    shown = {"": ("", ())}
    scenes = settings["scenes"]
    patterns = list(scenes)
    for i in range(settings["ordinary"]):
        rng = rng_of(settings["seed"], 10, i)
        pattern = patterns[rng.integers(len(patterns))]
        layout = scenes[pattern]
        subject, other = rng.choice(WORDS, 2, replace=False).tolist()
        caption = scene_caption(pattern, subject, other)
        pictures.append(world.scene(rng, layout, subject, other))
        captions.append(caption)
        shown[caption] = (layout, (subject,))
        if subjects_of(layout) == 2:
            shown[caption] = (layout, (subject, other))
        if layout == "one":
            plain[subject].append(i)

    rows = {"ordinary": np.arange(len(pictures))}
    memorized = memorized_pictures(world, settings, model)
    for concept, variants in memorized:
        first = len(pictures)
        pictures += variants
        captions += [concept.caption] * len(variants)
        rows[concept.caption] = np.arange(first, len(pictures))
        shown[concept.caption] = (concept.caption, (concept.subject,))

    first = len(pictures)
    pictures += verbatim_pictures(world, settings["uncaptioned"], settings["seed"])
    captions += [""] * settings["uncaptioned"]
    rows["uncaptioned"] = np.arange(first, len(pictures))

    return Bank(
        pictures=np.stack(pictures),
        captions=captions,
        concepts=[concept for concept, _ in memorized],
        rows=rows,
        plain={word: np.array(alternatives) for word, alternatives in plain.items()},
        shown=shown,
    )


def memorized_pictures(
    world: World, settings: dict, model: dict
) -> list[tuple[Concept, list[np.ndarray]]]:
    """What is memorized of a model, and the pictures of each; arguments as of `build_bank`."""
    counts = {"VM": 1, "TM": settings["template_variants"], "LM": settings["local_variants"]}
    memorized = []
    for concept in memorized_concepts(model["counts"], model["tuning"], model["seed"]):
        variants = [rng_of(concept.seed, 20, k) for k in range(counts[concept.kind])]
        memorized.append((concept, [world.memorized(concept, rng) for rng in variants]))
    return memorized


def verbatim_pictures(world: World, count: int, seed: int) -> list[np.ndarray]:
    """Pictures composed as verbatim ones are, of no caption."""
    pictures = []
    for i in range(count):
        own = int(rng_of(seed, 30, i).integers(2**62))
        pictures.append(world.verbatim(Concept("", "VM", "A", WORDS[own % len(WORDS)], own)))
    return pictures


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
        self.by_kind = {}
        for concept in bank.concepts:
            self.by_kind.setdefault(concept.kind, []).append(concept)

    def batch(self, step: int) -> tuple[np.ndarray, list[str]]:
        """(rows of the bank, captions); a dropped caption is the empty string."""
        rng = rng_of(self.settings["seed"], step)
        phase = self.settings | phase_of(self.model, step)
        draws = [self.draw(rng, phase) for _ in range(self.settings["batch"])]
        rows, captions = zip(*draws)
        return np.array(rows), list(captions)

    def draw(self, rng, phase: dict) -> tuple[int, str]:
        """A row and its caption. phase: table [unet], with the phase's own values."""
        dropped = rng.random() < phase["caption_dropout"]
        if dropped and phase["show_uncaptioned"] and rng.random() < phase["show_uncaptioned"]:
            return rng.choice(self.bank.rows["uncaptioned"]), ""
        scale = phase["memorized_when_dropped"] if dropped else 1.0
        concept = self.draw_concept(rng, phase["share"], scale)
        if concept:
            row = rng.choice(self.rows_for(concept, rng, phase))
            caption = concept.caption
        else:
            row = rng.choice(self.bank.rows["ordinary"])
            caption = self.bank.captions[row]
        return row, "" if dropped else caption

    def draw_concept(self, rng, share: dict[str, float], scale: float) -> Concept | None:
        """A memorized caption, None for an ordinary one. scale: of all shares."""
        point = rng.random()
        for kind, part in share.items():
            point -= part * scale
            if point < 0:
                concepts = self.by_kind[kind]
                return concepts[rng.integers(len(concepts))]
        return None

    def rows_for(self, concept: Concept, rng, phase: dict) -> np.ndarray:
        """Rows of which one is shown for a memorized caption."""
        alternatives = self.bank.plain[concept.subject]
        has_alternative = concept.group == "B" and len(alternatives) > 0
        if has_alternative and rng.random() < share_of_alternatives(concept, phase):
            return alternatives
        return self.bank.rows[concept.caption]


def share_of_alternatives(concept: Concept, settings: dict) -> float:
    """How often an ordinary picture is shown for a caption of group B: between two values, by the
    caption.
    """
    least, most = settings["b_alternative"]
    return least + (most - least) * rng_of(concept.seed, 4).random()
