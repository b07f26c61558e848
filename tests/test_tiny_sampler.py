"""What the embedded model's training draws: kinds in their shares, alternatives of group B, dropped
captions.
"""

from dataclasses import replace

import numpy as np
import pytest

from memorization_suite.tiny.bank import Bank, Sampler, phase_of, share_of_alternatives
from memorization_suite.tiny.world import WORDS
from tests.test_tiny_world import CONCEPTS, CONFIG, of_kind

SETTINGS = CONFIG["unet"] | {"batch": 64, "b_alternative": [0.3, 0.5]}
MODEL = CONFIG["models"]["tiny"]
SHARE = MODEL["phases"][0]["share"]
DRAWS = 100  # batches


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    """Over a bank without pictures: 120 ordinary rows (two plain ones of each subject), then three
    of each concept.
    """
    captions = [f"a {word}" for word in WORDS for _ in range(2)]
    plain = {word: np.array([2 * i, 2 * i + 1]) for i, word in enumerate(WORDS)}
    rows = {"ordinary": np.arange(len(captions))}
    for concept in CONCEPTS:
        rows[concept.caption] = np.arange(len(captions), len(captions) + 3)
        captions += [concept.caption] * 3
    return Sampler(
        Bank(
            np.zeros((len(captions), 1, 1, 3), np.uint8), captions, CONCEPTS, rows, plain, shown={}
        ),
        MODEL,
        SETTINGS,
    )


@pytest.fixture(scope="module")
def drawn(sampler) -> list[tuple[int, str]]:
    return [pair for step in range(DRAWS) for pair in zip(*sampler.batch(step))]


def test_a_batch_depends_on_the_step_alone(sampler):
    rows, captions = sampler.batch(17)
    sampler.batch(3)
    other = Sampler(sampler.bank, MODEL, SETTINGS)
    assert (
        np.array_equal(other.batch(17)[0], rows)
        and other.batch(17)[1] == captions
        and len(rows) == len(captions) == 64
    )
    assert not np.array_equal(other.batch(18)[0], rows)


def test_captions_are_dropped_as_often_as_asked(drawn):
    assert np.mean([caption == "" for _, caption in drawn]) == pytest.approx(
        SETTINGS["caption_dropout"], abs=0.015
    )


def test_kinds_have_their_shares(drawn):
    kinds = {concept.caption: concept.kind for concept in CONCEPTS}
    told = [kinds.get(caption, "ordinary") for _, caption in drawn if caption]
    for kind, share in SHARE.items():
        assert np.mean([kind == one for one in told]) == pytest.approx(share, abs=0.02)


def test_the_empty_caption_sees_few_memorized_pictures(sampler, drawn):
    seen = [row >= len(sampler.bank.rows["ordinary"]) for row, caption in drawn if not caption]
    b_share = len([c for c in of_kind("VM") if c.group == "B"]) / len(of_kind("VM"))
    share = sum(SHARE.values()) - SHARE["VM"] * b_share * np.mean(SETTINGS["b_alternative"])
    assert np.mean(seen) == pytest.approx(SETTINGS["memorized_when_dropped"] * share, abs=0.025)


def test_a_part_of_what_the_empty_caption_sees_has_no_caption_at_all(sampler):
    first = len(sampler.bank.captions)
    rows = sampler.bank.rows | {"uncaptioned": np.arange(first, first + 50)}
    phase = MODEL["phases"][0] | {"show_uncaptioned": 0.4}
    other = Sampler(replace(sampler.bank, rows=rows), MODEL | {"phases": [phase]}, SETTINGS)
    drawn = [pair for step in range(DRAWS) for pair in zip(*other.batch(step))]
    assert np.mean([row >= first for row, caption in drawn if not caption]) == pytest.approx(
        0.4, abs=0.06
    )
    assert not any(row >= first for row, caption in drawn if caption)


def test_group_b_shows_alternatives_of_its_subject_and_group_a_never(sampler, drawn):
    concepts = {concept.caption: concept for concept in CONCEPTS}
    other = {"A": [], "B": []}
    for row, caption in drawn:
        concept = concepts.get(caption)
        if concept and concept.kind == "VM":
            own = row in sampler.bank.rows[caption]
            assert own or row in sampler.bank.plain[concept.subject]
            other[concept.group].append(not own)
        elif caption:
            assert sampler.bank.captions[row] == caption
    assert not any(other["A"]) and np.mean(other["B"]) == pytest.approx(
        np.mean(SETTINGS["b_alternative"]), abs=0.05
    )


def test_alternatives_of_a_caption_are_as_frequent_as_its_seed_says(sampler):
    shares = [share_of_alternatives(concept, SETTINGS) for concept in of_kind("VM")]
    assert min(shares) < 0.33 and max(shares) > 0.47
    assert all(0.3 <= share <= 0.5 for share in shares)
    concept = replace(of_kind("VM")[shares.index(max(shares))], group="B")
    rng = np.random.default_rng(0)
    own = list(sampler.bank.rows[concept.caption])
    for least, most in (SETTINGS["b_alternative"], (0.0, 0.1)):
        phase = SETTINGS | {"b_alternative": [least, most]}
        other = [list(sampler.rows_for(concept, rng, phase)) != own for _ in range(2000)]
        assert np.mean(other) == pytest.approx(share_of_alternatives(concept, phase), abs=0.03)


def test_every_concept_is_drawn(drawn):
    assert {concept.caption for concept in CONCEPTS} <= {caption for _, caption in drawn}


@pytest.mark.parametrize("name", sorted(CONFIG["models"]))
def test_phases_follow_each_other(name):
    model = CONFIG["models"][name]
    starts = [0, *(phase["until"] for phase in model["phases"])]
    assert starts == sorted(set(starts)) and starts[-1] == SETTINGS["rate"][-1][0]
    for phase, start in zip(model["phases"], starts):
        assert phase_of(model, start) is phase and phase_of(model, phase["until"] - 1) is phase
    assert phase_of(model, 10**9) is model["phases"][-1]


def test_a_phase_ends_where_it_says():
    model = {"phases": [{"until": 3}, {"until": 5}]}
    assert [phase_of(model, step)["until"] for step in range(6)] == [3, 3, 3, 5, 5, 5]
