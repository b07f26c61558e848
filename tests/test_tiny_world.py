"""The embedded model's world: its files are what the script draws, and what is memorized is as it
says.
"""

import colorsys
import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from memorization_suite import tiny
from memorization_suite.tiny import build_world
from memorization_suite.tiny.bank import build_bank
from memorization_suite.tiny.build_world import COLUMNS, FIRST_INDEX, VARIANTS
from memorization_suite.tiny.world import (
    PLACES,
    PRODUCTS,
    SERIES,
    SUBJECTS,
    WORDS,
    World,
    art_names,
    memorized_concepts,
    rng_of,
    scene_caption,
    subjects_of,
)

TINY = Path(build_world.__file__).parent
CONFIG = tiny.settings()
SIZE = (tiny.pixels(), tiny.pixels())
PIXELS = CONFIG["world"]["pixels"]
SCENES = CONFIG["world"]["scenes"]
MODELS = sorted(FIRST_INDEX)


def concepts_of(model: str):
    table = CONFIG["models"][model]
    return memorized_concepts(table["counts"], table["tuning"], table["seed"])


CONCEPTS = concepts_of("tiny")


def of_kind(kind: str):
    return [concept for concept in CONCEPTS if concept.kind == kind]


def first_of_groups(kind: str):
    return [
        next(concept for concept in of_kind(kind) if concept.group == group)
        for group in (PRODUCTS if kind == "TM" else SERIES)
    ]


def art_color(name: str) -> tuple[int, int, int]:
    """A saturated color of its own for each artwork."""
    i = art_names().index(name)
    return tuple(
        int(255 * c) for c in colorsys.hsv_to_rgb(i / len(art_names()), 1.0, 0.35 + 0.05 * (i % 3))
    )


@pytest.fixture(scope="module")
def world() -> World:
    """The world with plain squares for artwork."""
    return World(
        {name: Image.new("RGBA", (64, 64), (*art_color(name), 255)) for name in art_names()},
        PIXELS,
    )


def draw(world, concept, k: int) -> np.ndarray:
    return np.asarray(world.memorized(concept, rng_of(concept.seed, 20, k)))


# --- committed files


def table(model: str, kind: str, split: str) -> list[dict[str, str]]:
    with open(
        TINY / "prompts" / f"{model}_{kind}_{split}.csv", newline="", encoding="utf-8"
    ) as file:
        reader = csv.DictReader(file, delimiter=";")
        assert reader.fieldnames == COLUMNS and COLUMNS[:7] == [
            "",
            "Caption",
            "URL",
            "type",
            "mean_sscd",
            "max_sscd",
            "Index",
        ]
        return list(reader)


@pytest.mark.parametrize("split", ["tuning", "test"])
@pytest.mark.parametrize("model", MODELS)
def test_memorized_prompts_are_those_of_the_world(model, split):
    expected = [
        (c.caption, c.kind, str(FIRST_INDEX[model] + i), c.group, c.subject)
        for i, c in enumerate(concepts_of(model))
        if c.split == split
    ]
    rows = table(model, "memorized", split)
    assert [
        (row["Caption"], row["type"], row["Index"], row["group"], row["subject"]) for row in rows
    ] == expected
    assert [row[""] for row in rows] == [str(i) for i in range(len(rows))]


@pytest.mark.parametrize("split", ["tuning", "test"])
@pytest.mark.parametrize("model", MODELS)
def test_ordinary_prompts_say_what_they_show(model, split):
    for row in table(model, "ordinary", split):
        subject, _, other = row["subject"].partition(",")
        patterns = [pattern for pattern, layout in SCENES.items() if layout == row["group"]]
        assert (
            row["Caption"] in {scene_caption(pattern, subject, other) for pattern in patterns}
            and not row["type"]
            and not row["Index"]
        )
        assert (
            {subject, other} - {""} <= set(WORDS)
            and bool(other) == (subjects_of(row["group"]) == 2)
            and subject != other
        )


@pytest.mark.parametrize("model", MODELS)
def test_splits_are_disjoint(model):
    tuning, test = (
        {row["Caption"] for kind in ("memorized", "ordinary") for row in table(model, kind, split)}
        for split in ("tuning", "test")
    )
    assert not tuning & test
    indices = [
        row["Index"] for split in ("tuning", "test") for row in table(model, "memorized", split)
    ]
    assert len(set(indices)) == len(indices)


def test_models_have_indices_of_their_own():
    first, second = (
        {row["Index"] for split in ("tuning", "test") for row in table(model, "memorized", split)}
        for model in MODELS
    )
    assert not first & second


def test_there_are_enough_test_prompts():
    rows = table("tiny", "memorized", "test")
    kinds = [row["type"] for row in rows]
    groups = [row["group"] for row in rows if row["type"] == "VM"]
    assert kinds.count("VM") >= 40 and kinds.count("TM") >= 12 and kinds.count("LM") >= 12
    assert groups.count("B") == 3 * groups.count("A")
    assert all(len(table(model, "ordinary", "test")) >= 60 for model in MODELS)
    assert [row["type"] for row in table("tiny-v", "memorized", "test")].count("TM") >= 30


