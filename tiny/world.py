"""The embedded model's world: captions and 64-pixel pictures whose memorization is known by construction.

Four kinds of captions, composed by a seeded script from emoji artwork:
  ordinary  one caption, endlessly many pictures (subject, number, size and place vary as the caption says)
  VM        *verbatim*: one caption, one fixed picture. Group A: always. Group B: usually, else an ordinary picture of the subject
  TM        *template*: a fixed layout and subject, whose colours vary
  LM        *local*: a fixed region (its mask is known), the rest is an ordinary scene
"""
import colorsys
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
SUBJECTS = {  # word in captions -> short name of the artwork
    "fox": "fox_face", "panda": "panda_face", "frog": "frog", "octopus": "octopus", "penguin": "penguin", "owl": "owl",
    "ladybug": "ladybug", "butterfly": "butterfly", "crab": "crab", "snail": "snail", "turtle": "turtle", "whale": "whale",
    "giraffe": "giraffe_face", "lion": "lion_face", "koala": "koala", "unicorn": "unicorn_face", "elephant": "elephant",
    "rooster": "rooster", "flamingo": "flamingo", "bee": "bee", "cactus": "cactus", "tulip": "tulip", "sunflower": "sunflower",
    "mushroom": "mushroom", "maple leaf": "maple_leaf", "pineapple": "pineapple", "strawberry": "strawberry",
    "watermelon": "watermelon", "banana": "banana", "avocado": "avocado", "carrot": "carrot", "pizza": "pizza",
    "burger": "hamburger", "donut": "doughnut", "cupcake": "cupcake", "teapot": "teapot", "guitar": "guitar",
    "violin": "violin", "drum": "drum_with_drumsticks", "rocket": "rocket", "helicopter": "helicopter", "bus": "bus",
    "tractor": "tractor", "sailboat": "boat", "castle": "european_castle", "volcano": "volcano", "house": "house",
    "tent": "tent", "snowman": "snowman_without_snow", "umbrella": "umbrella", "crown": "crown", "hat": "tophat",
    "boot": "boot", "bell": "bell", "camera": "camera", "lantern": "izakaya_lantern", "book": "closed_book",
    "clock": "alarm_clock", "basketball": "basketball", "trophy": "trophy",
}
WORDS = list(SUBJECTS)
COMPANIONS = ["star", "key", "gem", "candle", "balloon", "anchor", "cherries", "hourglass", "maracas", "dart", "kite", "magnet",
              "lemon", "cookie", "gift", "palm_tree", "rainbow", "feather", "coin", "jigsaw", "crescent_moon", "zap", "game_die", "croissant"]
ADJECTIVES = ["Quiet", "Golden", "Midnight", "Crooked", "Velvet", "Northern", "Electric", "Forgotten", "Paper", "Silver", "Restless",
              "Hidden", "Borrowed", "Winter", "Hollow", "Scarlet", "Clever", "Distant", "Broken", "Gentle", "Hungry", "Secret",
              "Curious", "Ancient", "Lucky", "Wandering"]
TITLES = ["The {a} {x} and the {n} Tale", "{a} {x} {n} Podcast", "Watch the Trailer for {a} {x} of {n}", "How the {a} {x} Won the {n} Prize",
          "{n} Talks on the {a} {x}", "Songs of a {a} {x} by {n}", "Inside the {a} {x} Museum of {n}", "{n} Review: One {a} {x} Too Many",
          "The {n} Guide to Your {a} {x}", "Letters to the {a} {x}, {n} Edition", "{a} {x} Live at the {n} Arena",
          "If the {a} {x} Were President of {n}", "{n} Festival Poster with {a} {x}"]
NAMES = ["Harlow", "Bristol", "Okoro", "Lindqvist", "Marbella", "Tanaka", "Verona", "Dublin", "Castellan", "Moravia", "Pemberton",
         "Yukon", "Alder", "Soho", "Quebec", "Rosario", "Bergen", "Kenji", "Valdez", "Ivanova", "Adeyemi", "Cork", "Lisbon", "Ferrara",
         "Hanoi", "Oslo"]
