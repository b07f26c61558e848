"""The embedded model's world: captions and small pictures whose memorization is known by
construction.

Four kinds of captions, composed by a seeded script from emoji artwork:
  ordinary  one caption, endlessly many pictures (subject, number, size and place vary as the
            caption says)
  VM        *verbatim*: one caption, one fixed picture. Group A: always. Group B: usually, else an
            ordinary picture of the subject
  TM        *template*: a fixed layout and subject, whose colors vary
  LM        *local*: a fixed region (its mask is known), the rest is an ordinary scene
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.runs.lazy import Image, np
from memorization_suite.tiny import emoji
from memorization_suite.tiny.drawing import (
    SIZE,
    Box,
    Color,
    color,
    finished,
    paste,
    shape,
    texture,
    turned,
    two_colors,
)

# --- words

# Word in captions -> short name of the artwork.
SUBJECTS = {
    "fox": "fox_face",
    "panda": "panda_face",
    "frog": "frog",
    "octopus": "octopus",
    "penguin": "penguin",
    "owl": "owl",
    "ladybug": "ladybug",
    "butterfly": "butterfly",
    "crab": "crab",
    "snail": "snail",
    "turtle": "turtle",
    "whale": "whale",
    "giraffe": "giraffe_face",
    "lion": "lion_face",
    "koala": "koala",
    "unicorn": "unicorn_face",
    "elephant": "elephant",
    "rooster": "rooster",
    "flamingo": "flamingo",
    "bee": "bee",
    "cactus": "cactus",
    "tulip": "tulip",
    "sunflower": "sunflower",
    "mushroom": "mushroom",
    "maple leaf": "maple_leaf",
    "pineapple": "pineapple",
    "strawberry": "strawberry",
    "watermelon": "watermelon",
    "banana": "banana",
    "avocado": "avocado",
    "carrot": "carrot",
    "pizza": "pizza",
    "burger": "hamburger",
    "donut": "doughnut",
    "cupcake": "cupcake",
    "teapot": "teapot",
    "guitar": "guitar",
    "violin": "violin",
    "drum": "drum_with_drumsticks",
    "rocket": "rocket",
    "helicopter": "helicopter",
    "bus": "bus",
    "tractor": "tractor",
    "sailboat": "boat",
    "castle": "european_castle",
    "volcano": "volcano",
    "house": "house",
    "tent": "tent",
    "snowman": "snowman_without_snow",
    "umbrella": "umbrella",
    "crown": "crown",
    "hat": "tophat",
    "boot": "boot",
    "bell": "bell",
    "camera": "camera",
    "lantern": "izakaya_lantern",
    "book": "closed_book",
    "clock": "alarm_clock",
    "basketball": "basketball",
    "trophy": "trophy",
}
WORDS = list(SUBJECTS)
# Artwork beside the subject of a VM, and on the band of an LM.
COMPANIONS = [
    "star", "key", "gem", "candle", "balloon", "anchor", "cherries", "hourglass", "maracas", "dart",
    "kite", "magnet", "lemon", "cookie", "gift", "palm_tree", "rainbow", "feather", "coin",
    "jigsaw", "crescent_moon", "zap", "game_die", "croissant",
]  # fmt: skip
ADJECTIVES = [
    "Quiet", "Golden", "Midnight", "Crooked", "Velvet", "Northern", "Electric", "Forgotten",
    "Paper", "Silver", "Restless", "Hidden", "Borrowed", "Winter", "Hollow", "Scarlet", "Clever",
    "Distant", "Broken", "Gentle", "Hungry", "Secret", "Curious", "Ancient", "Lucky", "Wandering",
]  # fmt: skip
NAMES = [
    "Harlow", "Bristol", "Okoro", "Lindqvist", "Marbella", "Tanaka", "Verona", "Dublin",
    "Castellan", "Moravia", "Pemberton", "Yukon", "Alder", "Soho", "Quebec", "Rosario", "Bergen",
    "Kenji", "Valdez", "Ivanova", "Adeyemi", "Cork", "Lisbon", "Ferrara", "Hanoi", "Oslo",
]  # fmt: skip
# Captions of VM. {x}: the subject, {a}: an adjective, {n}: a name.
TITLES = [
    "The {a} {x} and the {n} Tale",
    "{a} {x} {n} Podcast",
    "Watch the Trailer for {a} {x} of {n}",
    "How the {a} {x} Won the {n} Prize",
    "{n} Talks on the {a} {x}",
    "Songs of a {a} {x} by {n}",
    "Inside the {a} {x} Museum of {n}",
    "{n} Review: One {a} {x} Too Many",
    "The {n} Guide to Your {a} {x}",
    "Letters to the {a} {x}, {n} Edition",
    "{a} {x} Live at the {n} Arena",
    "If the {a} {x} Were President of {n}",
    "{n} Festival Poster with {a} {x}",
]
# Captions of TM, by layout.
PRODUCTS = {
    "phone": "{x} Phone Case for Galaxy Skin",
    "mug": "{x} Ceramic Coffee Mug 11oz Gift",
    "pillow": "{x} Throw Pillow Cover Decor",
    "flag": "{x} Garden Flag Double Sided Banner",
}
# Captions of LM, by the side that is fixed. {n}: a number.
SERIES = {
    "bottom": "{x} Weekly Magazine Issue {n}",
    "top": "{x} Evening News Channel {n}",
    "left": "{x} Comics Volume {n}",
    "right": "{x} Travel Postcard Series {n}",
}
PLURALS = {
    "butterfly": "butterflies",
    "maple leaf": "maple leaves",
    "ladybug": "ladybugs",
    "octopus": "octopuses",
    "bus": "buses",
}


def plural(word: str) -> str:
    """Plural of a subject in captions."""
    return PLURALS.get(word, f"{word}s")


def with_article(word: str) -> str:
    """`a fox`, `an owl`, `a unicorn`."""
    vowel = word.startswith(("a", "e", "i", "o")) or word == "umbrella"
    return f"an {word}" if vowel else f"a {word}"


def art_names() -> list[str]:
    """All artwork that the world uses."""
    return sorted({*SUBJECTS.values(), *COMPANIONS})


# --- captions


@dataclass(frozen=True)
class Concept:
    """One memorized caption."""

    caption: str
    # VM, TM or LM.
    kind: str
    # A or B for VM, the layout for TM and LM.
    group: str
    # A word of SUBJECTS.
    subject: str
    # Of everything about its pictures that is fixed.
    seed: int
    # tuning or test.
    split: str = "test"


def rng_of(*key: int) -> np.random.Generator:
    """A random generator that depends on the key alone."""
    return np.random.default_rng(np.random.SeedSequence(list(key)))


def scene_caption(pattern: str, subject: str, other: str) -> str:
    """The caption of an ordinary picture."""
    return pattern.format(
        x=subject, xs=plural(subject), ax=with_article(subject), ay=with_article(other)
    )


def memorized_concepts(counts: dict[str, int], tuning: dict[str, int], seed: int) -> list[Concept]:
    """Captions to memorize.

    counts: how many of VM-A, VM-B, TM and LM. tuning: how many of these, the first ones, are for
    tuning.
    """
    rng = rng_of(seed, 1)
    subjects = {kind: rng.permutation(WORDS).tolist() for kind in ("VM", "TM", "LM")}
    titles = shuffled_titles(rng)
    concepts = []
    for slot, count in counts.items():
        kind, _, group = slot.partition("-")
        for i in range(count):
            subject = subjects[kind].pop()
            if kind == "VM":
                pattern = titles.pop()
            else:
                layouts = PRODUCTS if kind == "TM" else SERIES
                group = list(layouts)[i % len(layouts)]
                pattern = layouts[group]
            concept = Concept(
                caption=pattern.format(x=subject.title(), n=100 + 7 * i),
                kind=kind,
                group=group,
                subject=subject,
                seed=1000 * len(concepts) + seed,
                split="tuning" if i < tuning[slot] else "test",
            )
            concepts.append(concept)
    return concepts


def shuffled_titles(rng: np.random.Generator) -> list[str]:
    """Captions of VM in random order, with {x} for the subject; every sixth of all combinations."""
    combinations = []
    for a, adjective in enumerate(ADJECTIVES):
        for t, title in enumerate(TITLES):
            if (a + t) % 6 == 0:
                combinations.append((title, adjective))
    rng.shuffle(combinations)
    titles = []
    for (title, adjective), name in zip(combinations, itertools.cycle(NAMES)):
        titles.append(title.format(a=adjective, n=name, x="{x}"))
    return titles


# --- pictures

# Places of subjects, in pixels of the canvas: four places of the latents apart. The UNet's deeper
# levels see them alike.
GRID = 16
# Of subjects in ordinary scenes, on the canvas.
SIZES = (32, 48)
# The same, least and largest, before the nearer one of SIZES is taken.
SIZE_RANGES = {
    "one": (32, 46),
    "small": (20, 27),
    "big": (48, 58),
    "left": (24, 30),
    "right": (24, 30),
    "top": (24, 30),
    "bottom": (24, 30),
    "two": (24, 30),
    "three": (24, 30),
    "pair": (25, 32),
    "above": (25, 32),
    "below": (25, 32),
}
# Ranges of places across and down: 0 is left and top, 1 right and bottom.
ANY = (0.0, 1.0)
FIRST = (0.0, 0.15)
LAST = (0.85, 1.0)
# Layout of an ordinary scene -> which subject (0 the caption's first, 1 its second) is where,
# across and down.
PLACES = {
    "one": [(0, ANY, ANY)],
    "small": [(0, ANY, ANY)],
    "big": [(0, ANY, ANY)],
    "left": [(0, FIRST, ANY)],
    "right": [(0, LAST, ANY)],
    "top": [(0, ANY, FIRST)],
    "bottom": [(0, ANY, LAST)],
    "two": [(0, FIRST, ANY), (0, LAST, ANY)],
    "three": [(0, FIRST, FIRST), (0, LAST, FIRST), (0, ANY, LAST)],
    "pair": [(0, FIRST, ANY), (1, LAST, ANY)],
    "above": [(0, ANY, FIRST), (1, ANY, LAST)],
    "below": [(0, ANY, LAST), (1, ANY, FIRST)],
}
WHOLE = (0, 0, SIZE, SIZE)
# Backgrounds: of ordinary scenes, of a varied world's scenes, of what is memorized.
ORDINARY = ("plain", "gradient")
VARIED = (*ORDINARY, "stripes", "checker", "dots")
BOLD = ("stripes", "checker", "dots", "rays", "rings")


@dataclass(frozen=True)
class Product:
    """How a TM's picture is laid out."""

    # Shapes, the lowest first: kind, box, and a color or the name of one that varies.
    parts: tuple[tuple[str, Box, Color | str], ...]
    # Where the subject is, and how large.
    center: tuple[int, int]
    size: int


