"""The switches of NeMo's search that repeat its official code, against the plain transcription."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from memorization_suite.commands.neuron_settings import NoiseMaps, OrdinarySettings, SearchSettings
from memorization_suite.commands.neurons import make_maps, noises, ordinary_statistics
from memorization_suite.mitigation.nemo.controls import CHOICES, at_random
from memorization_suite.mitigation.nemo.search import (
    PromptSearch,
    SearchOptions,
    Statistics,
    by_layer,
    is_last,
    localize,
    refined,
    selections,
    steps,
)
from memorization_suite.tiny import MODELS
from tests.nemo.conftest import MEMORIZED, ORDINARY, load
from tests.reference import hintersdorf2024 as reference

WINDOW = {"kernel": 3, "sigma": 4.5 / 11}  # of maps of 16 x 16
FILES = {"prompts": "p.csv", "out": "o"}


# --- the maps ---


@pytest.mark.parametrize("seed", [1, 7])
def test_the_official_noises(tiny, seed):
    """One draw for all of a prompt's noises, the same for every prompt: equal."""
    settings = NoiseMaps(rng="official", seed=seed, seeds=3)
    drawn = reference.official_noises(seed, (3, 4, 16, 16))
    assert torch.equal(noises(settings, (4, 16, 16)), drawn)
    for caption in (MEMORIZED, ORDINARY[0]):
        assert torch.equal(make_maps(tiny, caption, settings).x, drawn)
    assert not torch.equal(noises(replace(settings, rng="per_image"), (4, 16, 16)), drawn)


def test_swapped_guidance(tiny):
    """Maps with guidance 7 and the halves taken for each other, 1e-4, and their threshold."""
    settings = OrdinarySettings(**FILES, official="swapped_guidance", seeds=3, rows=4)
    pairs = []
    for caption in ORDINARY:
        maps = make_maps(tiny, caption, settings)
        expected = reference.swapped_maps(
            tiny.unet, tiny.encode([caption]).tokens, tiny.encode([""]).tokens, maps.x, 981, 7.0
        )
        np.testing.assert_allclose(maps.of([[]])[0].numpy(), expected, rtol=0, atol=1e-4)
        assert maps.unet_rows == 6
        pairs += reference.ms_ssim(expected[[0, 0, 1]], expected[[1, 2, 2]], **WINDOW)
    made, count = ordinary_statistics(tiny, ORDINARY, ORDINARY, settings)
    assert made.threshold == pytest.approx(np.mean(pairs) + np.std(pairs, ddof=1), abs=1e-4)
    plain, _ = ordinary_statistics(tiny, ORDINARY, ORDINARY, replace(settings, official=""))
    assert count == 18 and abs(plain.threshold - made.threshold) > 1e-2


@pytest.mark.skipif(not MODELS["tiny-v"].is_dir(), reason="the weights of tiny-v are not here")
def test_raw_v():
    """On a v model the official map is of v itself, 1e-4; the default is of the noise."""
    model = load("tiny-v", dtype="fp32", device="cpu", scheduler="ddim")
    settings = NoiseMaps(official="raw_v", seeds=3)
    maps = make_maps(model, MEMORIZED, settings)
    embedding = model.encode([MEMORIZED]).tokens
    expected = reference.noise_maps(model.unet, embedding, maps.x, int(maps.t), {})
    np.testing.assert_allclose(maps.of([[]])[0].numpy(), expected, rtol=0, atol=1e-4)
    plain = make_maps(model, MEMORIZED, replace(settings, official="")).of([[]])[0].numpy()
    assert np.abs(plain - expected).max() > 1e-2


# --- theta and k ---


def fake_statistics(width: int) -> tuple[dict[str, torch.Tensor], Statistics]:
    """Activations of two layers, some out of distribution, and statistics of mean and std one."""
    draw = torch.Generator().manual_seed(3)
    active = {name: torch.rand(width, generator=draw) * 6 for name in ("a", "b")}
    ones = {name: torch.ones(width) for name in active}
    return active, Statistics(ones, ones, 0.4)