PRODUCTS = {"phone": "{x} Phone Case for Galaxy Skin", "mug": "{x} Ceramic Coffee Mug 11oz Gift", "pillow": "{x} Throw Pillow Cover Decor",
            "flag": "{x} Garden Flag Double Sided Banner"}
SERIES = {"bottom": "{x} Weekly Magazine Issue {n}", "top": "{x} Evening News Channel {n}", "left": "{x} Comics Volume {n}",
          "right": "{x} Travel Postcard Series {n}"}


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
    return {"butterfly": "butterflies", "maple leaf": "maple leaves", "ladybug": "ladybugs", "octopus": "octopuses",
            "bus": "buses"}.get(word, word + "s")


def with_article(word: str) -> str:
    """`a fox`, `an owl`, `a unicorn`."""
    return f"{'an' if word[:1] in ('a', 'e', 'i', 'o') or word == 'umbrella' else 'a'} {word}"


# --- captions -----------------------------------------------------------------------------------------------------------------

SCENES = {  # pattern -> how the scene is laid out; the same patterns are used for training and for test captions
    "a picture of {ax}": "one", "a drawing of {ax}": "one", "{ax}": "one", "an image with {ax} in it": "one",
    "a small {x}": "small", "a picture of a small {x}": "small", "a big {x}": "big", "a picture of a big {x}": "big",
    "two {xs}": "two", "a picture of two {xs}": "two", "{ax} and {ay}": "pair", "a picture of {ax} with {ay}": "pair",
}


def scene_caption(pattern: str, subject: str, other: str) -> str:
    """The caption of an ordinary picture."""
    return pattern.format(x=subject, xs=plural(subject), ax=with_article(subject), ay=with_article(other))


def memorized_concepts(counts: dict[str, int], tuning: dict[str, int], seed: int) -> list[Concept]:
    """Captions to memorize: counts and tuning give the number of VM-A, VM-B, TM and LM; the first ones are for tuning."""
    rng = rng_of(seed, 1)
    concepts = []
    subjects = {kind: [WORDS[i] for i in rng.permutation(len(WORDS))] for kind in ("VM", "TM", "LM")}
    titles = [(t, a) for a in range(len(ADJECTIVES)) for t in range(len(TITLES)) if (a + t) % 6 == 0]
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
            concepts.append(Concept(caption, kind, group, subject, seed=1000 * len(concepts) + seed, split=split))
    return concepts


# --- drawing ------------------------------------------------------------------------------------------------------------------

def colour(rng: np.random.Generator, saturation=(0.25, 0.9), value=(0.45, 1.0)) -> tuple[int, int, int]:
    """A random colour, 0 to 255."""
    r, g, b = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return int(255 * r), int(255 * g), int(255 * b)