@pytest.mark.parametrize("model", MODELS)
def test_every_index_has_references_and_local_ones_a_mask(model):
    for i, concept in enumerate(concepts_of(model)):
        files = sorted((TINY / "gt_images" / str(FIRST_INDEX[model] + i)).iterdir())
        assert [path.name for path in files] == [
            f"{k:02d}.png" for k in range(VARIANTS[concept.kind])
        ]
        for path in files:
            with Image.open(path) as image:
                assert image.format == "PNG" and image.mode == "RGB" and image.size == SIZE
        mask = TINY / "masks" / f"{FIRST_INDEX[model] + i}.png"
        assert mask.exists() == (concept.kind == "LM")
        if concept.kind == "LM":
            saved = np.array(Image.open(mask))
            assert saved.dtype == bool and np.array_equal(
                saved, World({}, PIXELS).local_mask(concept)
            )
            pictures = np.stack([np.asarray(Image.open(path)) for path in files])
            assert (pictures[:, saved] == pictures[:1, saved]).all() and (
                pictures[:, ~saved] != pictures[:1, ~saved]
            ).any()


def test_there_is_nothing_else_among_the_references():
    indices = {
        str(FIRST_INDEX[model] + i) for model in MODELS for i in range(len(concepts_of(model)))
    }
    assert {path.name for path in (TINY / "gt_images").iterdir()} == indices


# --- captions


@pytest.mark.parametrize("model", MODELS)
def test_concepts_are_the_same_each_time_and_captions_unique(model):
    concepts = concepts_of(model)
    assert concepts == concepts_of(model)
    assert (
        len({c.caption for c in concepts})
        == len({c.seed for c in concepts})
        == len(concepts)
        == sum(CONFIG["models"][model]["counts"].values())
    )
    assert all(c.subject.title() in c.caption and c.subject in SUBJECTS for c in concepts)


@pytest.mark.parametrize("model", MODELS)
def test_concepts_have_the_numbers_that_were_asked_for(model):
    settings, concepts = CONFIG["models"][model], concepts_of(model)
    for slot, count in settings["counts"].items():
        kind, _, group = slot.partition("-")
        found = [c for c in concepts if c.kind == kind and (not group or c.group == group)]
        tuning = settings["tuning"][slot]
        assert [c.split for c in found] == ["tuning"] * tuning + ["test"] * (count - tuning)
    for kind in ("VM", "TM", "LM"):
        subjects = [c.subject for c in concepts if c.kind == kind]
        assert len(set(subjects)) == len(subjects)


def test_another_seed_gives_other_captions():
    table = CONFIG["models"]["tiny"]
    other = memorized_concepts(table["counts"], table["tuning"], table["seed"] + 1000)
    assert not {c.caption for c in other if c.kind == "VM"} & {c.caption for c in CONCEPTS}


@pytest.mark.parametrize(
    ("pattern", "caption"),
    [
        ("a picture of {ax}", "a picture of a butterfly"),
        ("two {xs}", "two butterflies"),
        ("{ax} and {ay}", "a butterfly and a maple leaf"),
    ],
)
def test_scene_captions(pattern, caption):
    assert scene_caption(pattern, "butterfly", "maple leaf") == caption


# --- drawing


@pytest.mark.parametrize(
    "concept",
    [of_kind("VM")[0], of_kind("VM")[20], *first_of_groups("TM"), *first_of_groups("LM")],
    ids=lambda c: c.group,
)
def test_the_same_generator_draws_the_same_picture(world, concept):
    first = draw(world, concept, 0)
    assert first.shape == (PIXELS, PIXELS, 3) and first.dtype == np.uint8
    assert np.array_equal(first, draw(world, concept, 0))
    assert np.array_equal(first, draw(world, concept, 1)) == (concept.kind == "VM")


@pytest.mark.parametrize("layout", sorted(PLACES))
def test_a_scene_shows_its_subjects(world, layout):
    pictures = [np.asarray(world.scene(rng_of(5, k), layout, "fox", "owl")) for k in range(3)]
    assert np.array_equal(pictures[0], np.asarray(world.scene(rng_of(5, 0), layout, "fox", "owl")))
    assert not np.array_equal(pictures[0], pictures[1])
    shown = [SUBJECTS["fox"]] + [SUBJECTS["owl"]] * (subjects_of(layout) == 2)
    assert all(
        (picture == art_color(name)).all(-1).sum() > 60 for picture in pictures for name in shown
    )
    assert subjects_of(layout) == 2 or not any(
        (picture == art_color(SUBJECTS["owl"])).all(-1).any() for picture in pictures
    )