@pytest.mark.parametrize(
    ("flags", "plain", "count"),
    [
        ({"initial_theta": 3.0}, {"theta": 3.0}, 8),
        ({"theta_reduction_per_step": 0.5}, {"theta_step": 0.5}, 8),
        ({"min_theta": 4.0}, {"least_theta": 4.0}, 1280),
        ({"initial_k": 4}, {"k": 4}, 16),
        ({"no_theta": True}, {"no_theta": True}, 1280),
        ({"no_theta": True, "initial_k": 1275}, {"no_theta": True, "k": 1275}, 5),
        ({"no_top_k": True, "initial_k": 4}, {"no_top_k": True, "k": 4}, 16),
    ],
)
@pytest.mark.parametrize("doubles", [False, True])
def test_what_the_selection_tries(flags, plain, count, doubles):
    """As the loops, when nothing suffices; with `doubles` a neuron may be listed twice."""
    active, statistics = fake_statistics(12)
    lists = {name: (statistics.mean[name].tolist(),) * 2 for name in active}
    tried = []
    reference.initial_selection(
        {name: a.tolist() for name, a in active.items()},
        lists,
        lambda chosen: tried.append(chosen) or 1.0,
        0.4,
        doubles=doubles,
        **plain,
    )
    options = SearchSettings(**FILES, statistics="s", **flags, official="doubles" * doubles).options
    ours = [by_layer(neurons) for neurons in selections(active, statistics, options)]
    assert len(ours) == len(tried) == count
    assert ours == [{name: part for name, part in one.items() if part} for one in tried]
    twice = any(len(set(part)) < len(part) for one in ours for part in one.values())
    assert twice == (doubles and options.no_theta is options.no_top_k)


def test_a_smallest_theta_that_is_never_one_ends_the_tries():
    """Without k nothing changes any more; the official loop would go on for ever."""
    active, statistics = fake_statistics(12)
    options = SearchOptions(no_top_k=True, theta_reduction_per_step=0.75, min_theta=1.5)
    assert len(list(selections(active, statistics, options))) == 6


@pytest.mark.parametrize(
    ("theta", "k", "last"), [(5.0, 0, 0), (1.0, 0, 1), (1.25, 0, 0), (5.0, 1279, 0), (5.0, 1280, 1)]
)
def test_a_good_try_at_the_end(theta, k, last):
    """The loops tell it from another good one, and so do we."""
    chosen = reference.initial_selection({}, {}, lambda chosen: 0.1, 0.4, theta=theta, k=k)
    assert chosen == ({}, 0.1, last)
    assert is_last(*next(steps(SearchOptions(initial_theta=theta, initial_k=k)))) == last


# --- lists with doubles ---


def test_a_double_is_scaled_once(tiny):
    """Half the values, not a quarter, 1e-4, in the loops and in the suite."""
    maps = make_maps(tiny, MEMORIZED, NoiseMaps(seeds=3), 0.5)
    layers = {name: list(range(16)) for name in reference.layers_of(tiny.unet, up=True)}
    once = [(name, channel) for name, channels in layers.items() for channel in channels]
    single, double = maps.of([once, once + once])
    doubled = {name: channels * 2 for name, channels in layers.items()}
    inputs = (tiny.unet, tiny.encode([MEMORIZED]).tokens, maps.x, int(maps.t))
    expected = reference.noise_maps(*inputs, doubled, 0.5)
    np.testing.assert_allclose(double.numpy(), expected, rtol=0, atol=1e-4)
    assert torch.equal(single, double)
    assert np.abs(reference.noise_maps(*inputs, layers, 0.25) - expected).max() > 1e-2


@pytest.mark.parametrize("at_once", [1, 8])
def test_refinement_takes_one_copy(at_once):
    """For 60 arbitrary likenesses of what is blocked; some end otherwise than without doubles."""
    once = [(name, channel) for name in ("a", "b", "c") for channel in range(7)]
    twice = [*once, *once[::3]]
    other = 0
    for case in range(60):

        def likeness_of(layers, case=case):
            blocked = sorted({(name, j) for name, part in layers.items() for j in part})
            return random.Random(repr((case, blocked))).random() ** (0.2 + case / 15)

        def many(candidates, likeness_of=likeness_of):
            return [likeness_of(by_layer(one)) for one in candidates]

        flags = {"threshold": 0.4, "at_once": at_once}
        kept = by_layer(refined(twice, ["c", "b", "a"], many, **flags))
        expected = reference.refinement(by_layer(twice), likeness_of, 0.4)
        assert {name: sorted(part) for name, part in kept.items()} == {
            name: sorted(part) for name, part in expected.items() if part
        }
        plain = by_layer(refined(once, ["c", "b", "a"], many, **flags))
        other += {name: set(part) for name, part in kept.items()} != {
            name: set(part) for name, part in plain.items()
        }
    assert other > 0


