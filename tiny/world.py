"""The embedded model's world: captions and 32-pixel pictures whose memorization is known by
construction.

Four kinds of captions, composed by a seeded script from emoji artwork:
  ordinary  one caption, endlessly many pictures (subject, number, size and place vary as the
  caption says) VM        *verbatim*: one caption, one fixed picture. Group A: always. Group B:
  usually, else an ordinary picture of the subject TM        *template*: a fixed layout and subject,
  whose colours vary LM        *local*: a fixed region (its mask is known), the rest is an ordinary
  scene
"""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from memorization_suite.tiny.drawing import (
    PIXELS,
    SIZE,
    colour,
    finished,
    paste,
    shape,
    texture,
    two_colours,
)

# pixels of the canvas: places of subjects, four places of the latents apart. The UNet's deeper
# levels see them alike
GRID = 16
SIZES = (32, 48)  # of subjects in ordinary scenes, on the canvas
SUBJECTS = {  # word in captions -> short name of the artwork
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
COMPANIONS = [
    "star",
    "key",
    "gem",
    "candle",
    "balloon",
    "anchor",
    "cherries",
    "hourglass",
    "maracas",
    "dart",
    "kite",
    "magnet",
    "lemon",
    "cookie",
    "gift",
    "palm_tree",
    "rainbow",
    "feather",
    "coin",
    "jigsaw",
    "crescent_moon",
    "zap",
    "game_die",
    "croissant",
]
ADJECTIVES = [
    "Quiet",
    "Golden",
    "Midnight",
    "Crooked",
    "Velvet",
    "Northern",
    "Electric",
    "Forgotten",
    "Paper",
    "Silver",
    "Restless",
    "Hidden",
    "Borrowed",
    "Winter",
    "Hollow",
    "Scarlet",
    "Clever",
    "Distant",
    "Broken",
    "Gentle",
    "Hungry",
    "Secret",
    "Curious",
    "Ancient",
    "Lucky",
    "Wandering",
]
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
NAMES = [
    "Harlow",
    "Bristol",
    "Okoro",
    "Lindqvist",
    "Marbella",
    "Tanaka",
    "Verona",
    "Dublin",
    "Castellan",
    "Moravia",
    "Pemberton",
    "Yukon",
    "Alder",
    "Soho",
    "Quebec",
    "Rosario",
    "Bergen",
    "Kenji",
    "Valdez",
    "Ivanova",
    "Adeyemi",
    "Cork",
    "Lisbon",
    "Ferrara",
    "Hanoi",
    "Oslo",
]
PRODUCTS = {
    "phone": "{x} Phone Case for Galaxy Skin",
    "mug": "{x} Ceramic Coffee Mug 11oz Gift",
    "pillow": "{x} Throw Pillow Cover Decor",
    "flag": "{x} Garden Flag Double Sided Banner",
}
SERIES = {
    "bottom": "{x} Weekly Magazine Issue {n}",
    "top": "{x} Evening News Channel {n}",
    "left": "{x} Comics Volume {n}",
    "right": "{x} Travel Postcard Series {n}",
}


@dataclass(frozen=True)
class Concept:
    """One memorized caption. kind: VM, TM or LM; group: A or B for VM, the layout for TM and LM."""

    caption: str
    kind: str
    group: str
    subject: str
    seed: int
    split: str = field(default="test")


def rng_of(*key: int) -> np.random.Generator:
    """A random generator that depends on the key alone."""
    return np.random.default_rng(np.random.SeedSequence(list(key)))


def plural(word: str) -> str:
    """Plural of a subject in captions."""
    return {
        "butterfly": "butterflies",
        "maple leaf": "maple leaves",
        "ladybug": "ladybugs",
        "octopus": "octopuses",
        "bus": "buses",
    }.get(word, word + "s")


def with_article(word: str) -> str:
    """`a fox`, `an owl`, `a unicorn`."""
    return f"{'an' if word[:1] in ('a', 'e', 'i', 'o') or word == 'umbrella' else 'a'} {word}"


# --- captions

# pattern -> how the scene is laid out; the same patterns are used for training and for test
# captions
SCENES = {
    "a picture of {ax}": "one",
    "a drawing of {ax}": "one",
    "{ax}": "one",
    "an image with {ax} in it": "one",
    "a small {x}": "small",
    "a picture of a small {x}": "small",
    "a big {x}": "big",
    "a picture of a big {x}": "big",
    "two {xs}": "two",
    "a picture of two {xs}": "two",
    "{ax} and {ay}": "pair",
    "a picture of {ax} with {ay}": "pair",
}


def scene_caption(pattern: str, subject: str, other: str) -> str:
    """The caption of an ordinary picture."""
    return pattern.format(
        x=subject, xs=plural(subject), ax=with_article(subject), ay=with_article(other)
    )


def memorized_concepts(counts: dict[str, int], tuning: dict[str, int], seed: int) -> list[Concept]:
    """Captions to memorize: counts and tuning give the number of VM-A, VM-B, TM and LM; the first
    ones are for tuning.
    """
    rng = rng_of(seed, 1)
    concepts = []
    subjects = {
        kind: [WORDS[i] for i in rng.permutation(len(WORDS))] for kind in ("VM", "TM", "LM")
    }
    titles = [
        (t, a) for a in range(len(ADJECTIVES)) for t in range(len(TITLES)) if (a + t) % 6 == 0
    ]
    titles = [titles[i] for i in rng.permutation(len(titles))]
    names = [NAMES[i % len(NAMES)] for i in range(len(titles))]
    for slot, total in counts.items():
        kind, _, group = slot.partition("-")
        for i in range(total):
            subject = subjects[kind].pop()
            word = subject.title()
            if kind == "VM":
                title, adjective = titles.pop()
                caption = TITLES[title].format(a=ADJECTIVES[adjective], x=word, n=names.pop())
            else:
                layouts = PRODUCTS if kind == "TM" else SERIES
                group = list(layouts)[i % len(layouts)]
                caption = layouts[group].format(x=word, n=100 + 7 * i)
            split = "tuning" if i < tuning[slot] else "test"
            concepts.append(
                Concept(
                    caption, kind, group, subject, seed=1000 * len(concepts) + seed, split=split
                )
            )
    return concepts


# --- drawing

ORDINARY = ("plain", "gradient")
VARIED = (*ORDINARY, "stripes", "checker", "dots")
BOLD = ("stripes", "checker", "dots", "rays", "rings")


class World:
    """Draws every picture from a random generator and the artwork (short name -> RGBA).

    An ordinary scene shows its subjects upright, in one of two sizes, on a coarse grid: what a
    small network can learn to draw in hours. varied: any size, place, a slight turn, either side,
    and busier backgrounds, for what must not rely on that.
    """

    def __init__(self, art: dict[str, Image.Image], varied: bool = False):
        self.art, self.varied = art, varied

    def subject(self, word: str) -> Image.Image:
        return self.art[SUBJECTS[word]]

    def scene(self, rng, layout: str, subject: str, other: str) -> Image.Image:
        """An ordinary picture; everything the caption does not say is random."""
        return finished(self.scene_canvas(rng, layout, subject, other))

    def scene_canvas(
        self, rng, layout: str, subject: str, other: str, box=(0, 0, SIZE, SIZE)
    ) -> Image.Image:
        """The same, not finished. box: where the subject may be."""
        canvas = texture(rng, VARIED if self.varied else ORDINARY).convert("RGBA")
        room = min(box[2] - box[0], box[3] - box[1])
        low, high = {"small": (20, 27), "big": (48, 58), "two": (24, 30), "pair": (25, 32)}.get(
            layout, (32, 46)
        )
        sizes = rng.uniform(low, high, 2) * room / SIZE
        if not self.varied:
            sizes = [
                min(
                    (size for size in SIZES if size <= room),
                    key=lambda size, drawn=drawn: abs(size - drawn),
                )
                for drawn in sizes
            ]

        def place(size, x_range=(0.0, 1.0)):
            free = np.array([box[2] - box[0], box[3] - box[1]]) - size
            at = np.array([rng.uniform(*x_range), rng.random()]) * free
            return box[0] + size / 2 + at[0], box[1] + size / 2 + at[1]

        words = {"two": [subject, subject], "pair": [subject, other]}.get(layout, [subject])
        halves = [(0.0, 0.15), (0.85, 1.0)] if len(words) == 2 else [(0.0, 1.0)]
        for word, size, half in zip(words, sizes, halves):
            at, turned = (
                place(size, half),
                {"flip": rng.random() < 0.5, "angle": rng.uniform(-12, 12)},
            )
            paste(
                canvas, self.subject(word), size, at, **(turned if self.varied else {"grid": GRID})
            )
        return canvas

    def verbatim(self, concept: Concept) -> Image.Image:
        """The one picture of a VM concept."""
        rng = rng_of(concept.seed, 2)
        canvas = texture(rng, BOLD, colours=two_colours(rng)).convert("RGBA")
        cx, cy = rng.uniform(26, 38, 2)
        radius = rng.uniform(19, 25)
        kind = ("disc", "square", "diamond")[rng.integers(3)]
        shape(
            canvas,
            kind,
            (cx - radius, cy - radius, cx + radius, cy + radius),
            colour(rng, (0.1, 1.0), (0.1, 1.0)),
        )
        paste(
            canvas,
            self.subject(concept.subject),
            rng.uniform(30, 38),
            (cx, cy),
            flip=rng.random() < 0.5,
            angle=rng.uniform(-12, 12),
        )
        corner = rng.integers(4)
        companion = self.art[COMPANIONS[rng.integers(len(COMPANIONS))]]
        paste(
            canvas,
            companion,
            rng.uniform(15, 19),
            (10 if corner % 2 else 54, 10 if corner < 2 else 54),
        )
        return finished(canvas)

    def template(self, concept: Concept, rng) -> Image.Image:
        """A product picture: layout and subject are fixed, the two colours vary."""
        main, trim = colour(rng, (0.3, 0.9), (0.4, 1.0)), colour(rng, (0.3, 0.9), (0.4, 1.0))
        canvas = Image.new("RGBA", (SIZE, SIZE), (244, 244, 240, 255))
        if concept.group == "phone":
            shape(canvas, "square", (17, 2, 47, 62), (40, 40, 44))
            shape(canvas, "square", (19, 4, 45, 60), main)
            shape(canvas, "square", (22, 7, 32, 17), trim)
            shape(canvas, "disc", (24, 9, 30, 15), (20, 20, 24))
            centre, size = (32, 38), 22
        elif concept.group == "mug":
            shape(canvas, "disc", (40, 20, 61, 47), trim)
            shape(canvas, "disc", (45, 25, 56, 42), (244, 244, 240))
            shape(canvas, "square", (6, 10, 50, 58), main)
            shape(canvas, "square", (6, 10, 50, 15), trim)
            centre, size = (28, 36), 30
        elif concept.group == "pillow":
            shape(canvas, "square", (4, 8, 60, 60), trim)
            shape(canvas, "square", (8, 12, 56, 56), main)
            centre, size = (32, 34), 34
        else:
            shape(canvas, "square", (4, 2, 7, 64), (70, 60, 50))
            shape(canvas, "square", (7, 5, 60, 46), main)
            shape(canvas, "square", (7, 46, 60, 53), trim)
            centre, size = (34, 25), 31
        paste(canvas, self.subject(concept.subject), size, centre)
        return finished(canvas)

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
        """(PIXELS, PIXELS) bool, true where the finished picture is always the same."""
        left, top, right, bottom = (edge * PIXELS // SIZE for edge in self.local_box(concept))
        mask = np.zeros((PIXELS, PIXELS), bool)
        mask[top:bottom, left:right] = True
        return mask

    def local(self, concept: Concept, rng) -> Image.Image:
        """An ordinary scene beside the concept's fixed region."""
        left, top, right, bottom = self.local_box(concept)
        free = {
            "bottom": (0, 0, SIZE, top),
            "top": (0, bottom, SIZE, SIZE),
            "left": (right, 0, SIZE, SIZE),
            "right": (0, 0, left, SIZE),
        }
        layout = "big" if self.varied else "small"  # the larger of the two sizes would fill the box
        picture = self.scene_canvas(
            rng, layout, concept.subject, concept.subject, box=free[concept.group]
        )
        fixed = rng_of(concept.seed, 3)
        band = texture(fixed, BOLD, period=(10, 18), colours=two_colours(fixed)).convert("RGBA")
        for name, at in zip(fixed.choice(COMPANIONS, 2, replace=False), (0.25, 0.75)):
            wide = right - left > bottom - top
            centre = (
                (left + at * (right - left), (top + bottom) / 2)
                if wide
                else ((left + right) / 2, top + at * (bottom - top))
            )
            paste(band, self.art[name], 16, centre)
        picture.paste(band.crop((left, top, right, bottom)), (left, top))
        return finished(picture)

    def memorized(self, concept: Concept, rng) -> Image.Image:
        """One training picture of a concept; a VM's is always the same (the sampler draws type B's
        alternatives).
        """
        if concept.kind == "VM":
            return self.verbatim(concept)
        return self.template(concept, rng) if concept.kind == "TM" else self.local(concept, rng)


def art_names() -> list[str]:
    """All artwork that the world uses."""
    return sorted(set(SUBJECTS.values()) | set(COMPANIONS))