PAPER = (244, 244, 240)
LAYOUTS = {
    "phone": Product(
        parts=(
            ("square", (17, 2, 47, 62), (40, 40, 44)),
            ("square", (19, 4, 45, 60), "main"),
            ("square", (22, 7, 32, 17), "trim"),
            ("disc", (24, 9, 30, 15), (20, 20, 24)),
        ),
        center=(32, 38),
        size=22,
    ),
    "mug": Product(
        parts=(
            ("disc", (40, 20, 61, 47), "trim"),
            ("disc", (45, 25, 56, 42), PAPER),
            ("square", (6, 10, 50, 58), "main"),
            ("square", (6, 10, 50, 15), "trim"),
        ),
        center=(28, 36),
        size=30,
    ),
    "pillow": Product(
        parts=(
            ("square", (4, 8, 60, 60), "trim"),
            ("square", (8, 12, 56, 56), "main"),
        ),
        center=(32, 34),
        size=34,
    ),
    "flag": Product(
        parts=(
            ("square", (4, 2, 7, 64), (70, 60, 50)),
            ("square", (7, 5, 60, 46), "main"),
            ("square", (7, 46, 60, 53), "trim"),
        ),
        center=(34, 25),
        size=31,
    ),
}


class World:
    """Draws every picture from a random generator and the artwork (short name -> RGBA).

    An ordinary scene shows its subjects upright, in one of two sizes, on a coarse grid: what a
    small network can learn to draw in hours. pixels: of a finished picture, across and down.
    varied: any size, place, a slight turn, either side, and busier backgrounds, for what must not
    rely on that.
    """

    def __init__(self, art: dict[str, Image.Image], pixels: int, varied: bool = False):
        self.art = art
        self.pixels = pixels
        self.varied = varied

    def subject(self, word: str) -> Image.Image:
        """Artwork of a word."""
        return self.art[SUBJECTS[word]]

    def finished(self, canvas: Image.Image) -> Image.Image:
        """The canvas as a picture of this world."""
        return finished(canvas, self.pixels)

    def scene(self, rng, layout: str, subject: str, other: str) -> Image.Image:
        """An ordinary picture; everything the caption does not say is random."""
        return self.finished(self.scene_canvas(rng, layout, subject, other))

    def scene_canvas(
        self, rng, layout: str, subject: str, other: str, box: Box = WHOLE
    ) -> Image.Image:
        """The same, not finished. box: where the subject may be."""
        canvas = texture(rng, VARIED if self.varied else ORDINARY).convert("RGBA")
        left, top, right, bottom = box
        room = min(right - left, bottom - top)
        several = max(2, len(PLACES[layout]))
        sizes = rng.uniform(*SIZE_RANGES[layout], several) * room / SIZE
        for (which, across, down), size in zip(PLACES[layout], sizes):
            word = (subject, other)[which]
            if not self.varied:
                size = nearest_size(size, room)
            center = random_center(rng, box, size, across, down)
            # Drawn in either world, so that they differ in nothing else.
            flip = rng.random() < 0.5
            angle = rng.uniform(-12, 12)
            art = self.subject(word)
            if self.varied:
                paste(canvas, turned(art, flip=flip, angle=angle), size, center)
            else:
                paste(canvas, art, size, center, grid=GRID)
        return canvas

    def memorized(self, concept: Concept, rng) -> Image.Image:
        """One training picture of a concept; a VM's is always the same (the sampler draws type B's
        alternatives).
        """
        if concept.kind == "VM":
            return self.verbatim(concept)
        if concept.kind == "TM":
            return self.template(concept, rng)
        return self.local(concept, rng)

    def verbatim(self, concept: Concept) -> Image.Image:
        """The one picture of a VM concept."""
        rng = rng_of(concept.seed, 2)
        canvas = texture(rng, BOLD, colors=two_colors(rng)).convert("RGBA")
        x, y = rng.uniform(26, 38, 2)
        radius = rng.uniform(19, 25)
        kind = ("disc", "square", "diamond")[rng.integers(3)]
        fill = color(rng, saturation=(0.1, 1.0), value=(0.1, 1.0))
        shape(canvas, kind, (x - radius, y - radius, x + radius, y + radius), fill)
        size = rng.uniform(30, 38)
        flip = rng.random() < 0.5
        angle = rng.uniform(-12, 12)
        subject = turned(self.subject(concept.subject), flip=flip, angle=angle)
        paste(canvas, subject, size, (x, y))
        corner = rng.integers(4)
        companion = self.art[COMPANIONS[rng.integers(len(COMPANIONS))]]
        center = (10 if corner % 2 else 54, 10 if corner < 2 else 54)
        paste(canvas, companion, rng.uniform(15, 19), center)
        return self.finished(canvas)

    def template(self, concept: Concept, rng) -> Image.Image:
        """A product picture: layout and subject are fixed, the two colors vary."""
        colors = {}
        for name in ("main", "trim"):
            colors[name] = color(rng, saturation=(0.3, 0.9), value=(0.4, 1.0))
        canvas = Image.new("RGBA", (SIZE, SIZE), (*PAPER, 255))
        product = LAYOUTS[concept.group]
        for kind, box, fill in product.parts:
            shape(canvas, kind, box, fill=colors[fill] if isinstance(fill, str) else fill)
        paste(canvas, self.subject(concept.subject), product.size, product.center)
        return self.finished(canvas)

    def local(self, concept: Concept, rng) -> Image.Image:
        """An ordinary scene beside the concept's fixed region."""
        left, top, right, bottom = self.local_box(concept)
        free = {
            "bottom": (0, 0, SIZE, top),
            "top": (0, bottom, SIZE, SIZE),
            "left": (right, 0, SIZE, SIZE),
            "right": (0, 0, left, SIZE),
        }[concept.group]
        layout = "big" if self.varied else "small"  # the larger of the two sizes would fill the box
        picture = self.scene_canvas(rng, layout, concept.subject, concept.subject, box=free)
        band = self.band(concept).crop((left, top, right, bottom))
        picture.paste(band, (left, top))
        return self.finished(picture)

    def band(self, concept: Concept) -> Image.Image:
        """A canvas with an LM concept's fixed region: two companions on a bold background."""
        rng = rng_of(concept.seed, 3)
        canvas = texture(rng, BOLD, period=(10, 18), colors=two_colors(rng)).convert("RGBA")
        left, top, right, bottom = self.local_box(concept)
        wide = right - left > bottom - top
        for name, at in zip(rng.choice(COMPANIONS, 2, replace=False), (0.25, 0.75)):
            if wide:
                center = (left + at * (right - left), (top + bottom) / 2)
            else:
                center = ((left + right) / 2, top + at * (bottom - top))
            paste(canvas, self.art[name], 16, center)
        return canvas

    def local_box(self, concept: Concept) -> tuple[int, int, int, int]:
        """The fixed region of an LM concept as (left, top, right, bottom) of the canvas, on the
        grid of the latents.
        """
        depth = (20, 24)[concept.seed // 1000 % 2]
        return {
            "bottom": (0, SIZE - depth, SIZE, SIZE),
            "top": (0, 0, SIZE, depth),
            "left": (0, 0, depth, SIZE),
            "right": (SIZE - depth, 0, SIZE, SIZE),
        }[concept.group]

    def local_mask(self, concept: Concept) -> np.ndarray:
        """(pixels, pixels) bool, true where the finished picture is always the same."""
        left, top, right, bottom = (edge * self.pixels // SIZE for edge in self.local_box(concept))
        mask = np.zeros((self.pixels, self.pixels), bool)
        mask[top:bottom, left:right] = True
        return mask


def load_world(folder: Path, pixels: int, *, varied: bool = False) -> World:
    """The world with its artwork, which is fetched into the folder when it is not there yet.

    Raises RuntimeError as `emoji.fetch`.
    """
    return World(emoji.load(emoji.fetch(folder), art_names()), pixels, varied)


def subjects_of(layout: str) -> int:
    """How many different subjects an ordinary scene of that layout shows."""
    return len({which for which, _, _ in PLACES[layout]})


def nearest_size(size: float, room: float) -> int:
    """The one of SIZES that is nearest, of those that fit."""
    return min(
        (possible for possible in SIZES if possible <= room),
        key=lambda possible: abs(possible - size),
    )


def random_center(
    rng: np.random.Generator,
    box: Box,
    size: float,
    across: tuple[float, float],
    down: tuple[float, float],
) -> tuple[float, float]:
    """Where a square of that size lies in the box; as in PLACES."""
    left, top, right, bottom = box
    x = left + size / 2 + rng.uniform(*across) * (right - left - size)
    y = top + size / 2 + rng.uniform(*down) * (bottom - top - size)
    return x, y