# --- whole searches ---


def find(tiny, statistics, **plain) -> dict:
    """What the loops find for a memorized prompt of the embedded model, with official noises."""
    lists = {
        name: (mean.tolist(), statistics.std[name].tolist())
        for name, mean in statistics.mean.items()
    }
    return reference.find(
        tiny.unet,
        tiny.encode([MEMORIZED]).tokens,
        reference.official_noises(1, (3, 4, 16, 16)),
        981,
        lists,
        statistics.threshold,
        up=True,
        **plain,
        **WINDOW,
    )


def search(tiny, statistics, options) -> PromptSearch:
    """What the suite finds for it."""
    maps = make_maps(tiny, MEMORIZED, NoiseMaps(seeds=3, rng="official"))
    return localize(maps, statistics, replace(options, blocks="all"))


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        (
            SearchOptions(ssim_threshold_initial_selection=0.4, ssim_threshold_refinement=0.5),
            {"initial_threshold": 0.4, "refinement_threshold": 0.5},
        ),
        (SearchOptions(rel_threshold_refinement=0.4), {"relative_threshold": 0.4}),
        (
            SearchOptions(initial_theta=4.0, theta_reduction_per_step=0.5, initial_k=2),
            {"selection": {"theta": 4.0, "theta_step": 0.5, "k": 2}},
        ),
    ],
)
def test_searches_equal_the_loops(tiny, statistics, options, plain):
    """The same neurons."""
    found = search(tiny, statistics, options)
    assert found.neurons == find(tiny, statistics, **plain) and 0 < found.count < found.initial


def test_doubles_find_other_neurons(tiny, statistics):
    """With four neurons of each layer at first: those of the loops, and not those of sets."""
    options = SearchOptions(doubles=True, initial_k=4)
    found = search(tiny, statistics, options)
    assert found.neurons == find(tiny, statistics, selection={"doubles": True, "k": 4})
    assert found.neurons != search(tiny, statistics, replace(options, doubles=False)).neurons


def test_a_search_that_begins_at_its_end(tiny, statistics):
    """Its selection suffices, and what that reached is the refinement's threshold all the same.

    Deviations are four times as large, so that a theta of 1 is one of 4 and selects few neurons.
    """
    large = {name: 4 * std for name, std in statistics.std.items()}
    statistics = replace(statistics, std=large)
    options = SearchOptions(initial_theta=1.0, ssim_threshold_initial_selection=1.0)
    found = search(tiny, statistics, options)
    expected = find(tiny, statistics, initial_threshold=1.0, selection={"theta": 1.0})
    assert found.neurons == expected and 0 < found.count < found.initial
    assert statistics.threshold != found.threshold == found.initial_similarity < 1.0


# --- controls ---

LAYERS = ("down_blocks.0", "down_blocks.1", "mid_block")
WIDTHS = (6, 6, 9)


def some_rows(count: int, seed: int) -> list[list[list[int]]]:
    """Neurons of some prompts in three layers; some prompts have the same, some none."""
    draw = random.Random(seed)
    groups = [[draw.sample(range(width), draw.randint(0, 3)) for width in WIDTHS] for _ in range(4)]
    return [draw.choice([[[], [], []], *groups]) for _ in range(count)]


def as_neurons(row: list[list[int]]) -> dict[str, list[int]]:
    """The row as a file has it."""
    return {name: channels for name, channels in zip(LAYERS, row) if channels}


@pytest.mark.parametrize(
    ("choose", "plain"),
    [
        ("top", reference.top_neurons),
        ("top_per_layer", reference.top_neurons_of_each_layer),
        ("subgroups", reference.top_subgroups),
    ],
)
@pytest.mark.parametrize("k", [1, 3, 99])
def test_controls_equal_the_loops(choose, plain, k):
    """The same neurons, and as many at random, of 20 draws of prompts."""
    for seed in range(20):
        rows = some_rows(15, seed)
        chosen = CHOICES[choose]([as_neurons(row) for row in rows], k)
        expected = plain(rows, k)
        if choose == "subgroups":
            chosen = {name: sorted(channels) for name, channels in chosen.items()}
        assert chosen == as_neurons(expected)
        drawn = at_random(chosen, dict(zip(LAYERS, WIDTHS)), 2)
        assert drawn == as_neurons(reference.random_instead(expected, list(WIDTHS), 2))