def test_sizes_are_as_the_caption_says(world):
    def area(layout):
        pictures = [np.asarray(world.scene(rng_of(6, k), layout, "fox", "owl")) for k in range(24)]
        return np.mean(
            [(picture == art_color(SUBJECTS["fox"])).all(-1).sum() for picture in pictures]
        )

    assert area("small") < 0.9 * area("one") < 0.9 * area("big")


@pytest.mark.parametrize(
    ("layout", "low", "high"),
    [("left", "x", "fox"), ("right", "fox", "x"), ("pair", "owl", "fox")],
)
def test_places_across_are_as_the_caption_says(world, layout, low, high):
    check_places(world, layout, low, high, axis=1)


@pytest.mark.parametrize(
    ("layout", "low", "high"),
    [
        ("top", "x", "fox"),
        ("bottom", "fox", "x"),
        ("above", "owl", "fox"),
        ("below", "fox", "owl"),
    ],
)
def test_places_down_are_as_the_caption_says(world, layout, low, high):
    check_places(world, layout, low, high, axis=0)


def check_places(world, layout, low, high, axis):
    """`low` lies at a larger coordinate than `high` in every picture; x is the middle."""

    def middle(picture, name):
        if name == "x":
            return PIXELS / 2
        return np.argwhere((picture == art_color(SUBJECTS[name])).all(-1))[:, axis].mean()

    for k in range(12):
        picture = np.asarray(world.scene(rng_of(7, k), layout, "fox", "owl"))
        assert middle(picture, low) > middle(picture, high)


def test_three_subjects_cover_three_times_the_place_of_one(world):
    def area(layout):
        picture = np.asarray(world.scene(rng_of(8, 0), layout, "fox", "owl"))
        return (picture == art_color(SUBJECTS["fox"])).all(-1).sum()

    assert area("three") == 1.5 * area("two") == 3 * area("left")


@pytest.mark.parametrize("concept", first_of_groups("LM"), ids=lambda c: c.group)
def test_a_local_picture_has_a_fixed_region_and_the_rest_varies(world, concept):
    mask = world.local_mask(concept)
    pictures = np.stack([draw(world, concept, k) for k in range(6)])
    assert (pictures[:, mask] == pictures[:1, mask]).all()
    assert (pictures[:, ~mask].std(0).max(-1) > 0).mean() >= 0.7  # the subject's squares overlap
    latents = mask.reshape(16, PIXELS // 16, 16, PIXELS // 16).all((1, 3)).sum()
    assert latents in (5 * 16, 6 * 16) and latents * (PIXELS // 16) ** 2 == mask.sum()


def test_fixed_regions_differ_between_concepts(world):
    regions = [draw(world, c, 0)[world.local_mask(c)].tobytes() for c in of_kind("LM")]
    assert len(set(regions)) == len(regions)


@pytest.mark.parametrize("concept", first_of_groups("TM"), ids=lambda c: c.group)
def test_a_template_has_a_fixed_layout_and_its_colors_vary(world, concept):
    pictures = np.stack([draw(world, concept, k) for k in range(6)])
    for fixed in ((244, 244, 240), art_color(SUBJECTS[concept.subject])):
        places = (pictures == fixed).all(-1)
        assert places[0].sum() > 30 and (places == places[0]).all()
    assert (pictures.std(0).max(-1) > 5).mean() > 0.2


def test_pictures_of_verbatim_concepts_differ(world):
    pictures = {draw(world, concept, 0).tobytes() for concept in of_kind("VM")}
    assert len(pictures) == len(of_kind("VM"))


# --- the training set


def test_the_bank_holds_every_picture_under_its_caption(world):
    settings = CONFIG["world"] | {"ordinary": 60, "template_variants": 3, "local_variants": 2}
    bank = build_bank(world, settings, CONFIG["models"]["tiny-v"])
    again = build_bank(world, settings, CONFIG["models"]["tiny-v"])
    assert np.array_equal(bank.pictures, again.pictures) and bank.captions == again.captions
    for concept in bank.concepts:
        rows = bank.rows[concept.caption]
        assert len(rows) == {"VM": 1, "TM": 3, "LM": 2}[concept.kind] and {
            bank.captions[row] for row in rows
        } == {concept.caption}
        assert np.array_equal(bank.pictures[rows[0]], draw(world, concept, 0))
    assert sorted(row for rows in bank.rows.values() for row in rows) == list(
        range(len(bank.pictures))
    )
    assert set(bank.shown) == {"", *bank.captions} and bank.shown[""] == ("", ())
    assert all(
        bank.shown[concept.caption] == (concept.caption, (concept.subject,))
        for concept in bank.concepts
    )
    assert sum(map(len, bank.plain.values())) > 0
    for word, rows in bank.plain.items():
        assert all(
            bank.captions[row]
            in {scene_caption(p, word, "") for p, layout in SCENES.items() if layout == "one"}
            for row in rows
        )