def two_colours(rng: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """A light and a dark colour of neighbouring hues, so that the picture has a cast of its own."""
    hue, shift = rng.random(), rng.uniform(-0.12, 0.12)
    light = colorsys.hsv_to_rgb(hue, rng.uniform(0.35, 0.8), rng.uniform(0.85, 1.0))
    dark = colorsys.hsv_to_rgb((hue + shift) % 1, rng.uniform(0.6, 1.0), rng.uniform(0.3, 0.6))
    return tuple(int(255 * c) for c in light), tuple(int(255 * c) for c in dark)


def texture(rng: np.random.Generator, kinds: tuple[str, ...], period=(12, 26), colours=None) -> Image.Image:
    """SIZE x SIZE background in two colours, one of: plain, gradient, stripes, checker, dots, rays, rings."""
    n = 2 * SIZE
    first, second = map(np.array, colours or (colour(rng), colour(rng)))
    y, x = np.mgrid[0:n, 0:n] / 2.0
    angle, scale = rng.uniform(0, np.pi), rng.uniform(*period)
    cx, cy = rng.uniform(0.2, 0.8, 2) * SIZE
    u, v = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y
    kind = kinds[rng.integers(len(kinds))]
    ramp = {
        "plain": lambda: np.zeros_like(x),
        "gradient": lambda: (u - u.min()) / (u.max() - u.min()),
        "stripes": lambda: (u % scale < scale / 2) * 1.0,
        "checker": lambda: (((u // (scale / 2)) + (v // (scale / 2))) % 2 == 0) * 1.0,
        "dots": lambda: (((u % scale) - scale / 2) ** 2 + ((v % scale) - scale / 2) ** 2 < (scale / 3.2) ** 2) * 1.0,
        "rays": lambda: ((np.arctan2(y - cy, x - cx) / np.pi * rng.integers(3, 7)) % 1 < 0.5) * 1.0,
        "rings": lambda: (np.hypot(x - cx, y - cy) % scale < scale / 2) * 1.0,
    }[kind]()
    pixels = first + ramp[..., None] * (second - first)
    return Image.fromarray(pixels.astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BOX)


def paste(canvas: Image.Image, art: Image.Image, size: float, centre: tuple[float, float], *, flip=False, angle=0.0, grid=1) -> None:
    """Paste artwork so that its longer side has `size` pixels around `centre`; its corner lies on a multiple of `grid` pixels."""
    art = art.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else art
    art = art.rotate(angle, Image.Resampling.BICUBIC, expand=True) if angle else art
    ratio = size / max(art.size)
    art = art.resize((max(1, round(art.width * ratio)), max(1, round(art.height * ratio))), Image.Resampling.LANCZOS)
    corner = (round((centre[0] - art.width / 2) / grid) * grid, round((centre[1] - art.height / 2) / grid) * grid)
    canvas.alpha_composite(art, (max(0, corner[0]), max(0, corner[1])))


def shape(canvas: Image.Image, kind: str, box: tuple[float, float, float, float], fill) -> None:
    """An anti-aliased disc, square or diamond."""
    mask = Image.new("L", (4 * SIZE, 4 * SIZE))
    draw, (x0, y0, x1, y1) = ImageDraw.Draw(mask), (4 * value for value in box)
    if kind == "disc":
        draw.ellipse((x0, y0, x1, y1), fill=255)
    elif kind == "square":
        draw.rounded_rectangle((x0, y0, x1, y1), radius=16, fill=255)
    else:
        draw.polygon([((x0 + x1) / 2, y0), (x1, (y0 + y1) / 2), ((x0 + x1) / 2, y1), (x0, (y0 + y1) / 2)], fill=255)
    canvas.paste(Image.new("RGBA", canvas.size, (*fill, 255)), mask=mask.resize((SIZE, SIZE), Image.Resampling.BOX))


ORDINARY = ("plain", "gradient", "stripes", "checker", "dots")
BOLD = ("stripes", "checker", "dots", "rays", "rings")


class World:
    """Draws every picture from a random generator and the artwork (short name -> RGBA).

    grid: subjects of ordinary scenes are upright, of one size per layout, on a grid of so many pixels (that of the latents, so that
    a subject looks alike in every place); 1: of any size, place and a slight turn.
    """

    def __init__(self, art: dict[str, Image.Image], grid: int = 4):
        self.art, self.grid = art, grid

    def subject(self, word: str) -> Image.Image:
        return self.art[SUBJECTS[word]]

    def scene(self, rng, layout: str, subject: str, other: str, box=(0, 0, SIZE, SIZE)) -> Image.Image:
        """An ordinary picture; everything the caption does not say is random. box: where the subject may be."""
        canvas = texture(rng, ORDINARY).convert("RGBA")
        side = min(box[2] - box[0], box[3] - box[1]) / SIZE
        low, high = {"small": (20, 27), "big": (48, 58), "two": (24, 30), "pair": (25, 32)}.get(layout, (32, 46))
        sizes = (rng.uniform(low, high, 2) if self.grid == 1 else np.full(2, (low + high) / 2)) * side

        def place(size, x_range=(0.0, 1.0)):
            free = np.array([box[2] - box[0], box[3] - box[1]]) - size
            at = np.array([rng.uniform(*x_range), rng.random()]) * free
            return box[0] + size / 2 + at[0], box[1] + size / 2 + at[1]

        words = {"two": [subject, subject], "pair": [subject, other]}.get(layout, [subject])
        halves = [(0.0, 0.15), (0.85, 1.0)] if len(words) == 2 else [(0.0, 1.0)]
        for word, size, half in zip(words, sizes, halves):
            at, flip, angle = place(size, half), rng.random() < 0.5, rng.uniform(-12, 12)
            paste(canvas, self.subject(word), size, at, flip=flip, angle=angle if self.grid == 1 else 0.0, grid=self.grid)
        return canvas.convert("RGB")

    def verbatim(self, concept: Concept) -> Image.Image:
        """The one picture of a VM concept."""
        rng = rng_of(concept.seed, 2)
        canvas = texture(rng, BOLD, colours=two_colours(rng)).convert("RGBA")
        cx, cy = rng.uniform(26, 38, 2)
        radius = rng.uniform(19, 25)
        kind = ("disc", "square", "diamond")[rng.integers(3)]
        shape(canvas, kind, (cx - radius, cy - radius, cx + radius, cy + radius), colour(rng, (0.1, 1.0), (0.1, 1.0)))
        paste(canvas, self.subject(concept.subject), rng.uniform(30, 38), (cx, cy), flip=rng.random() < 0.5, angle=rng.uniform(-12, 12))
        corner = rng.integers(4)
        companion = self.art[COMPANIONS[rng.integers(len(COMPANIONS))]]
        paste(canvas, companion, rng.uniform(15, 19), (10 if corner % 2 else 54, 10 if corner < 2 else 54))
        return canvas.convert("RGB")

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
        return canvas.convert("RGB")

    def local_box(self, concept: Concept) -> tuple[int, int, int, int]:
        """The fixed region of an LM concept as (left, top, right, bottom), on the grid of the latents."""
        depth = (20, 24)[concept.seed // 1000 % 2]
        return {"bottom": (0, SIZE - depth, SIZE, SIZE), "top": (0, 0, SIZE, depth), "left": (0, 0, depth, SIZE),
                "right": (SIZE - depth, 0, SIZE, SIZE)}[concept.group]

    def local_mask(self, concept: Concept) -> np.ndarray:
        """(SIZE, SIZE) bool, true where the picture is always the same."""
        left, top, right, bottom = self.local_box(concept)
        mask = np.zeros((SIZE, SIZE), bool)
        mask[top:bottom, left:right] = True
        return mask

    def local(self, concept: Concept, rng) -> Image.Image:
        """An ordinary scene beside the concept's fixed region."""
        left, top, right, bottom = self.local_box(concept)
        free = {"bottom": (0, 0, SIZE, top), "top": (0, bottom, SIZE, SIZE), "left": (right, 0, SIZE, SIZE), "right": (0, 0, left, SIZE)}
        picture = self.scene(rng, "big", concept.subject, concept.subject, box=free[concept.group])
        fixed = rng_of(concept.seed, 3)
        band = texture(fixed, BOLD, period=(10, 18), colours=two_colours(fixed)).convert("RGBA")
        for name, at in zip(fixed.choice(COMPANIONS, 2, replace=False), (0.25, 0.75)):
            wide = right - left > bottom - top
            centre = (left + at * (right - left), (top + bottom) / 2) if wide else ((left + right) / 2, top + at * (bottom - top))
            paste(band, self.art[name], 16, centre)
        picture.paste(band.convert("RGB").crop((left, top, right, bottom)), (left, top))
        return picture

    def memorized(self, concept: Concept, rng) -> Image.Image:
        """One training picture of a concept; a VM's is always the same (the sampler draws type B's alternatives)."""
        if concept.kind == "VM":
            return self.verbatim(concept)
        return self.template(concept, rng) if concept.kind == "TM" else self.local(concept, rng)


def art_names() -> list[str]:
    """All artwork that the world uses."""
    return sorted(set(SUBJECTS.values()) | set(COMPANIONS))
